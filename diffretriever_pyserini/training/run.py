"""A whole run: from settings to a checkpoint folder with log, plot and model card."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import ConfigError, InputError
from ..evaluation.plots import PLOTS_REMEDY
from ..files.atomic import read_json, write_json, write_whole
from ..files.outputs import real_target
from ..model.backbones.loading import family_module, load_tokenizer
from ..model.config import RetrieverConfig
from ..model.layout import build_layout
from ..model.prebuilt import written_values
from ..model.resolve import resolve_config
from .card import model_card
from .data.examples import RowFiles, TrainingRows, split_rows
from .data.sources import digests, row_files
from .develop import DevelopmentSet, development_set
from .log import plot_log, read_log
from .lora import LoraSettings
from .settings import TrainSettings

if TYPE_CHECKING:
    from .trainer import Parts

SETTINGS = "train.yaml"
LOG = "log.jsonl"
PLOT = "training.png"
DATA = "data"
DIGESTS = "files.json"
_TEXTS_COUNTED = 20_000  # from whose terms a new output head starts
# Settings that may change when a run is resumed.
_CHANGEABLE = {"output", "workers", "device", "log_steps", "keep_checkpoints", "license"}


def train(settings: TrainSettings, resume: bool = False, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Train and write ``settings.output``; returns the figures (development measures before and after, steps, rows).

    Raises
    ------
    DiffRetrieverError
        For a setting, a row or a checkpoint that cannot be used, or a loss that is not finite.
    """
    from transformers import set_seed

    from .gather import rank
    from .trainer import Parts, RetrieverTrainer, arguments

    config = retriever_for(settings)
    asked, settings = settings, settings.for_readout(config.readout)
    args = arguments(settings)  # before what follows, since it joins the processes of a distributed run
    devices = args.world_size if settings.cross_device_negatives else 1
    if (passages := settings.batch_size * (1 + settings.negatives) * devices) == 1:
        settings.require_contrast(passages)
    output = Path(settings.output)
    with args.main_process_first(local=False):  # one process removes and writes before the others look
        checkpoint = _start(output, asked, resume)
    set_seed(settings.seed)
    with args.main_process_first(local=False):  # one process writes what the others read
        rows, training, development = _rows(settings, output / DATA)
    report: Callable[[str], None] = say if rank() == 0 else lambda _: None
    settings = dataclasses.replace(settings, prefix_budgets=config.prefix_budgets)
    parts = Parts(settings, *_model(settings, config, training), development, report)
    trainable = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    report(f"{len(training)} training rows, {trainable:,} trained parameters, K {config.k_query}/{config.k_passage}")
    if development is not None:
        report(f"{len(development.queries)} development queries, {len(development.passages)} passages")
    if rows.bad.count:
        report(rows.bad.summary())
    if development is not None and (known := training.count_with_queries(development.queries)):
        report(f"{known} training rows have a query of the development set, so its figures will be too good.")
    trainer = RetrieverTrainer(parts, args, output / LOG)
    if len(training) < settings.batch_size * settings.accumulate * args.world_size:
        raise ConfigError(f"{len(training)} training rows do not fill one batch; lower batch_size or accumulate.")
    if development is not None and checkpoint is None:
        args.eval_on_start = True
    if checkpoint is not None and _finished(checkpoint):
        trainer.finish_from(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    final = {f"eval_{name}": value for name, value in trainer.measured().items()} if development is not None else {}
    trainer.accelerator.wait_for_everyone()
    figures = _figures(settings, trainer, final, rows, len(training))
    state = trainer.trained_state()
    if trainer.is_world_process_zero():
        _finish(parts, figures, state)
    trainer.accelerator.wait_for_everyone()
    return figures


def _finish(parts: Parts, figures: dict[str, Any], state: dict[str, Any] | None) -> None:
    """Write the final checkpoint, the plot and the model card."""
    import torch

    from .release import save_release

    settings, output = parts.settings, Path(parts.settings.output)
    dtype = None if settings.save_dtype == "float32" else getattr(torch, settings.save_dtype)
    save_release(output, parts.model.backbone, parts.release, dtype, state)
    plot = _plot(output)
    write_json(output / "figures.json", figures)
    card = model_card(settings, parts.release.config, parts.release, figures)
    write_whole(output / "README.md", card)
    parts.say(f"Checkpoint: {output} (use it as --encoder diffretriever:{output}); log {LOG}, {plot}")


def _plot(output: Path) -> str:
    """Write the plot, unless matplotlib is missing; returns what to report."""
    if find_spec("matplotlib") is None:
        return f"no plot, as matplotlib is missing ({PLOTS_REMEDY})"
    plot_log(read_log(output / LOG), output / PLOT)
    return f"plot {PLOT}"


def retriever_for(settings: TrainSettings) -> RetrieverConfig:
    """The retriever that the run trains; K and length come from the settings, else the model, else the paper."""
    config = resolve_config(settings.model, **settings.overrides())
    bare = config.adapter is None and written_values(settings.model) is None
    defaults = family_module(config.family).RELEASE
    changes: dict[str, Any] = {}
    if bare and config.readout == "mask" and settings.k_query is None and settings.k_passage is None:
        changes["k_query"], changes["k_passage"] = defaults.budgets
    if bare and settings.max_length is None and defaults.max_length is not None:
        changes["max_length"] = defaults.max_length
    changed = config.replace(**changes)
    if settings.lora_r == 0 and config.adapter:
        raise ConfigError(f"{settings.model} is an adapter; lora_r: 0 trains all weights and starts from a base only.")
    if settings.lora_layers and (config.adapter or settings.lora_r == 0):
        raise ConfigError("lora_layers is for a new adapter: this run trains all weights, or an adapter further.")
    most = max(changed.k_query, changed.k_passage)
    if changed.prefix_budgets and max(changed.prefix_budgets) > most:
        if settings.prefix_budgets:
            raise ConfigError(f"prefix_budgets={list(settings.prefix_budgets)} exceed the {most} vectors of a text.")
        fitting = tuple(budget for budget in changed.prefix_budgets if budget <= most)
        changed = changed.replace(prefix_budgets=fitting)
    if settings.distils_embeddings and (settings.lora_r == 0 or settings.fsdp):
        raise ConfigError(
            "distillation from the base's embeddings needs LoRA, and the base must not be sharded (fsdp)."
        )
    return changed


def _model(settings: TrainSettings, config: RetrieverConfig, rows: TrainingRows) -> tuple[Any, Any, Any, Any]:
    """MaskReader, rows, collator and Release of the run."""
    import torch
    from tqdm.auto import tqdm

    from ..model.lexical import unknown_ids
    from .data.batches import Collator
    from .gather import rank
    from .lora import start_terms, trainable_backbone
    from .model import MaskReader, set_base_dropout, use_gradient_checkpointing
    from .release import Release, base_name
    from .trainer import weights_dtype

    dtype = getattr(torch, weights_dtype(settings))
    lora = lora_for(settings, config)
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    backbone = trainable_backbone(config, dtype, lora, settings.train_head, settings.seed)
    if settings.gradient_checkpointing:
        use_gradient_checkpointing(backbone)
    if settings.dropout is not None:
        set_base_dropout(backbone, settings.dropout)
    collator = Collator(tokenizer, layouts, backbone.pad_left, config.lexical_terms, settings, config)
    if backbone.missing_head and not config.adapter:
        texts = rows.some_positives(_TEXTS_COUNTED)
        bar = tqdm(texts, desc="Counting terms", unit=" texts", delay=2, disable=True if rank() else None)
        frequencies = collator.text_frequencies(bar, backbone.vocab_size)
        if frequencies is not None:
            start_terms(backbone, frequencies, len(texts))
    name = base_name(settings.model, config)
    release = Release(config, layouts, tokenizer, lora, name, settings.temperature, settings.lexical_weight)
    model = MaskReader(backbone, layouts, settings.chunk, unknown_ids(tokenizer), config.readout)
    return model, rows, collator, release


def lora_for(settings: TrainSettings, config: RetrieverConfig) -> LoraSettings | None:
    """Rank and scale of the adapter; those of the model's own adapter where it has one."""
    if settings.lora_r == 0:
        return None
    if config.adapter:
        saved = read_json(Path(config.adapter) / "adapter_config.json")
        return LoraSettings(
            int(saved["r"]),
            int(saved["lora_alpha"]),
            settings.lora_dropout,
            rslora=bool(saved.get("use_rslora", False)),
        )
    return LoraSettings(settings.lora_r, settings.lora_alpha, settings.lora_dropout, settings.lora_layers)


def _rows(settings: TrainSettings, work: Path) -> tuple[RowFiles, TrainingRows, DevelopmentSet | None]:
    from .gather import rank

    paths = row_files(settings.data, work, settings.data_split)
    dev_paths = row_files(settings.dev, work, settings.dev_split)
    reports = [work / name if rank() == 0 else None for name in ("bad-rows.txt", "bad-dev-rows.txt")]
    rows = RowFiles(paths, settings.negatives > 0, settings.on_error, reports[0])
    dev_rows = RowFiles(dev_paths, False, settings.on_error, reports[1]) if dev_paths else None
    chosen, held_out = split_rows(rows, 0 if dev_rows else settings.dev_rows, settings.seed)
    training = TrainingRows(rows, chosen, settings.negatives, settings.seed)
    if dev_rows is not None:
        return rows, training, development_set([dev_rows[i] for i in range(len(dev_rows))])
    development = [rows[int(i)] for i in held_out]
    return rows, training, development_set(development) if development else None


def _start(output: Path, settings: TrainSettings, resume: bool) -> Path | None:
    """The checkpoint to resume from, or None for a new run; writes the settings, or compares them on resuming.

    A new run needs an empty folder, or one with only the settings and rows of a run that ended before its first step.
    """
    from .gather import rank

    written = output / SETTINGS
    if output.is_symlink() and not output.exists():
        real_target(output).mkdir(parents=True)
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output {output} is a file; name a folder.")
    checkpoints = [path for path in output.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    if not resume:
        if checkpoints or (output / LOG).is_file():
            raise ConfigError(f"{output} already holds a run. Resume it with --resume, or name another output.")
        others = sorted({path.name for path in output.glob("*")} - {SETTINGS, f"{SETTINGS}.partial", DATA})
        if others:
            raise ConfigError(f"output {output} is not empty (it holds {others[0]}); name another folder.")
    elif written.is_file():
        before = yaml.safe_load(written.read_text(encoding="utf-8")) or {}
        defaults = {one.name: one.default for one in dataclasses.fields(settings)}  # of settings newer than the run
        for name, value in settings.to_dict().items():
            if name not in _CHANGEABLE and before.get(name, defaults[name]) != value:
                raise ConfigError(f"{output}: the run was started with {name}={before.get(name)!r}, not {value!r}.")
    now = digests(settings.data, settings.data_split) | digests(settings.dev, settings.dev_split)
    if resume:
        _check_data(output / DATA / DIGESTS, now)
    if rank() == 0:
        (output / DATA).mkdir(parents=True, exist_ok=True)
        write_whole(written, yaml.safe_dump(settings.to_dict(), sort_keys=False))
        write_json(output / DATA / DIGESTS, now)
    return last_complete(checkpoints) if resume else None


def _check_data(path: Path, now: dict[str, str]) -> None:
    """ConfigError for the first data file that differs from the digests at ``path``, taken when the run started."""
    before = read_json(path) if path.is_file() else now
    for name in (*before, *(name for name in now if name not in before)):
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"{name}: {before.get(name, 'absent')} when the run was started, {now.get(name, 'absent')} now. A run "
                "can only resume with the same rows: restore the file, or start a run with another output."
            )


def _finished(checkpoint: Path) -> bool:
    """Whether the run had ended, or stopped early, when it wrote ``checkpoint``."""
    callbacks = read_json(checkpoint / "trainer_state.json").get("stateful_callbacks", {})
    return bool(callbacks.get("TrainerControl", {}).get("args", {}).get("should_training_stop"))


def last_complete(checkpoints: list[Path]) -> Path | None:
    """The latest complete checkpoint; later incomplete ones are removed."""
    for path in sorted(checkpoints, key=lambda one: -int(one.name.partition("-")[2])):
        try:
            read_json(path / "trainer_state.json")  # transformers writes it last
        except InputError:
            shutil.rmtree(path)
            continue
        return path
    return None


def _figures(
    settings: TrainSettings, trainer: Any, final: dict[str, float], rows: RowFiles, used: int
) -> dict[str, Any]:
    records = read_log(Path(settings.output) / LOG)
    before = next((record for record in records if record["step"] == 0 and "eval_dense" in record), {})
    return {
        "steps": trainer.state.global_step,
        "training_rows": used,
        "bad_rows": rows.bad.count,
        "queries_per_update": settings.batch_size * settings.accumulate * trainer.args.world_size,
        "passages_per_query": 1 + settings.negatives,
        "development_before": {name: before[name] for name in sorted(before) if name.startswith("eval_")},
        "development_after": {name: final[name] for name in sorted(final)},
        "best_checkpoint": trainer.state.best_model_checkpoint and Path(trainer.state.best_model_checkpoint).name,
        "settings": dataclasses.asdict(settings),
    }
