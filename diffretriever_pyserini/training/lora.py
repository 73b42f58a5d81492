"""LoRA on the layers that the method names (docs/method.md §6), and an output head where the base has none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from ..model.backbones.base import Backbone, quiet_loading
from ..model.backbones.loading import attach_adapter, family_module, load_base, load_head
from ..model.config import RetrieverConfig
from ..model.hub import local_folder

_LAYER = re.compile(r"\.\d+\.(.+)$")
_ADAPTED = re.compile(r"\.(lora_[AB]|base_layer)\.")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank, scale and dropout of the adapter; the paper's are 16 and 64 (dropout as in the released files).

    ``rslora`` (alpha over the root of r) only comes with an adapter that has it already.
    """

    r: int = 16
    alpha: int = 64
    dropout: float = 0.05
    rslora: bool = False


def adapted_layers(family: str, model: Any) -> list[str]:
    """Full names of the linear layers that the method adapts in ``model``: all in the blocks, LLaDA's head too."""
    from torch.nn import Linear

    names = [name for name, module in model.named_modules() if isinstance(module, Linear) and _LAYER.search(name)]
    names = [name for name in names if name.startswith(f"{model.base_model_prefix}.")]
    if family_module(family).RELEASE.adapts_head:
        names.append("lm_head")
    if not names:
        raise ConfigError(f"{type(model).__name__} has no linear layers in numbered blocks: LoRA finds no place")
    return names


def target_names(family: str, layers: Iterable[str]) -> list[str]:
    """``target_modules`` of adapter_config.json for adapted ``layers``: the released bare names, else what stands
    behind the layer's number."""
    if released := family_module(family).RELEASE.targets:
        return sorted(released)
    return sorted({match[1] for name in layers if (match := _LAYER.search(name))})


def trainable_backbone(
    config: RetrieverConfig, dtype: Any, lora: LoraSettings | None, train_head: bool = False, seed: int = 0
) -> Backbone:
    """The backbone of ``config`` ready to be trained.

    Parameters
    ----------
    lora : the adapter to add; None trains every weight. A config that already has an adapter goes on with that one.
    train_head : masked LMs only: also train the output head's transform and bias (always, where the base has none).
    seed : of the adapter's starting values.
    """
    import torch

    backbone = load_base(config, dtype, head_may_miss=config.family == "masked_lm")
    headless = bool(backbone.missing_head)
    if headless:
        start_head(backbone)
    if config.adapter:
        folder = local_folder(config.adapter)
        attach_adapter(backbone, folder, config.family)
        load_head(backbone, folder)
        _set_dropout(backbone, lora.dropout if lora else 0.0)
    elif lora is not None:
        torch.manual_seed(seed)
        add_lora(backbone.model, config.family, lora)
    else:
        backbone.model.requires_grad_(True)
        return backbone
    for name, parameter in backbone.model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # a bfloat16 step of 1e-4 would round away
    if config.family == "masked_lm" and (train_head or headless or config.adapter):
        for parameter in head_parameters(backbone.model).values():
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
    return backbone


def add_lora(model: Any, family: str, lora: LoraSettings) -> None:
    """Put a fresh adapter into ``model`` itself; everything else is frozen."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=adapted_layers(family, model),
        bias="none",
    )
    with quiet_loading():
        get_peft_model(model, config)  # puts the layers into the model itself


@contextmanager
def adapter_off(backbone: Backbone) -> Iterator[None]:
    """The base alone inside the block: what the adapter's parent would have said."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in backbone.model.modules() if isinstance(module, BaseTunerLayer)]
    wanted = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter in wanted:  # switching off freezes, too
            parameter.requires_grad_(True)


def _set_dropout(backbone: Backbone, dropout: float) -> None:
    from torch import nn

    for module in backbone.model.modules():
        found = getattr(module, "lora_dropout", None)
        if isinstance(found, nn.ModuleDict):
            for name in found:
                found[name] = nn.Dropout(dropout) if dropout else nn.Identity()


def head_parameters(model: Any) -> dict[str, Any]:
    """A BERT-family head's own parameters by name: its transform and bias, not the tied table of word embeddings.

    Nor what LoRA adapts there: the adapter is what is trained of it.
    """
    inside = f"{model.base_model_prefix}."
    tied = set(model.all_tied_weights_keys) | {"cls.predictions.decoder.bias", "lm_head.decoder.bias"}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(inside) and name not in tied and not _ADAPTED.search(name)
    }


def start_head(backbone: Backbone) -> None:
    """Start a missing BERT head so that every content word weighs the same and the hidden state says a little more."""
    import torch

    head = backbone.model.cls.predictions
    width = head.transform.dense.weight.shape[0]
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(width))
        head.transform.dense.bias.zero_()
        head.transform.LayerNorm.weight.fill_(0.05)
        head.transform.LayerNorm.bias.zero_()
        head.decoder.bias.fill_(1.0)
