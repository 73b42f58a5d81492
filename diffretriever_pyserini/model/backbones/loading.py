"""From a config to a backbone: base weights, LoRA merged into them, an adapter's own head tensors, the tokenizer."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, panics_as_errors, reason
from ...files.atomic import read_json
from ...runtime.threads import check_threads
from ..config import RetrieverConfig
from ..hub import local_folder
from . import dream, llada, masked_lm
from .base import Backbone, quiet_loading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_FAMILIES: dict[str, ModuleType] = {"dream": dream, "llada": llada, "masked_lm": masked_lm}
# Initialisations that leave the base as it was. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) subtract their start
# from the base's weights, so that the saved adapter fits a base that was never saved.
_BASE_KEPT = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# Keys of adapter_config.json that are read, or say nothing about the merged weights: where the tensors go is said by
# their names, and settings of an initialisation count only where `init_lora_weights` names it. The rest must be unset.
# fmt: off
_HARMLESS = {
    "peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights", "bias",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "lora_dropout",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "megatron_core",
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "runtime_config", "merge_weights",
}
# fmt: on
_LORA_FILE, _HEAD_FILE = "adapter_model.safetensors", "head.safetensors"
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "vocab.json")
_LORA = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")


def load_backbone(config: RetrieverConfig, dtype: Any, device: str) -> Backbone:
    """The backbone of ``config``, adapters merged, in ``dtype`` on ``device``; ConfigError, ModelNotFoundError."""
    import torch

    check_threads("torch", torch.get_num_threads())
    adapter = local_folder(config.adapter) if config.adapter else None
    brings_head = adapter is not None and (adapter / _HEAD_FILE).is_file()
    backbone = load_base(config, dtype, head_may_miss=brings_head)
    if adapter is not None:
        if (adapter / "adapter_config.json").is_file():
            merge_adapter(backbone, adapter, config.family)
        load_head(backbone, adapter)
    backbone.model.to(device).requires_grad_(False)
    backbone.pack()
    return backbone


def family_module(name: str) -> ModuleType:
    """A family, with ``read_config``, ``load``, ``adapter_key``, ``released_names`` and ``RELEASE``."""
    return _FAMILIES[name]


def load_base(config: RetrieverConfig, dtype: Any, head_may_miss: bool = False) -> Backbone:
    """The base weights of ``config`` alone, on the CPU; a masked LM's head may miss where something else brings it."""
    folder = local_folder(config.backbone)
    if config.family == "masked_lm":
        return masked_lm.load(folder, dtype, config.mask_position_ids, config.mask_token_type, head_may_miss)
    return _FAMILIES[config.family].load(folder, dtype)


def empty_base(config: RetrieverConfig) -> Any:
    """transformers' model for the base of ``config`` on torch's meta device: shapes, no weights (none are read)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind: Any = AutoModelForMaskedLM if config.family == "masked_lm" else AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(base_config(config))


def base_config(config: RetrieverConfig) -> PreTrainedConfig:
    """transformers' configuration of the base of ``config``, as it is loaded; its weights are not."""
    loaded: PreTrainedConfig = _FAMILIES[config.family].read_config(local_folder(config.backbone))
    return loaded


def adapter_files(folder: Path) -> list[Path]:
    """The weight files that are read of an adapter's ``folder``: LoRA weights, full tensors."""
    lora = [folder / _LORA_FILE] if (folder / "adapter_config.json").is_file() else []
    return [*lora, *([folder / _HEAD_FILE] if (folder / _HEAD_FILE).is_file() else [])]


def lora_settings(folder: Path) -> dict[str, Any]:
    """What decides how the LoRA weights in ``folder`` are merged: ``r``, ``lora_alpha``, ``use_rslora``.

    Which modules they go to is said by the names of the weights themselves. Raises ConfigError for what is not plain
    LoRA, whatever the setting is called, and for an initialisation that changed the base (all those of peft 0.21 that
    do, ``tuners/lora/layer.py``).
    """
    path = folder / "adapter_config.json"
    raw = read_json(path, error=ConfigError)
    if raw.get("peft_type") != "LORA":
        raise ConfigError(f"{path}: peft_type {raw.get('peft_type')!r} is not LORA")
    start = raw.get("init_lora_weights")
    if start not in _BASE_KEPT:
        raise ConfigError(
            f"{path}: init_lora_weights {start!r} is not supported: such an adapter fits a base that its training "
            "changed, not the one that it names; save it with peft's path_initial_model_for_weight_conversion, which "
            "makes plain LoRA of it, or save the merged model"
        )
    if raw.get("bias") not in (None, "none"):
        raise ConfigError(f"{path}: bias {raw['bias']!r} is not supported; only 'none' is")
    for key in sorted(raw.keys() - _HARMLESS):
        if raw[key]:
            raise ConfigError(f"{path}: {key} is not supported; only plain LoRA is")
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"{path}: r must be a whole number from 1, not {rank!r}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise ConfigError(f"{path}: lora_alpha must be a number, not {alpha!r}")
    return {"r": rank, "lora_alpha": alpha, "use_rslora": bool(raw.get("use_rslora"))}


