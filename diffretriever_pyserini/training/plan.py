"""An estimate of what a run needs: memory per device, steps, size of a checkpoint. No weights are loaded.

The model is built on torch's meta device, where tensors have shapes but no content, and its parameters are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..model.backbones.base import Backbone
from ..model.backbones.loading import empty_base
from ..model.config import RetrieverConfig
from ..model.hub import without_weights
from ..model.readouts import has_terms
from .lora import adapted_layers, add_lora, head_parameters
from .run import lora_for, retriever_for
from .settings import TrainSettings

_CUDA = 1.5e9  # bytes of the context and the libraries
_USABLE = 0.9  # share of a device's memory: the rest may be lost to fragmentation
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def plan(settings: TrainSettings, gpus: int, gpu_memory: float) -> str:
    """What ``settings`` need on each of ``gpus`` devices of ``gpu_memory`` GB, as text.

    Raises
    ------
    ConfigError, ModelNotFoundError
        Where the run itself would raise them for its model.
    """
    with without_weights():
        config = retriever_for(settings)
        model = empty_base(config)
    settings = settings.for_readout(config.readout)
    if not has_terms(config.readout):
        Backbone(model).drop_head()
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = _trained(model, settings, config)
    lines = _memory(model, settings, config, gpus, total, trained)
    needed = sum(lines.values()) / 1e9
    fits = "fits" if needed <= _USABLE * gpu_memory else "does NOT fit: try chunk, gradient_checkpointing or fsdp"
    update = settings.batch_size * settings.accumulate * gpus
    final, states = trained * _BYTES[settings.save_dtype] / 1e6, 12 * trained / 1e6
    head = f"{config.name}: {total / 1e6:,.1f} M parameters, {trained / 1e6:,.1f} M of them trained, {gpus} device(s)"
    return "\n".join(
        [
            head,
            *(f"  {what:<40} {size / 1e9:7.2f} GB" for what, size in lines.items()),
            f"  {'each device':<40} {needed:7.2f} GB of {gpu_memory:g}: {fits}",
            f"steps: {_steps(settings, update)}, {update} queries each",
            f"checkpoint: {final:,.0f} MB; each checkpoint-<step>, with the optimiser's state: {states:,.0f} MB",
            "An estimate from shapes, not a measurement.",
        ]
    )


def _trained(model: Any, settings: TrainSettings, config: RetrieverConfig) -> int:
    """Upper bound on the trained parameters (an adapter may leave layers out); adds LoRA to ``model``."""
    lora = lora_for(settings, config)
    if lora is not None:
        with torch.device("meta"):
            add_lora(model, config.family, lora)
        headless = not any("For" in name for name in model.config.architectures or ())
        if (
            config.family == "masked_lm"
            and has_terms(config.readout)
            and (settings.train_head or config.adapter or headless)
        ):
            for parameter in head_parameters(model).values():
                parameter.requires_grad_(True)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _memory(
    model: Any, settings: TrainSettings, config: RetrieverConfig, gpus: int, total: int, trained: int
) -> dict[str, float]:
    """Bytes on each device by purpose."""
    lora, layers, hidden = bool(settings.lora_r), model.config.num_hidden_layers, model.config.hidden_size
    weight = _BYTES[settings.dtype or ("bfloat16" if lora and settings.device != "cpu" else "float32")]
    computed = 2 if settings.bf16 else weight
    texts = settings.batch_size * (1 + settings.negatives)
    chunk = min(settings.chunk or texts, texts)
    masks = max(config.k_query, config.k_passage)
    tokens = chunk * (config.max_length + masks + 3)
    names = [
        name
        for name in adapted_layers(config.family, model, settings.lora_layers)
        if name != "lm_head" and ".lora_" not in name
    ]
    linear = [model.get_submodule(name) for name in names]
    # Inputs and outputs of the linear layers; with LoRA two float32 copies of the input, before and after dropout.
    copies = 8 if lora else 0
    per_token = sum(computed * (one.in_features + one.out_features) + copies * one.in_features for one in linear)
    if routed := getattr(model.config, "num_experts_per_tok", 0):  # experts are no linear layers
        per_token += computed * layers * routed * (2 * hidden + 3 * model.config.moe_intermediate_size)
    if settings.gradient_checkpointing:  # the input of each block, and all of one block
        per_token = computed * layers * hidden + per_token / layers
    gathered = texts * (gpus if settings.cross_device_negatives else 1)
    state = trained * (8 if settings.fsdp or settings.deepspeed else 8 * gpus) / gpus
    return {
        "weights": weight * total / (gpus if settings.fsdp else 1),
        "trained weights in float32, gradients": (8 if lora else 4) * trained,
        "Adam's two moments": state,
        f"activations of {chunk} texts": tokens * per_token,
        "logits and vectors, gradients": 12 * chunk * masks * model.config.vocab_size * has_terms(config.readout)
        + 8 * gathered * config.k_passage * hidden,
        "CUDA and libraries": _CUDA,
    }


def _steps(settings: TrainSettings, update: int) -> str:
    if settings.max_steps > 0:
        return f"{settings.max_steps:,}"
    paths = [Path(source).expanduser() for source in settings.data]
    if not all(path.is_file() and path.suffix in (".jsonl", ".tsv") for path in paths):
        return f"rows / {update} per epoch"
    rows = 0
    for path in paths:
        with path.open("rb") as file:
            rows += sum(1 for line in file if line.strip())
    return f"{int(settings.epochs * ((rows - settings.dev_rows) // update)):,} for {rows:,} rows"
