"""TrainSettings: all settings of a training run in one frozen record, read from a YAML file and options."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Lt

from ..errors import ConfigError
from ..model.config import Budgets, LexicalTerms, MaskPositionIds, MaskTokenType, Prompt
from ..model.prebuilt import read_yaml
from ..model.readouts import Readout, has_terms
from ..settings import AboveZero, Count, CountFrom0, Help, OnError, Weight, check_names, checked, validate

Metric = Literal["dense", "multi", "lexical", "hybrid"]
METRICS = get_args(Metric)
Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup"]
WeightDtype = Literal["float32", "bfloat16"]  # in float16 small gradients would be lost
SaveDtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]
Share = Annotated[float, Ge(0), Lt(1)]
_MODELS = "the model's"
_OF_TERMS = (
    "lexical_terms",
    "lexical_weight",
    "lexical_temperature",
    "fused_weight",
    "lexical_kl_weight",
    "fused_kl_weight",
    "train_head",
    "metric",
)
_OF_MASKS = ("denoising_weight", "mask_position_ids", "mask_token_type")
_NONE = "none: unset it"
_EVERY = "if only one of the two is set it counts for both; if neither, once per epoch where there are development rows"


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One training run. The defaults are the paper's recipe (docs/method.md §6) where it gives one.

    Each field has its help text; ``diffretriever train --help`` and docs/training.md list them. Invalid values raise
    ConfigError.
    """

    model: Annotated[str, Help("base or adapter to start from; an adapter is trained further", "NAME", group="the run")]
    data: Annotated[tuple[str, ...], Help(".jsonl, .tsv, .parquet, BEIR folder, irds:NAME or hub id", "SOURCE")]
    output: Annotated[str, Help("folder of the checkpoints, the log and the plot", "DIR")]
    data_split: Annotated[str, Help("split of BEIR folders and hub data sets", "SPLIT", group="data")] = "train"
    dev: Annotated[tuple[str, ...], Help("source of the development rows", "SOURCE")] = ()
    dev_split: Annotated[str, Help("split of BEIR folders and hub data sets in dev", "SPLIT")] = "dev"
    dev_rows: Annotated[
        CountFrom0, Help("or the number of development rows to hold out of data, each query with all its rows")
    ] = 0
    on_error: Annotated[OnError, Help("what to do at a bad row; skip lists and counts it")] = "stop"
    readout: Annotated[
        Readout | None, Help("what is read of a text; all but mask are baselines", default=_MODELS, group="model")
    ] = None
    k_query: Annotated[Count | None, Help("positions of a query that are read", "K", default=_MODELS)] = None
    k_passage: Annotated[Count | None, Help("positions of a passage that are read", "K", default=_MODELS)] = None
    max_length: Annotated[Count | None, Help("tokens of a text with its prompt", default=_MODELS)] = None
    query_max_length: Annotated[Count | None, Help("the same for a query, if it is shorter", default=_MODELS)] = None
    query_prefix: Annotated[str | None, Help("without a prompt: text before each query", default=_MODELS)] = None
    passage_prefix: Annotated[str | None, Help("without a prompt: text before each passage", default=_MODELS)] = None
    append_eos: Annotated[
        bool | None, Help("without a prompt: end each text with the end-of-text token", default=_MODELS)
    ] = None
    prompt: Annotated[Prompt | None, Help("wording of the prompt", default=_MODELS)] = None
    lexical_terms: Annotated[LexicalTerms | None, Help("which terms of the vocabulary count", default=_MODELS)] = None
    mask_position_ids: Annotated[
        MaskPositionIds | None, Help("masked LMs: position ids of the masks", default=_MODELS)
    ] = None
    mask_token_type: Annotated[MaskTokenType | None, Help("masked LMs: segment of the masks", default=_MODELS)] = None
    prefix_budgets: Annotated[
        Budgets | None, Help("prefixes of the K vectors that are trained to stand alone", default=_MODELS)
    ] = None
    dropout: Annotated[Share | None, Help("dropout of the base's layers", default=_MODELS)] = None
    backbone: Annotated[str | None, Help("base of an adapter, if it has moved", "NAME", default=_MODELS)] = None
    lora_r: Annotated[CountFrom0, Help("rank of the adapter; 0 trains every weight", "R", group="adapter")] = 16
    lora_alpha: Annotated[Count, Help("the adapter is scaled by alpha / r", "A")] = 64
    lora_dropout: Annotated[Share, Help("dropout of the adapter's input")] = 0.05
    lora_layers: Annotated[CountFrom0, Help("number of upper layers that a new adapter adapts; 0 adapts all")] = 0
    train_head: Annotated[bool, Help("masked LMs: train the output head too, as always where the base has none")] = (
        False
    )
    batch_size: Annotated[Count, Help("queries per device and step", group="batches and negatives")] = 16
    accumulate: Annotated[Count, Help("steps per update")] = 1
    negatives: Annotated[CountFrom0, Help("hard negatives per query; 0 uses the other passages of the batch")] = 15
    cross_device_negatives: Annotated[bool, Help("use the passages of all devices as negatives")] = True
    chunk: Annotated[CountFrom0, Help("texts encoded at a time (GradCache); 0 keeps all activations of the batch")] = 0
    temperature: Annotated[AboveZero, Help("tau of the dense scores", "T", group="losses")] = 0.01
    lexical_weight: Annotated[Weight, Help("lambda, weight of the lexical loss", "W")] = 1.0
    lexical_temperature: Annotated[AboveZero, Help("tau of the lexical scores; the paper has none", "T")] = 1.0
    fused_weight: Annotated[
        Weight, Help("weight of the contrastive loss of both signals' sum, each divided by its tau", "W")
    ] = 0.0
    denoising_weight: Annotated[Weight, Help("weight of the denoising loss on masked text tokens", "W")] = 0.0
    denoising_passages: Annotated[Count, Help("passages per step in the denoising loss")] = 8
    diversity_weight: Annotated[Weight, Help("weight of the mean squared cosine of a text's K vectors", "W")] = 0.0
    margin_mse_weight: Annotated[Weight, Help("weight of MarginMSE against the scores in the rows", "W")] = 0.0
    relational_kl_weight: Annotated[Weight, Help("weight of the KL divergence from the scores in the rows", "W")] = 0.0
    lexical_kl_weight: Annotated[Weight, Help("weight of the same for the lexical scores", "W")] = 0.0
    fused_kl_weight: Annotated[Weight, Help("weight of the same for the sum of both signals", "W")] = 0.0
    teacher_temperature: Annotated[AboveZero, Help("temperature of the teacher's scores", "T")] = 1.0
    embedding_weight: Annotated[Weight, Help("weight of the distance to the base's mean-pooled embeddings", "W")] = 0.0
    embedding_kl_weight: Annotated[Weight, Help("weight of the KL divergence from their scores", "W")] = 0.0
    epochs: Annotated[AboveZero, Help("passes over the data", group="optimisation")] = 1.0
    max_steps: Annotated[int, Ge(-1), Help("number of updates; -1 uses epochs")] = -1
    learning_rate: Annotated[AboveZero, Help("peak learning rate, after warm-up")] = 1e-4
    schedule: Annotated[Schedule, Help("schedule of the learning rate")] = "linear"
    warmup_ratio: Annotated[Share, Help("share of the updates in which the learning rate rises")] = 0.1
    weight_decay: Annotated[Weight, Help("weight decay of AdamW")] = 0.0
    max_grad_norm: Annotated[Weight, Help("gradients are clipped to this norm; 0 disables it")] = 1.0
    seed: Annotated[CountFrom0, Help("seed of order, dropout and new weights")] = 42
    eval_steps: Annotated[CountFrom0, Help(f"updates between evaluations; {_EVERY}", group="evaluation")] = 0
    save_steps: Annotated[CountFrom0, Help(f"updates between checkpoints; {_EVERY}")] = 0
    log_steps: Annotated[
        Count, Help("updates between lines of the log, which also has each evaluation, checkpoint and the last step")
    ] = 10
    keep_checkpoints: Annotated[CountFrom0, Help("number of latest checkpoints to keep; 0 keeps all")] = 2
    metric: Annotated[Metric, Help("development nDCG@10 that decides which checkpoint is best and kept")] = "hybrid"
    patience: Annotated[CountFrom0, Help("stop after this many evaluations without a better one; 0 never stops")] = 0
    dtype: Annotated[
        WeightDtype | None,
        Help("type of the base's weights", default="bfloat16 for LoRA on a GPU, else float32", group="machine"),
    ] = None
    bf16: Annotated[bool, Help("compute in bfloat16; a bfloat16 base always does")] = False
    gradient_checkpointing: Annotated[bool, Help("keep only each layer's input: less memory, more time")] = False
    deepspeed: Annotated[str | None, Help(f"JSON file: a DeepSpeed config; {_NONE}", "FILE")] = None
    fsdp: Annotated[str | None, Help(f"JSON file: transformers' fsdp_config; {_NONE}", "FILE")] = None
    workers: Annotated[CountFrom0, Help("processes that load rows")] = 0
    device: Annotated[Device, Help("device to train on")] = "auto"
    save_dtype: Annotated[SaveDtype, Help("type of the final adapter's tensors")] = "float32"
    license: Annotated[
        str | None,
        Help("licence in the model card, by the hub's name for it (apache-2.0, mit)", "ID", default="unknown"),
    ] = None

    def __post_init__(self) -> None:
        validate(self)
        if not self.data:
            raise ConfigError("data: no source of training rows; give a file, a folder or a hub id.")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise ConfigError(
                f"license={self.license!r} must be the hub's name of a licence, such as apache-2.0, mit or other."
            )
        if self.max_steps == 0:
            raise ConfigError("max_steps=0 must be at least 1, or -1 to use epochs.")
        if self.deepspeed and self.fsdp:
            raise ConfigError("deepspeed and fsdp are both set; a run uses one of them.")
        if self.dev and self.dev_rows:
            raise ConfigError("dev and dev_rows are both set; give a development source or a number of rows of data.")
        if self.margin_mse_weight and not self.negatives:
            raise ConfigError("margin_mse_weight needs negatives of at least 1: a margin is positive minus negative.")
        if self.patience and not self.develops:
            raise ConfigError("patience needs a development set: give dev or dev_rows.")

    @property
    def develops(self) -> bool:
        """Whether there is a development set."""
        return bool(self.dev or self.dev_rows)

    def require_contrast(self, passages: int) -> None:
        """ConfigError where a batch of ``passages`` passages has no negative and no loss can do without one."""
        needs_none = self.denoising_weight or self.embedding_weight
        needs_another = self.distils_scores or self.embedding_kl_weight
        if not needs_none and (passages == 1 or not needs_another):
            raise ConfigError(
                "there is nothing to learn from: no query has a negative passage in its batch. Raise negatives "
                f"({self.negatives}) or batch_size ({self.batch_size}), or give rows with other positives."
            )

    @property
    def uses_terms(self) -> bool:
        """Whether any loss reads the term weights."""
        return bool(self.lexical_weight or self.fused_weight or self.lexical_kl_weight or self.fused_kl_weight)

    @property
    def distils_scores(self) -> bool:
        """Whether the rows' scores are a teacher."""
        kl = self.relational_kl_weight or self.lexical_kl_weight or self.fused_kl_weight
        return bool(self.margin_mse_weight or kl)

    @property
    def distils_embeddings(self) -> bool:
        """Whether the base's embeddings are a teacher."""
        return bool(self.embedding_weight or self.embedding_kl_weight)

    def overrides(self) -> dict[str, Any]:
        """Fields of RetrieverConfig that this run sets; None where the model decides."""
        return {name: getattr(self, name) for name in _OF_MODEL}

    def for_readout(self, readout: str) -> TrainSettings:
        """These settings for a model with ``readout``; without terms there is no lexical loss, and ``metric`` is dense.

        Raises ConfigError for a setting that such a model cannot use.
        """
        defaults = {one.name: one.default for one in dataclasses.fields(self)}
        refused = () if has_terms(readout) else _OF_TERMS
        for name in (*refused, *(() if readout == "mask" else _OF_MASKS)):
            value = getattr(self, name)
            if value and value not in (defaults[name], "dense"):
                what = "gives one vector per text and no term weights" if name in refused else "has no masks"
                raise ConfigError(f"{name}={value!r} does not fit the read-out {readout}, which {what}; omit it.")
        return dataclasses.replace(self, lexical_weight=0.0, metric="dense") if refused else self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        values = dataclasses.asdict(self)
        lists = {name: list(values[name]) for name in ("data", "dev", "prefix_budgets") if values[name] is not None}
        return values | lists


