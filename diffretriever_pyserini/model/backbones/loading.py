"""From a config to a backbone: base weights, merged LoRA, full tensors of an adapter, the tokenizer."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, panics_as_errors, reason
from ...files.atomic import read_json
from ...runtime.threads import check_threads
from ..config import RetrieverConfig
from ..hub import local_folder
from ..readouts import has_terms
from . import a2d, causal, dream, llada, llada_moe, masked_lm
from .base import Backbone, quiet_loading
from .facts import ChatFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_FAMILIES: dict[str, ModuleType] = {
    "dream": dream,
    "llada": llada,
    "a2d": a2d,
    "llada_moe": llada_moe,
    "masked_lm": masked_lm,
    "causal": causal,
}
# Initialisations that do not change the base. The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) subtract their initial
# weights from the base, so the saved adapter belongs to a base that was never saved.
_BASE_UNCHANGED = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# Keys of adapter_config.json that are read or have no effect on the merged weights: the names of the tensors give their
# targets, and `init_lora_weights` decides whether settings of an initialisation count. All other keys must be unset.
# fmt: off
_HARMLESS = {
    "peft_type", "r", "lora_alpha", "use_rslora", "init_lora_weights", "bias",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "lora_dropout",
    "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "megatron_core",
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "runtime_config", "merge_weights",
}
# fmt: on
_MOST_ALPHA = 1e6  # of an int, too, that is beyond every float
_LORA_FILE, _HEAD_FILE = "adapter_model.safetensors", "head.safetensors"
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "vocab.json")
_LORA = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight$")


def load_backbone(config: RetrieverConfig, dtype: Any, device: str) -> Backbone:
    """The backbone of ``config``, adapters merged; raises ConfigError, ModelNotFoundError."""
    import torch

    check_threads("torch", torch.get_num_threads())
    adapter = local_folder(config.adapter) if config.adapter else None
    reads_head = has_terms(config.readout)
    has_head = adapter is not None and (adapter / _HEAD_FILE).is_file()
    backbone = load_base(config, dtype, head_may_miss=has_head or not reads_head)
    if config.readout in ("next_token", "last_token") and not backbone.is_causal:
        raise ConfigError(
            f"{config.name}: its config.json says is_causal=false, and the read-out {config.readout} is for causal "
            "attention; use readout mean."
        )
    if adapter is not None:
        if (adapter / "adapter_config.json").is_file():
            merge_adapter(backbone, adapter, config.family)
        load_head(backbone, adapter)
    if not reads_head:
        backbone.drop_head()
    backbone.model.to(device).requires_grad_(False)
    backbone.pack()
    return backbone


def family_module(name: str) -> ModuleType:
    """The module of a family: ``read_config``, ``load``, ``adapter_key``, ``released_names``, ``RELEASE``."""
    return _FAMILIES[name]


def load_base(config: RetrieverConfig, dtype: Any, head_may_miss: bool = False) -> Backbone:
    """The base weights of ``config`` alone, on the CPU; with ``head_may_miss`` it may lack its output head."""
    folder = local_folder(config.backbone)
    if config.family == "masked_lm":
        return masked_lm.load(folder, dtype, head_may_miss, config.mask_position_ids, config.mask_token_type)
    return _FAMILIES[config.family].load(folder, dtype, head_may_miss)


def empty_base(config: RetrieverConfig) -> Any:
    """transformers' model of the base of ``config`` on torch's meta device: shapes without weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind: Any = AutoModelForMaskedLM if config.family == "masked_lm" else AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(base_config(config))


def base_config(config: RetrieverConfig) -> PreTrainedConfig:
    """transformers' configuration of the base of ``config``, as for loading; no weights are read."""
    loaded: PreTrainedConfig = _FAMILIES[config.family].read_config(local_folder(config.backbone))
    return loaded


def adapter_files(folder: Path) -> list[Path]:
    """The weight files that are read in an adapter's ``folder``: LoRA weights, full tensors."""
    lora = [folder / _LORA_FILE] if (folder / "adapter_config.json").is_file() else []
    return [*lora, *([folder / _HEAD_FILE] if (folder / _HEAD_FILE).is_file() else [])]


