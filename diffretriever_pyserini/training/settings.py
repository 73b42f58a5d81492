"""TrainSettings: everything that decides a training run, in one frozen record, from a YAML file and flags."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from ..model.prebuilt import read_yaml

METRICS = ("dense", "multi", "lexical", "hybrid")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run. The defaults are the paper's recipe (METHOD section 6) where it gives one.

    Attributes
    ----------
    model : where to start: a base or an adapter (prebuilt name, folder, hub id, YAML); an adapter is trained further.
    data, data_split : sources of rows (see sources.py) and the split of BEIR folders and hub data sets.
    output : folder of the checkpoint, of ``checkpoint-<step>`` folders and of the log.
    dev, dev_split, dev_rows : development rows: another source, or how many rows to keep from ``data``.
    on_error : ``stop`` at a bad row, or ``skip``, list and count it.
    k_query, k_passage, max_length, prompt, lexical_terms, mask_position_ids, mask_token_type : None takes the model's.
    lora_r, lora_alpha, lora_dropout : the adapter; ``lora_r`` 0 trains every weight.
    train_head : masked LMs: also train the output head (always where the base has none).
    batch_size : queries a device and step; ``accumulate`` steps make one update.
    negatives : hard negatives a query; 0 leaves the other passages of the batch.
    cross_device_negatives : every device's passages are negatives of every query.
    chunk : texts encoded at a time (GradCache, see model.py); 0 keeps the whole batch's activations.
    temperature, lexical_weight : tau and lambda of METHOD section 6.
    denoising_weight, denoising_passages, diversity_weight : the optional terms; passages a step that are denoised.
    margin_mse_weight, relational_kl_weight, teacher_temperature : distillation from the rows' own ``score`` fields.
    embedding_weight, embedding_kl_weight : distillation from the base's own mean-pooled embeddings.
    epochs, max_steps, learning_rate, schedule, warmup_ratio, weight_decay, max_grad_norm, seed : optimisation.
    dtype : of the base's weights; None is bfloat16 for LoRA on a GPU, else float32. ``bf16`` computes in bfloat16,
        which a bfloat16 base always does.
    gradient_checkpointing : keep only each layer's input.
    eval_steps, save_steps, log_steps, keep_checkpoints : how often, in updates. Where only one of the first two is
        set it stands for both; where none is, a run with a development set does both each epoch, others save nothing.
        The best evaluation is always saved.
    metric, patience : development measure (nDCG@10 of ``dense``, ``multi``, ``lexical`` or ``hybrid``), and how many
        evaluations without a better one end the run (0: never). With a development set the best checkpoint is kept.
    deepspeed, fsdp : JSON files: a DeepSpeed config, or transformers' ``fsdp_config``.
    workers, device, save_dtype : loader processes, ``auto``, ``cpu`` or ``cuda``, type of the final adapter's tensors.
    """

    model: str
    data: tuple[str, ...]
    output: str
    data_split: str = "train"
    dev: tuple[str, ...] = ()
    dev_split: str = "dev"
    dev_rows: int = 0
    on_error: str = "stop"
    k_query: int | None = None
    k_passage: int | None = None
    max_length: int | None = None
    prompt: str | None = None
    lexical_terms: str | None = None
    mask_position_ids: str | None = None
    mask_token_type: int | None = None
    backbone: str | None = None
    lora_r: int = 16
    lora_alpha: int = 64
    lora_dropout: float = 0.05
    train_head: bool = False
    batch_size: int = 16
    accumulate: int = 1
    negatives: int = 15
    cross_device_negatives: bool = True
    chunk: int = 0
    temperature: float = 0.01
    lexical_weight: float = 1.0
    denoising_weight: float = 0.0
    denoising_passages: int = 8
    diversity_weight: float = 0.0
    margin_mse_weight: float = 0.0
    relational_kl_weight: float = 0.0
    teacher_temperature: float = 1.0
    embedding_weight: float = 0.0
    embedding_kl_weight: float = 0.0
    epochs: float = 1.0
    max_steps: int = -1
    learning_rate: float = 1e-4
    schedule: str = "linear"
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42
    dtype: str | None = None
    bf16: bool = False
    gradient_checkpointing: bool = False
    eval_steps: int = 0
    save_steps: int = 0
    log_steps: int = 10
    keep_checkpoints: int = 2
    metric: str = "hybrid"
    patience: int = 0
    deepspeed: str | None = None
    fsdp: str | None = None
    workers: int = 0
    device: str = "auto"
    save_dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, allowed))}")
        for name in ("batch_size", "accumulate", "log_steps", "denoising_passages"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        for name in _NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative or infinite")
        if not self.data:
            raise ConfigError("data: no source of training rows; give a file, a folder or a hub id")
        for name in ("temperature", "teacher_temperature", "lora_alpha", "learning_rate", "epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be above 0")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ConfigError(f"max_steps={self.max_steps} must be at least 1, or -1 to leave it to epochs")
        if not 0 <= self.warmup_ratio < 1 or not 0 <= self.lora_dropout < 1:
            raise ConfigError("warmup_ratio and lora_dropout must lie in [0, 1)")
        if self.deepspeed and self.fsdp:
            raise ConfigError("deepspeed and fsdp are both set: a run takes one of them")
        if self.dev and self.dev_rows:
            raise ConfigError("dev and dev_rows are both set: name a development source, or rows to keep from data")
        if self.margin_mse_weight and not self.negatives:
            raise ConfigError("margin_mse_weight needs negatives of at least 1: a margin is positive minus negative")
        if self.patience and not self.develops:
            raise ConfigError("patience needs a development set: give dev or dev_rows")

    @property
    def develops(self) -> bool:
        """Whether there is a development set."""
        return bool(self.dev or self.dev_rows)

    def overrides(self) -> dict[str, Any]:
        """Fields of RetrieverConfig that this run sets, None for those it leaves to the model."""
        names = ("k_query", "k_passage", "max_length", "prompt", "lexical_terms", "mask_position_ids")
        return {name: getattr(self, name) for name in (*names, "mask_token_type", "backbone")}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        values = dataclasses.asdict(self)
        return values | {name: list(values[name]) for name in ("data", "dev")}


_NOT_NEGATIVE = (
    "negatives",
    "chunk",
    "dev_rows",
    "lora_r",
    "eval_steps",
    "save_steps",
    "keep_checkpoints",
    "patience",
    "workers",
    "weight_decay",
    "max_grad_norm",
    "lexical_weight",
    "denoising_weight",
    "diversity_weight",
    "margin_mse_weight",
    "relational_kl_weight",
    "embedding_weight",
    "embedding_kl_weight",
)
FIELDS = tuple(one.name for one in dataclasses.fields(TrainSettings))
_CHOICES = {
    "on_error": ("stop", "skip"),
    "metric": METRICS,
    "device": ("auto", "cpu", "cuda"),
    "save_dtype": ("float32", "bfloat16", "float16"),
    "dtype": (None, "float32", "bfloat16"),  # in float16 small gradients would be lost
    "schedule": ("linear", "cosine", "constant", "constant_with_warmup"),
}
_PATHS = ("model", "data", "dev", "backbone", "deepspeed", "fsdp")


def read_settings(path: Path | None, **flags: Any) -> TrainSettings:
    """Settings of a YAML file, ``flags`` (None is not set) over it.

    What the file reads counts from the file's folder where it is there; ``output`` counts from the working folder.

    Raises
    ------
    ConfigError
        For an unknown setting (the nearest known one is named), a value of another kind, or a missing one.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(path)
        values |= {name: _from_file(values[name], path.parent) for name in _PATHS if name in values}
    where = str(path or "command line")
    values |= {name: value for name, value in flags.items() if value is not None}
    return TrainSettings(**{name: _value(name, value, where) for name, value in _known(values, where).items()})


def _from_file(value: Any, folder: Path) -> Any:
    """A path of the file's, or several, as seen from the working folder; names and hub ids stay."""
    if isinstance(value, list):
        return [_from_file(one, folder) for one in value]
    if isinstance(value, str) and (value.startswith(("./", "../")) or (folder / value).exists()):
        return str(folder / value)
    return value


def _known(values: dict[str, Any], where: str) -> dict[str, Any]:
    import difflib

    for name in values:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}: unknown setting {name!r}{hint}")
    missing = [name for name in ("model", "data", "output") if not values.get(name)]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing; a run needs model, data and output")
    return values


def _value(name: str, value: Any, where: str) -> Any:
    """``value`` in the setting's own type: 3 for "3", 1e-4 for "1e-4" (which YAML reads as text), tuples for lists."""
    kind = get_type_hints(TrainSettings)[name]
    kinds = get_args(kind) if get_origin(kind) is not tuple and get_args(kind) else (kind,)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    try:
        if get_origin(kind) is tuple:
            return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
        if kind is bool:
            return {"true": True, "yes": True, "false": False, "no": False}[str(value).lower()]
        if kind is int and isinstance(value, float):
            raise ValueError
        return kind(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {name}={value!r} is not of type {kind.__name__}") from error