_OF_MODEL = (
    "readout",
    "k_query",
    "k_passage",
    "max_length",
    "query_max_length",
    "query_prefix",
    "passage_prefix",
    "append_eos",
    "prompt",
    "lexical_terms",
    "mask_position_ids",
    "mask_token_type",
    "prefix_budgets",
    "backbone",
)
FIELDS = tuple(one.name for one in dataclasses.fields(TrainSettings))
_FILES = ("deepspeed", "fsdp")
_PATHS = ("model", "data", "dev", "backbone", *_FILES)


def read_settings(path: Path | None, **flags: Any) -> TrainSettings:
    """Settings of a YAML file, overridden by ``flags`` that are not None; ``deepspeed`` or ``fsdp`` "none" is unset.

    Input paths in the file are relative to the file's folder if they exist there; ``output`` is relative to the
    working folder.

    Raises
    ------
    ConfigError
        For an unknown setting (with the nearest known name), an invalid value, or a missing one.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_yaml(path)
        values |= {name: _from_file(values[name], path.parent) for name in _PATHS if name in values}
    where = str(path or "command line")
    values |= {name: value for name, value in flags.items() if value is not None}
    values |= {name: None for name in _FILES if values.get(name) == "none"}
    check_names(TrainSettings, values, where=where)  # first, since a missing setting may be a misspelt one
    missing = [name for name in ("model", "data", "output") if not values.get(name)]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing; a run needs model, data and output.")
    return TrainSettings(**checked(TrainSettings, values, where=where))


def _from_file(value: Any, folder: Path) -> Any:
    """A path in a file of ``folder``, or several, relative to the working folder; names and hub ids stay."""
    if isinstance(value, list):
        return [_from_file(one, folder) for one in value]
    if isinstance(value, str) and (value.startswith(("./", "../")) or (folder / value).exists()):
        return str(folder / value)
    return value