def lora_settings(folder: Path) -> dict[str, Any]:
    """The settings for merging the LoRA weights in ``folder``: ``r``, ``lora_alpha``, ``use_rslora``.

    The names of the weights give their target modules. Raises ConfigError for anything but plain LoRA, under any key,
    and for an initialisation that changed the base (those of peft 0.21, ``tuners/lora/layer.py``).
    """
    path = folder / "adapter_config.json"
    raw = read_json(path, error=ConfigError)
    if raw.get("peft_type") != "LORA":
        raise ConfigError(f"{path}: peft_type {raw.get('peft_type')!r} is not LORA; only plain LoRA is supported.")
    initialisation = raw.get("init_lora_weights")
    if initialisation not in _BASE_UNCHANGED:
        raise ConfigError(
            f"{path}: init_lora_weights {initialisation!r} is not supported, because it changes the base. "
            "Save the adapter with peft's path_initial_model_for_weight_conversion, which makes it plain LoRA, or save "
            "the merged model."
        )
    if raw.get("bias") not in (None, "none"):
        raise ConfigError(f"{path}: bias {raw['bias']!r} is not supported; only 'none' is.")
    for key in sorted(raw.keys() - _HARMLESS):
        if raw[key]:
            raise ConfigError(f"{path}: {key} is not supported; only plain LoRA is.")
    rank, alpha = raw.get("r"), raw.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"{path}: r must be a whole number of at least 1, not {rank!r:.40}.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not -_MOST_ALPHA < alpha < _MOST_ALPHA:
        raise ConfigError(f"{path}: lora_alpha must be a number below {_MOST_ALPHA:,.0f}, not {alpha!r:.40}.")
    return {"r": rank, "lora_alpha": alpha, "use_rslora": bool(raw.get("use_rslora"))}


def merge_adapter(backbone: Backbone, folder: Path, family: str) -> None:
    """Merge the LoRA adapter in ``folder`` into ``backbone``."""
    backbone.model = attach_adapter(backbone, folder, family).merge_and_unload()


