"""LoRA on the layers of docs/method.md §6, and an output head where the base has none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..model.backbones.base import Backbone, quiet_loading
from ..model.backbones.loading import attach_adapter, family_module, load_base, load_head
from ..model.config import RetrieverConfig
from ..model.hub import local_folder
from ..model.readouts import has_terms

_LAYER = re.compile(r"\.(\d+)\.(.+)$")
_WEIGHT_PER_IDF = 0.15  # a rare term, of idf 7, starts with the weight 1.05
_ADAPTED = re.compile(r"\.(lora_[AB]|base_layer)\.")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank, scale and dropout of the adapter; the paper's are 16 and 64 (dropout as in the released files).

    ``layers`` is the number of upper layers that a new adapter adapts (0: all). ``rslora`` (scale alpha / sqrt(r)) is
    only used for an adapter that already has it.
    """

    r: int = 16
    alpha: int = 64
    dropout: float = 0.05
    layers: int = 0
    rslora: bool = False


def adapted_layers(family: str, model: Any, layers: int = 0) -> list[str]:
    """Full names of the linear layers that LoRA adapts: those of the upper ``layers`` blocks (0: all), LLaDA's head."""
    from torch.nn import Linear

    depth = int(model.config.num_hidden_layers)
    if layers > depth:
        raise ConfigError(f"lora_layers={layers}: the base has only {depth} layers.")
    lowest = depth - layers if layers else 0
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, Linear) and (match := _LAYER.search(name)) and int(match[1]) >= lowest
    ]
    names = [name for name in names if name.startswith(f"{model.base_model_prefix}.")]
    if family_module(family).RELEASE.adapts_head and model.get_output_embeddings() is not None:
        names.append("lm_head")
    if not names:
        raise ConfigError(f"{type(model).__name__} has no linear layers in numbered blocks for LoRA to adapt.")
    return names


def target_names(family: str, layers: Iterable[str]) -> list[str]:
    """``target_modules`` of adapter_config.json for adapted ``layers``: the released bare names, else the names after
    the layer number."""
    if released := family_module(family).RELEASE.targets:
        return sorted(released)
    return sorted({match[2] for name in layers if (match := _LAYER.search(name))})


def trainable_backbone(
    config: RetrieverConfig, dtype: Any, lora: LoraSettings | None, train_head: bool = False, seed: int = 0
) -> Backbone:
    """The backbone of ``config``, ready for training.

    Parameters
    ----------
    lora : the adapter to add; None trains every weight. A config with an adapter continues with that adapter.
    train_head : masked LMs only: also train the output head's transform and bias (always where the base has none).
    seed : seed of the adapter's initial values.
    """
    import torch

    reads_head = has_terms(config.readout)
    backbone = load_base(config, dtype, head_may_miss=config.family == "masked_lm" or not reads_head)
    headless = reads_head and bool(backbone.missing_head)
    if headless:
        start_head(backbone)
    if config.adapter:
        folder = local_folder(config.adapter)
        attach_adapter(backbone, folder, config.family)
        load_head(backbone, folder)
        _set_dropout(backbone, lora.dropout if lora else 0.0)
    if not reads_head:
        backbone.drop_head()
    if not config.adapter and lora is not None:
        torch.manual_seed(seed)
        add_lora(backbone.model, config.family, lora)
    elif not config.adapter:
        for name, parameter in backbone.model.named_parameters():  # nothing reads, and saves, the head that is missing
            parameter.requires_grad_(reads_head or name not in backbone.missing_head)
        return backbone
    for name, parameter in backbone.model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # bfloat16 would round steps of 1e-4 away
    if config.family == "masked_lm" and reads_head and (train_head or headless or config.adapter):
        for parameter in head_parameters(backbone.model).values():
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
    return backbone


def add_lora(model: Any, family: str, lora: LoraSettings) -> None:
    """Add a new adapter to ``model`` in place; everything else is frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=adapted_layers(family, model, lora.layers),
        bias="none",
    )
    with quiet_loading():
        get_peft_model(model, config)  # adds the layers to the model in place


@contextmanager
def adapter_off(backbone: Backbone) -> Iterator[None]:
    """Switch the adapter off inside the block, so that the model computes what its base does."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in backbone.model.modules() if isinstance(module, BaseTunerLayer)]
    trained = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter in trained:  # switching off also freezes them
            parameter.requires_grad_(True)


def _set_dropout(backbone: Backbone, dropout: float) -> None:
    from torch import nn

    for module in backbone.model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name in dropouts:
                dropouts[name] = nn.Dropout(dropout) if dropout else nn.Identity()


def head_parameters(model: Any) -> dict[str, Any]:
    """A BERT-family head's own parameters by name: its transform and bias, without the tied word embeddings.

    Layers that LoRA adapts are left out, since only their adapter is trained.
    """
    base_prefix = f"{model.base_model_prefix}."
    tied = set(model.all_tied_weights_keys) | {"cls.predictions.decoder.bias", "lm_head.decoder.bias"}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(base_prefix) and name not in tied and not _ADAPTED.search(name)
    }


def start_head(backbone: Backbone) -> None:
    """Initialise a missing BERT head: every word gets about the same weight, and the hidden state adds a little."""
    import torch

    head = backbone.model.cls.predictions
    width = head.transform.dense.weight.shape[0]
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(width))
        head.transform.dense.bias.zero_()
        head.transform.LayerNorm.weight.fill_(0.05)
        head.transform.LayerNorm.bias.zero_()
        head.decoder.bias.fill_(1.0)


def start_terms(backbone: Backbone, frequencies: np.ndarray, count: int) -> None:
    """Give each term of a head from :func:`start_head` a first weight in proportion to its idf.

    ``frequencies`` int64 [V] counts the texts of each term among ``count`` texts.
    """
    import torch

    idf = np.log((count + 1) / (frequencies + 0.5))
    with torch.no_grad():
        backbone.model.cls.predictions.decoder.bias.copy_(torch.from_numpy(np.expm1(_WEIGHT_PER_IDF * idf)))
