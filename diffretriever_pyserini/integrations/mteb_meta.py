"""What mteb's results and leaderboard say of a model: name, revision, licence, sizes, and how it was searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..errors import InputError, reason
from ..indexes.options import DENSE, LEXICAL, MULTI
from ..model.config import RetrieverConfig
from ..model.hub import is_hub_id
from ..model.retriever import DiffRetriever
from ..searching.options import SearchOptions

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

_TYPES = {DENSE: "dense", MULTI: "late-interaction", LEXICAL: "sparse"}
_NOT_COMPARED = {"hits", "batch_size", "threads", "alpha", "weights"}  # no part of the results, or shown as weights
_DEFAULTS = SearchOptions()


def model_meta(
    model: DiffRetriever, signals: Sequence[str], options: SearchOptions, metadata: Mapping[str, Any]
) -> ModelMeta:
    """The ModelMeta of ``model`` searched by ``signals`` with ``options``; ``metadata`` overrides its fields.

    Licence and base are those of the model card in the checkpoint's folder, if it has one.

    Raises
    ------
    InputError
        For metadata that mteb does not accept, and when mteb is not installed.
    """
    try:
        from mteb.models.model_meta import ModelMeta, ScoringFunction
        from mteb.types import Licenses
    except ImportError as error:
        raise InputError(
            f"mteb cannot be imported: pip install 'diffretriever-pyserini[mteb]' ({reason(error)})."
        ) from error
    network: Any = model._backbone.model
    card = _card(model.config)
    hub_id = _hub_id(model.config.name)
    fused = len(signals) > 1
    if fused:
        similarity = ScoringFunction.CUSTOM
    else:
        similarity = ScoringFunction.MAX_SIM if MULTI in signals else ScoringFunction.DOT_PRODUCT
    values: dict[str, Any] = {
        "loader": None,
        "name": hub_id or f"diffretriever/{Path(model.config.name).stem}",
        "revision": model.fingerprint,
        "release_date": None,
        "languages": None,
        "n_parameters": sum(tensor.numel() for tensor in network.parameters()),
        "n_embedding_parameters": network.get_input_embeddings().weight.numel(),
        "memory_usage_mb": round(sum(tensor.nbytes for tensor in network.parameters()) / 2**20, 1),
        "max_tokens": model.config.max_length,
        "embed_dim": model.vocab_size if signals == (LEXICAL,) else model.dimension,
        "license": card["license"] if card.get("license") in get_args(Licenses) else None,
        "open_weights": True,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["PyTorch", "Transformers", "safetensors"],
        "reference": f"https://huggingface.co/{hub_id}" if hub_id else None,
        "similarity_fn_name": similarity,
        "use_instructions": model.config.prompt != "none",
        "training_datasets": None,
        "adapted_from": card["base_model"] if isinstance(card.get("base_model"), str) else None,
        "modalities": ["text"],
        "model_type": ["hybrid"] if fused else [_TYPES[signals[0]]],
        "experiment_kwargs": _experiment(model, signals, options),
    }
    try:
        return ModelMeta(**(values | dict(metadata)))
    except ValueError as error:
        raise InputError(f"mteb does not accept the model's metadata ({reason(error)}).") from error


def _experiment(model: DiffRetriever, signals: Sequence[str], options: SearchOptions) -> dict[str, Any]:
    """What else decides the results; mteb keeps results apart that differ in it."""
    changed: dict[str, Any] = {
        field.name: value
        for field in dataclasses.fields(options)
        if field.name not in _NOT_COMPARED and (value := getattr(options, field.name)) != getattr(_DEFAULTS, field.name)
    }
    if len(signals) > 1:
        weights = options.all_weights(model.config.hybrid_alpha)
        changed["weights"] = {signal: weights.get(signal, 1.0) for signal in signals}
    return {"signals": ",".join(signals), "dtype": str(model.dtype).removeprefix("torch."), **changed}


def _hub_id(name: str) -> str | None:
    return name if is_hub_id(name) and not Path(name).exists() else None


def _card(config: RetrieverConfig) -> dict[str, Any]:
    """The header of the model card in the checkpoint's folder; empty if there is none or it cannot be read."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        return metadata_load(Path(config.adapter or config.backbone) / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