def attach_adapter(backbone: Backbone, folder: Path, family: str) -> Any:
    """Attach the LoRA adapter in ``folder`` to ``backbone``, unmerged; every tensor must have a target.

    Returns peft's model around the backbone's; ``backbone`` itself then runs with the adapter.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    path = folder / _LORA_FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder}: adapter_model.safetensors is missing (pickled adapters are not read; docs/comparison.md says "
            "how to convert one)."
        )
    module, settings = _FAMILIES[family], lora_settings(folder)
    weights: dict[str, Any] = {}
    for key, tensor in read_tensors(path).items():
        match = _LORA.match(key)
        if match is None:
            raise ConfigError(f"{path}: {key!r} is not a LoRA weight; only plain LoRA adapters are supported.")
        name = f"base_model.model.{module.adapter_key(match[1])}.lora_{match[2]}.weight"
        if name in weights:
            raise ConfigError(f"{path}: {key!r} occurs twice, under two names; keep one of them.")
        if tensor.dim() != 2 or tensor.shape["AB".index(match[2])] != settings["r"]:  # peft would allocate r rows first
            raise ConfigError(
                f"{path}: {key!r} has shape {list(tensor.shape)}, but adapter_config.json says r={settings['r']}; the "
                "two files do not belong together."
            )
        weights[name] = tensor
    targets = sorted({key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in weights})
    known = {name for name, _ in backbone.model.named_modules()}
    unknown = [name for name in targets if name not in known]
    if unknown:
        raise ConfigError(
            f"{path}: adapts {unknown[0]!r}, which the base does not have; give the adapter's base as backbone."
        )
    if backbone.head_name in targets:
        backbone.untie_head()
    with quiet_loading():
        config = LoraConfig(**settings, lora_dropout=0.0, target_modules=targets, bias="none")
        peft = get_peft_model(backbone.model, config)
    try:
        result: Any = set_peft_model_state_dict(peft, weights)
    except RuntimeError as error:  # torch raises it for tensors of another shape
        raise ConfigError(f"{path}: the adapter and its base do not fit together: {reason(error)}.") from error
    missing = [key for key in result.missing_keys if ".lora_" in key]
    if missing or result.unexpected_keys:
        unmatched = (missing or result.unexpected_keys)[0]
        raise ConfigError(
            f"{path}: weight {unmatched!r} has no counterpart, so the adapter and its base do not fit together."
        )
    return peft


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors in an adapter's file; raises ConfigError if it is damaged or not safetensors (a Git LFS pointer)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: damaged, or not safetensors ({reason(error)}); download it again (in a clone, `git lfs pull`)."
        ) from error


def load_head(backbone: Backbone, folder: Path) -> None:
    """Replace tensors of the base by an adapter's full tensors (``head.safetensors``: an output head, norms), by name.

    A head that was tied to the input embeddings does not change them. Raises ConfigError for a misfit.
    """
    path = folder / _HEAD_FILE
    if not path.is_file():
        return
    weights = read_tensors(path)
    if f"{backbone.head_name}.weight" in weights:
        backbone.untie_head()
    elif backbone.is_tied and (table := f"{backbone.table_name}.weight") in weights:
        raise ConfigError(f"{path}: {table!r}, but not the output head that is tied to it in the base; add both.")
    base = backbone.model.state_dict()
    for key, tensor in weights.items():
        if key not in base or base[key].shape != tensor.shape:
            raise ConfigError(f"{path}: {key!r} of shape {tuple(tensor.shape)} does not fit the base.")
    lacking = sorted(backbone.missing_head - weights.keys())
    if lacking:
        raise ConfigError(f"{path}: the base has no output head and this file lacks {lacking[0]!r}; add it.")
    backbone.model.load_state_dict({key: t.to(base[key].dtype) for key, t in weights.items()}, strict=False)


def load_tokenizer(config: RetrieverConfig) -> Any:
    """The tokenizer: the adapter's if it has one, else the backbone's; remote code is never run.

    Raises ConfigError if there is none or its files cannot be read.
    """
    for source in (config.adapter, config.backbone):
        folder = local_folder(source) if source else None
        if folder is None or not (folder / "tokenizer_config.json").is_file():
            continue
        try:
            with panics_as_errors():
                tokenizer = _tokenizer_in(folder, config.family)
                if tokenizer is not None:
                    tokenizer("a")  # some of its settings are first used here
        except Exception as error:  # the tokenizers library raises nothing more specific
            for name in _TOKENIZER_FILES:
                if (folder / name).is_file():
                    read_json(folder / name, "download it again (in a clone, `git lfs pull`)", ConfigError)
            base_config(config)  # transformers reads the tokenizer's class from it
            raise ConfigError(f"{folder}: the tokenizer cannot be loaded ({reason(error)}).") from error
        if tokenizer is not None:
            if config.split_special_tokens is not None:
                tokenizer.split_special_tokens = config.split_special_tokens
            if config.mask_token_id is None and tokenizer.mask_token_id is None:
                _name_mask(tokenizer, family_module(config.family).RELEASE.chat)
            return tokenizer
    raise ConfigError(f"{config.name}: no tokenizer.json with the adapter or the backbone; add the tokenizer's files.")


def _name_mask(tokenizer: Any, chat: ChatFacts) -> None:
    """Make the first of a family's names of the mask in the vocabulary the mask token, or add it."""
    vocabulary = tokenizer.get_vocab()
    known = [name for name in chat.masks if name in vocabulary]
    if known or chat.adds_mask:
        tokenizer.add_special_tokens({"mask_token": (known or chat.masks)[0]})


def _tokenizer_in(folder: Path, family: str) -> Any:
    """The tokenizer in ``folder``; None if its vocabulary is missing."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

    if family == "masked_lm":
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file() and family in ("dream", "causal"):
        return Qwen2Tokenizer.from_pretrained(folder)
    return None
