"""transformers' Trainer with our loss, checkpoint layout and development measure.

The loop, optimiser, schedules, DDP, DeepSpeed, FSDP, gradient accumulation, resuming and early stopping are
transformers'. Ours are the loss of a batch, the checkpoint folder in the released layout, and the evaluation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..errors import ConfigError, NumericalError
from ..files.atomic import read_json
from .data.batches import Collator
from .data.examples import TrainingRows
from .develop import DevelopmentSet, measure
from .gather import whole_tensors
from .log import RunLog
from .lora import adapter_off
from .model import MaskReader
from .objective import objective
from .release import Release, load_trained, save_release
from .settings import TrainSettings


@dataclass(frozen=True)
class Parts:
    """The parts of a run that RetrieverTrainer uses."""

    settings: TrainSettings
    model: MaskReader
    rows: TrainingRows
    collator: Collator
    release: Release
    development: DevelopmentSet | None
    say: Callable[[str], None]


class RetrieverTrainer(Trainer):
    """The Trainer of one run of ``parts``."""

    def __init__(self, parts: Parts, args: TrainingArguments, log: Path):
        self.parts = parts
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0
        self._negatives: torch.Tensor | None = None
        super().__init__(
            model=parts.model,
            args=args,
            data_collator=parts.collator,
            train_dataset=parts.rows,
            # transformers requires a data set before it evaluates; ours is measured in evaluate().
            eval_dataset=None if parts.development is None else parts.rows,
            callbacks=[_Epochs(parts.rows, self._check_negatives), RunLog(log, parts.say)],
        )
        if parts.settings.fsdp and not self.is_fsdp_enabled:
            raise ConfigError(
                "fsdp spreads weights over GPUs, and accelerate would silently ignore it on this machine."
            )
        self.model_accepts_loss_kwargs = False  # so that transformers divides by the accumulation steps
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        if parts.settings.patience:
            self.add_callback(EarlyStoppingCallback(early_stopping_patience=parts.settings.patience))

    def training_step(self, *arguments: Any, **more: Any) -> Any:
        """transformers' step; the backward pass may compute parts of the forward pass again, so it is inside too."""
        slow = self.args.bf16 and self.args.device.type == "cpu"
        with attention_by_products() if slow else nullcontext():
            return super().training_step(*arguments, **more)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Loss of one batch of this device; scores and losses are float32 whatever the model computes in."""
        settings = self.parts.settings
        outputs = model(**{name: inputs[name] for name in ("query", "passage", "denoise") if name in inputs})
        teacher = None
        if "plain" in inputs:
            with adapter_off(self.parts.model.backbone), self.accelerator.autocast():
                teacher = {side: self.parts.model.plain_embeddings(one) for side, one in inputs["plain"].items()}
        if settings.distils_scores and "teacher_scores" not in inputs:
            raise ConfigError("distillation needs a 'score' in every passage of every row, and a row here has none.")
        with torch.autocast(self.args.device.type, enabled=False):
            losses = objective(outputs, inputs, settings, self.parts.model.backbone.vocab_size, teacher)
        if not torch.isfinite(losses["loss"]):
            raise NumericalError(
                f"the loss is {losses['loss'].item()} at step {self.state.global_step + 1}; lower the learning rate, "
                "raise the temperature, or compute in float32."
            )
        if self.parts.model.training:
            self._count += 1
            negatives = losses.pop("negatives").detach()
            self._negatives = negatives if self._negatives is None else self._negatives + negatives
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        return (losses["loss"], outputs) if return_outputs else losses["loss"]

    def _check_negatives(self) -> None:
        """ConfigError at the end of an epoch in which no query had a negative on any device."""
        settings = self.parts.settings
        if self._negatives is not None and not self.accelerator.reduce(self._negatives, reduction="sum"):
            settings.require_contrast(settings.batch_size * (1 + settings.negatives))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the loss's parts since the last log, over all devices."""
        if "loss" in logs and self._count:
            names = sorted(set(self._sums) - {"loss"})
            if names:
                means = torch.stack([self._sums[name] / self._count for name in names])
                means = self.accelerator.reduce(means, reduction="mean")
                logs |= dict(zip(names, means.tolist(), strict=True))
            self._sums, self._count = {}, 0
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """nDCG@10 of dense, multi, lexical and hybrid on the development set."""
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.measured().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measured(self) -> dict[str, float]:
        """Development nDCG@10 of the present weights, not logged; the same on every device."""
        assert self.parts.development is not None
        with self.compute_loss_context_manager():
            weight = self.parts.release.config.hybrid_weight
            return measure(self.parts.model, self.parts.collator, self.parts.development, hybrid_weight=weight)

    def finish_from(self, checkpoint: Path) -> None:
        """Replace train() where ``checkpoint`` is the last of its run: transformers would train one step more."""
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        best = Path(self.state.best_model_checkpoint or checkpoint)
        self._load_from_checkpoint(str(best if best.is_dir() else checkpoint))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better = super()._determine_best_metric(metrics, trial)
        self.control.should_save |= better  # else the best weights between two saves would be lost
        return better

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a checkpoint's weights; under FSDP only the trained ones are gathered."""
        if self.is_fsdp_enabled:
            self._save(output_dir, self.trained_state())
        else:
            super().save_model(output_dir, _internal_call)

    def trained_state(self) -> dict[str, torch.Tensor] | None:
        """The trained weights by name, gathered on the CPU of the first process; None without FSDP.

        Every process must call this at the same time.
        """
        if not self.is_fsdp_enabled:
            return None
        network = self.parts.model.network
        trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        everything = self.parts.release.lora is None  # buffers included
        return whole_tensors({k: v for k, v in network.state_dict().items() if everything or k in trained})

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Under FSDP, leave out transformers' second copy of all weights, which is never read."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        assert self.lr_scheduler is not None  # made by train()
        plugin = self.accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write a checkpoint's weights in the released layout and in float32, so that resuming is exact."""
        if not self.args.should_save:  # transformers calls this in every process
            return
        state = None
        if state_dict is not None:
            state = {name.removeprefix("network."): tensor for name, tensor in state_dict.items()}
        folder = Path(output_dir or str(self.args.output_dir))
        save_release(folder, self.parts.model.backbone, self.parts.release, state=state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(Path(resume_from_checkpoint), self.parts.model.backbone, self.parts.release.config.family)

    def _load_best_model(self) -> None:
        load_trained(
            Path(str(self.state.best_model_checkpoint)), self.parts.model.backbone, self.parts.release.config.family
        )


class _Epochs(TrainerCallback):
    """Set the epoch of the rows, also after resuming, and call ``check`` after each epoch."""

    def __init__(self, rows: TrainingRows, check: Callable[[], None]):
        self.rows, self.check = rows, check

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.check()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rows.set_epoch(int(state.epoch or 0))


def weights_dtype(settings: TrainSettings) -> str:
    """Type of the base's weights; trained weights stay float32, since bfloat16 would round small steps away."""
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    return settings.dtype or ("bfloat16" if on_gpu and settings.lora_r else "float32")


def _check_fsdp(path: Path) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise ConfigError(f"fsdp ({path}) spreads weights over several processes; start the run with torchrun.")
    values = read_json(path, error=ConfigError)
    if str(values.get("version", values.get("fsdp_version", 2))) != "2":
        raise ConfigError(f"{path}: version 1 of FSDP is not supported; set version: 2.")


def _check_deepspeed(settings: TrainSettings, path: Path) -> None:
    """ConfigError for mistakes in a DeepSpeed file, before DeepSpeed itself is needed."""
    values = read_json(path, error=ConfigError)
    stage = (values.get("zero_optimization") or {}).get("stage", 0)
    if stage not in (0, 1, 2):
        raise ConfigError(f"{path}: ZeRO stage {stage} is not supported; use fsdp to spread the weights.")
    equivalent = {
        "train_micro_batch_size_per_gpu": "batch_size",
        "gradient_accumulation_steps": "accumulate",
        "gradient_clipping": "max_grad_norm",
    }
    for theirs, ours in equivalent.items():
        value = values.get(theirs, "auto")
        if value not in ("auto", getattr(settings, ours)):
            raise ConfigError(
                f"{path}: {theirs} is {value}, but {ours} is {getattr(settings, ours)}; set it to 'auto'."
            )


def arguments(settings: TrainSettings) -> TrainingArguments:
    """transformers' arguments for ``settings``; creating them joins the other processes of a distributed run."""
    develops = settings.develops
    eval_steps, save_steps = settings.eval_steps or settings.save_steps, settings.save_steps or settings.eval_steps
    if develops and save_steps != eval_steps and save_steps % eval_steps:
        raise ConfigError(f"save_steps={save_steps} must be a multiple of eval_steps={eval_steps}.")
    if settings.deepspeed:
        _check_deepspeed(settings, Path(settings.deepspeed))
    if settings.deepspeed and find_spec("deepspeed") is None:
        raise ConfigError(
            "deepspeed is set but not installed: pip install deepspeed (it needs a CUDA toolkit), or leave the setting "
            "deepspeed out (--deepspeed none)."
        )
    if settings.fsdp:
        _check_fsdp(Path(settings.fsdp))
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch sees no GPU; device: auto uses a GPU if there is one, else the CPU.")
    steps = "steps" if save_steps else "epoch"
    cpu = settings.device == "cpu" or not torch.cuda.is_available()
    training_arguments = TrainingArguments(
        output_dir=settings.output,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_ratio,  # below 1 transformers reads it as a share of all steps
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        data_seed=settings.seed,
        # Trained float32 weights and a bfloat16 base need autocast.
        bf16=settings.bf16 or weights_dtype(settings) == "bfloat16",
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        ddp_find_unused_parameters=not settings.uses_terms,
        deepspeed=settings.deepspeed,
        fsdp=True if settings.fsdp else None,  # type: ignore[arg-type]  # annotated str, documented bool
        fsdp_config=settings.fsdp,
        logging_steps=settings.log_steps,
        eval_strategy=steps if develops else "no",
        eval_steps=eval_steps or None,
        save_strategy=steps if develops or save_steps else "no",
        save_steps=save_steps or 500,
        save_total_limit=settings.keep_checkpoints,
        load_best_model_at_end=develops,
        metric_for_best_model=f"eval_{settings.metric}" if develops else None,
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,  # how long early stopping has waited
        dataloader_num_workers=settings.workers,
        dataloader_drop_last=True,  # so that the number of negatives is the same in the last step
        remove_unused_columns=False,
        label_names=[],
        report_to=[],
        disable_tqdm=True,
    )
    if settings.workers:  # every other way to start processes would run a user's script again
        training_arguments.dataloader_multiprocessing_context = "fork"
    return training_arguments


@contextmanager
def attention_by_products() -> Iterator[None]:
    """Attention from plain matrix products: torch's fused kernel has a slow backward pass in bfloat16 on a CPU."""
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # despite its name for CPUs too
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
