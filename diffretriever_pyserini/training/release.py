"""Checkpoint folders in the layout of the released checkpoints, which ``--encoder <folder>`` accepts.

With LoRA: adapter_config.json, adapter_model.safetensors under the base's weight names, retriever_config.json and the
tokenizer (a masked LM's trained head in head.safetensors). Without: the whole model under the base's weight names.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import ConfigError, NumericalError
from ..files.atomic import whole_file, write_whole
from ..model.backbones.base import Backbone
from ..model.backbones.loading import family_module
from ..model.config import RetrieverConfig
from ..model.hub import is_hub_id, local_folder
from ..model.layout import Layout
from ..model.prebuilt import written_values
from ..model.readouts import has_terms
from .lora import LoraSettings, head_parameters, target_names

_LORA_PREFIX = "base_model.model."
# Settings that released files do not have, written where they differ from their defaults.
_OURS = (
    "readout",
    "query_max_length",
    "query_prefix",
    "passage_prefix",
    "append_eos",
    "lexical_terms",
    "lexical_tf",
    "hybrid_weight",
    "prefix_budgets",
    "split_special_tokens",
)


@dataclass(frozen=True)
class Release:
    """What a checkpoint stores besides its weights; ``base_name`` is a hub id or a folder's full path."""

    config: RetrieverConfig
    layouts: dict[str, Layout]
    tokenizer: Any
    lora: LoraSettings | None
    base_name: str
    temperature: float
    sparse_weight: float

    @property
    def on_hub(self) -> bool:
        """Whether the base has a hub id."""
        return is_hub_id(self.base_name)


def save_release(
    folder: Path,
    backbone: Backbone,
    release: Release,
    dtype: Any = None,
    state: dict[str, Any] | None = None,
) -> None:
    """Write the checkpoint of ``backbone`` to ``folder``.

    ``dtype`` is that of the LoRA and head tensors; None keeps float32. ``state`` replaces the model's tensors where
    they are sharded over devices (FSDP).
    """
    folder.mkdir(parents=True, exist_ok=True)
    release.tokenizer.save_pretrained(folder)
    # Keys in the order of the released files.
    write_whole(folder / "retriever_config.json", json.dumps(retriever_config(backbone, release), indent=2) + "\n")
    state = backbone.model.state_dict() if state is None else state
    if release.lora is None:
        _save_whole(folder, backbone, release, state)
    else:
        _save_lora(folder, backbone, release, dtype, state)


def _save_lora(folder: Path, backbone: Backbone, release: Release, dtype: Any, state: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    family = release.config.family
    weights = {key.removesuffix(".default.weight"): tensor for key, tensor in state.items() if ".lora_" in key}
    names = family_module(family).released_names(_layers(backbone))
    renamed = {}
    for key, tensor in weights.items():
        path, _, letter = key.rpartition(".")  # letter: lora_A or lora_B
        renamed[f"{_LORA_PREFIX}{names.get(path, path)}.{letter}.weight"] = _stored(key, tensor, dtype)
    with whole_file(folder / "adapter_model.safetensors") as partial:
        save_file(renamed, partial, metadata={"format": "pt"})
    targets = target_names(family, {key.rpartition(".")[0] for key in weights})
    write_whole(folder / "adapter_config.json", json.dumps(adapter_config(release, targets, folder), indent=2) + "\n")
    if family == "masked_lm":
        head = [name for name, tensor in head_parameters(backbone.model).items() if tensor.requires_grad]
        if head:
            stored = {name: _stored(name, state[name], dtype) for name in head}
            with whole_file(folder / "head.safetensors") as partial:
                save_file(stored, partial, metadata={"format": "pt"})


def _stored(name: str, tensor: Any, dtype: Any) -> Any:
    """``tensor`` as it is written; NumericalError for NaN and infinity, since training cannot continue from them."""
    stored = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
    if not stored.isfinite().all():
        raise NumericalError(
            f"the trained weight {name} is not finite, so the checkpoint is not saved. Start again with a lower "
            "learning rate, and with save_dtype: float32 if it was float16."
        )
    return stored


def _save_whole(folder: Path, backbone: Backbone, release: Release, weights: dict[str, Any]) -> None:
    from huggingface_hub import save_torch_state_dict

    names = family_module(release.config.family).released_names(_layers(backbone))
    left_out = set(backbone.model.all_tied_weights_keys)
    if not has_terms(release.config.readout):
        left_out |= backbone.missing_head  # random, and nothing reads it
    state = {}
    for key, tensor in backbone.stored_tensors(weights).items():
        if key not in left_out:
            path, _, kind = key.rpartition(".")
            state[f"{names.get(path, path)}.{kind}"] = _stored(key, tensor, None)
    save_torch_state_dict(state, folder)
    shutil.copyfile(local_folder(release.config.backbone) / "config.json", folder / "config.json")


def _layers(backbone: Backbone) -> int:
    return int(backbone.model.config.num_hidden_layers)


def adapter_config(release: Release, targets: list[str], folder: Path) -> dict[str, Any]:
    """adapter_config.json as in the released files: peft's fields, with bare layer names.

    A base that is a folder is named relative to ``folder``, so that both can be moved together.
    """
    from peft import LoraConfig

    assert release.lora is not None
    base = release.base_name if release.on_hub else os.path.relpath(release.base_name, folder.resolve())
    lora = LoraConfig(
        r=release.lora.r,
        lora_alpha=release.lora.alpha,
        lora_dropout=release.lora.dropout,
        use_rslora=release.lora.rslora,
        target_modules=targets,
        bias="none",
        task_type=family_module(release.config.family).RELEASE.task_type,
        base_model_name_or_path=base,
        inference_mode=True,
    )
    values = lora.to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in values.items()}