def merge_adapter(backbone: Backbone, folder: Path, family: str) -> None:
    """Merge the LoRA adapter in ``folder`` into ``backbone``."""
    backbone.model = attach_adapter(backbone, folder, family).merge_and_unload()


def attach_adapter(backbone: Backbone, folder: Path, family: str) -> Any:
    """Lay the LoRA adapter in ``folder`` beside the weights of ``backbone``; every tensor must find its place.

    Returns peft's model around it; ``backbone`` itself then runs with the adapter.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    path = folder / _LORA_FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: adapter_model.safetensors is missing (pickled adapters are not read)")
    module = _FAMILIES[family]
    weights: dict[str, Any] = {}
    for key, tensor in read_tensors(path).items():
        match = _LORA.match(key)
        if match is None:
            raise ConfigError(f"{path}: {key!r} is not a LoRA weight; only plain LoRA adapters are supported")
        name = f"base_model.model.{module.adapter_key(match[1])}.lora_{match[2]}.weight"
        if name in weights:
            raise ConfigError(f"{path}: {key!r} is there twice, under two names")
        weights[name] = tensor
    targets = sorted({key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in weights})
    known = {name for name, _ in backbone.model.named_modules()}
    lost = [name for name in targets if name not in known]
    if lost:
        raise ConfigError(f"{path}: adapts {lost[0]!r}, which the base does not have: is it the right base?")
    if backbone.head_name in targets:
        backbone.untie_head()
    with quiet_loading():
        settings = LoraConfig(**lora_settings(folder), lora_dropout=0.0, target_modules=targets, bias="none")
        peft = get_peft_model(backbone.model, settings)
    try:
        result: Any = set_peft_model_state_dict(peft, weights)
    except RuntimeError as error:  # torch's words for tensors of another shape
        raise ConfigError(f"{path}: the adapter and its base do not fit together: {reason(error)}") from error
    missing = [key for key in result.missing_keys if ".lora_" in key]
    if missing or result.unexpected_keys:
        odd = (missing or result.unexpected_keys)[0]
        raise ConfigError(f"{path}: weight {odd!r} has no counterpart; the adapter and its base do not fit together")
    return peft


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors in an adapter's file; ConfigError where it is damaged or no such file (a Git LFS pointer)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: damaged, or not safetensors ({reason(error)}); fetch it again (with `git lfs pull`, in a clone)"
        ) from error


def load_head(backbone: Backbone, folder: Path) -> None:
    """Put an adapter's full tensors (``head.safetensors``: an output head, norms) over the base's, by name.

    A head that was tied to the input embeddings leaves them as they are. Raises ConfigError for what does not fit.
    """
    path = folder / _HEAD_FILE
    if not path.is_file():
        return
    weights = read_tensors(path)
    if f"{backbone.head_name}.weight" in weights:
        backbone.untie_head()
    elif backbone.is_tied and (table := f"{backbone.table_name}.weight") in weights:
        raise ConfigError(f"{path}: {table!r}, but not the output head that is tied to it in the base: give both")
    own = backbone.model.state_dict()
    for key, tensor in weights.items():
        if key not in own or own[key].shape != tensor.shape:
            raise ConfigError(f"{path}: {key!r} of shape {tuple(tensor.shape)} does not fit the base")
    lacking = sorted(backbone.missing_head - weights.keys())
    if lacking:
        raise ConfigError(f"{path}: the base has no output head and {lacking[0]!r} is not here either")
    backbone.model.load_state_dict({key: t.to(own[key].dtype) for key, t in weights.items()}, strict=False)


def load_tokenizer(config: RetrieverConfig) -> Any:
    """The tokenizer: the adapter's own where it carries one, else the backbone's; never remote code.

    Raises ConfigError where there is none or its files cannot be read.
    """
    for source in (config.adapter, config.backbone):
        folder = local_folder(source) if source else None
        if folder is None or not (folder / "tokenizer_config.json").is_file():
            continue
        try:
            with panics_as_errors():
                tokenizer = _tokenizer_in(folder, config.family)
                if tokenizer is not None:
                    tokenizer("a")  # some of its settings are only looked at here
        except Exception as error:  # the tokenizers library raises nothing more special
            for name in _TOKENIZER_FILES:
                if (folder / name).is_file():
                    read_json(folder / name, "fetch it again (with `git lfs pull`, in a clone)", ConfigError)
            base_config(config)  # transformers looks there for the tokenizer's class
            raise ConfigError(f"{folder}: the tokenizer cannot be loaded ({reason(error)})") from error
        if tokenizer is not None:
            if config.split_special_tokens is not None:
                tokenizer.split_special_tokens = config.split_special_tokens
            return tokenizer
    raise ConfigError(f"{config.name}: no tokenizer.json beside the adapter or the backbone; add the tokenizer's files")


def _tokenizer_in(folder: Path, family: str) -> Any:
    """The tokenizer in ``folder``, None where its vocabulary is not there."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

    if family == "masked_lm":
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file() and family == "dream":
        return Qwen2Tokenizer.from_pretrained(folder)
    return None