def retriever_config(backbone: Backbone, release: Release) -> dict[str, Any]:
    """``retriever_config.json`` with the keys of the released files, and ours for settings that they do not cover."""
    config, layouts = release.config, release.layouts
    query, passage = layouts["query"], layouts["passage"]
    options = [1, 2, 4, 8, 16]
    values: dict[str, Any] = {
        "model_type": family_module(config.family).RELEASE.model_type,
        "mask_token_id": query.mask_id,
        "hidden_size": backbone.hidden_size,
        "max_length": config.max_length,
        "n_gen_tokens": passage.k if passage.k == query.k else 4,  # the published default; the next two override it
        "n_gen_q_tokens": query.k,
        "n_gen_p_tokens": passage.k,
        "temperature": release.temperature,
        "flops_weight": 0.0,
        "num_denoise_steps": config.denoising_steps,
        "sparse_weight": release.sparse_weight,
        "normalize": True,
        "query_prefix_ids": list(query.prefix),
        "query_suffix_ids": list(query.suffix),
        "passage_prefix_ids": list(passage.prefix),
        "passage_suffix_ids": list(passage.suffix),
        "lora_rank": release.lora.r if release.lora else 0,
        "lora_alpha": release.lora.alpha if release.lora else 0,
        "use_eos": False,
        "n_tail": len(query.tail),
        "use_k_adapter": False,
        "adapter_weight": 1.0,
        "teacher_temperature": 1.0,
        "k_adapter_options": options,
        "use_k_pre_encoder": False,
        "gumbel_temperature": 1.0,
        "k_cost_lambda": 0.001,
        "k_pre_encoder_options": options,
    }
    if not has_terms(config.readout) and config.fixed_ids("query") is None:  # the ids follow from the settings below
        values = {name: value for name, value in values.items() if not name.endswith(("_prefix_ids", "_suffix_ids"))}
    own, defaults = asdict(config), {one.name: one.default for one in fields(config)}
    values |= {name: own[name] for name in _OURS if own[name] != defaults[name]}
    if config.family == "masked_lm":
        values |= {name: getattr(config, name) for name in ("prompt", "mask_position_ids", "mask_token_type")}
    return values


def load_trained(folder: Path, backbone: Backbone, family: str) -> None:
    """Load the weights of a checkpoint that :func:`save_release` wrote into ``backbone``, tensor by tensor."""
    import torch
    from safetensors.torch import load_file

    names = {released: name for name, released in family_module(family).released_names(_layers(backbone)).items()}
    saved: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for key, tensor in load_file(path).items():
            if key.startswith(_LORA_PREFIX):  # letter: lora_A or lora_B
                layer, _, letter = key.removeprefix(_LORA_PREFIX).removesuffix(".weight").rpartition(".")
                saved[f"{names.get(layer, layer)}.{letter}.default.weight"] = tensor
            else:
                layer, _, kind = key.rpartition(".")
                saved[f"{names.get(layer, layer)}.{kind}"] = tensor
    saved = backbone.fused_tensors(saved)
    parameters = dict(backbone.model.named_parameters())
    expected = {name for name, parameter in parameters.items() if parameter.requires_grad}
    if not expected <= saved.keys():
        missing = min(expected - saved.keys())
        raise ConfigError(f"{folder}: the weight {missing!r} is missing; the checkpoint is of another run.")
    with torch.no_grad():
        for name in sorted(expected):
            parameters[name].copy_(_sharded(saved[name], parameters[name]))


def _sharded(tensor: Any, like: Any) -> Any:
    """``tensor``, sharded over the devices as ``like`` where FSDP has sharded that."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor):
        return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements)
    return tensor


def base_name(name: str, config: RetrieverConfig) -> str:
    """The name of the base in a checkpoint: the hub id where the run has one, else the folder's full path."""
    written = written_values(name)
    named = name if written is None else written.get("backbone")
    for candidate in (config.backbone, named):
        if candidate and is_hub_id(candidate) and not Path(candidate).is_dir() and not config.adapter:
            return str(candidate)
    return config.backbone if is_hub_id(config.backbone) else str(Path(config.backbone).resolve())
