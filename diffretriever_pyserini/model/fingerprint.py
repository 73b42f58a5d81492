"""Everything that decides a representation, from a checkpoint's files and tokenizer; no model is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ..errors import ConfigError
from .backbones.base import weight_files
from .backbones.loading import adapter_files, base_config, lora_settings
from .backbones.masked_lm import NOT_LOADED
from .config import RetrieverConfig
from .hub import local_folder
from .layout import special_ids
from .provenance import Provenance, digest_of, flat
from .tokenization import Preparer
from .weights import Digests, stamp, tensor_digests

# fmt: off
# Keys of transformers' configurations without effect here: versions, types, training, generation, other heads.
_IRRELEVANT_KEYS = frozenset((
    "transformers_version", "_name_or_path", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache",
    "return_dict", "output_hidden_states", "output_attentions", "is_encoder_decoder", "chunk_size_feed_forward",
    "gradient_checkpointing", "id2label", "label2id", "problem_type", "initializer_range", "initializer_cutoff_factor",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "embedding_dropout", "mlp_dropout",
    "dropout", "qa_dropout", "seq_classif_dropout", "classifier_dropout", "classifier_pooling",
    "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index",
    "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "unk_token_id", "mask_token_id",
))
_READOUT = (
    "family", "denoising_steps", "denoising_schedule", "cut_at_stop", "impact_rounding", "lexical_terms",
    "top_terms", "impact_scale", "max_lexical_chars", "mask_position_ids", "mask_token_type",
)
_FILES_READ = (
    "config.json", "adapter_config.json", "retriever_config.json", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "chat_template.jinja",
)
# fmt: on
_TIED = ("lm_head.weight", "decoder.weight", "decoder.bias", "vocab_projector.weight")


def provenance_of(config: RetrieverConfig, prepare: Preparer) -> Provenance:
    """The provenance of ``config``'s encoder; ``prepare`` has its tokenizer and layouts. No model is loaded.

    Raises
    ------
    ConfigError, ModelNotFoundError
        For a checkpoint that cannot be loaded.
    """
    base = base_config(config)
    weights = _loaded(tensor_digests(weight_files(local_folder(config.backbone))), config.family, base)
    adapter = local_folder(config.adapter) if config.adapter else None
    files = adapter_files(adapter) if adapter else []
    merged = adapter is not None and (adapter / "adapter_config.json").is_file()
    return Provenance(
        encoder=config.name,
        weights=digest_of(weights),
        adapter_weights=digest_of(tensor_digests(files)) if files else None,
        config=_config_values(base),
        adapter_config=_plain(lora_settings(adapter)) if adapter is not None and merged else {},
        tokenizer=_tokenizer_digests(prepare.tokenizer, config.name),
        query=_plain(asdict(prepare.layouts["query"])),
        passage=_plain(asdict(prepare.layouts["passage"])),
        readout={key: getattr(config, key) for key in _READOUT} | _later_values(config),
    )


def _later_values(config: RetrieverConfig) -> dict[str, Any]:
    """Settings that differ from their defaults: other encoders are recorded as before there were such settings."""
    values: dict[str, Any] = {} if config.lexical_tf is None else {"lexical_tf": asdict(config.lexical_tf)}
    values |= {} if config.readout == "mask" else {"readout": config.readout}
    return values | {key: text for key in ("query_prefix", "passage_prefix") if (text := getattr(config, key))}


def stamps(config: RetrieverConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Path, size, inode and time of the files from which ``config``'s model and tokenizer are loaded.

    Equal as long as no file is replaced. Raises ConfigError, ModelNotFoundError.
    """
    base = local_folder(config.backbone).resolve()
    files = weight_files(base)
    folders = [base]
    if config.adapter:
        folders.append(local_folder(config.adapter).resolve())
        files += adapter_files(folders[-1])
    files += [folder / name for folder in folders for name in _FILES_READ]
    return tuple((str(path), stamp(path)[:3]) for path in files if path.is_file())


def _loaded(weights: Digests, family: str, base: Any) -> Digests:
    """``weights`` without tensors that are not loaded, and without copies of tied weights."""
    if family == "masked_lm":
        weights = {name: digest for name, digest in weights.items() if not any(part in name for part in NOT_LOADED)}
    if not base.tie_word_embeddings:
        return weights
    tied = {name for name in weights if name.endswith(_TIED)}
    if family == "a2d":  # it loads no second copy of a tied head, even one that differs
        return {name: digest for name, digest in weights.items() if name not in tied}
    untied = {digest for name, digest in weights.items() if name not in tied}
    return {name: digest for name, digest in weights.items() if name not in tied or digest not in untied}


def _config_values(base: Any) -> dict[str, Any]:
    """Relevant values of a parsed configuration that differ from the defaults of its class, under flat names.

    It is parsed, so that explicit defaults and keys that transformers has moved make no difference. Defaults are left
    out, so that a key that a later transformers adds makes none either.
    """
    defaults = dict(flat(type(base)().to_dict()))
    values = {name: value for name, value in flat(base.to_dict()) if name.partition(".")[0] not in _IRRELEVANT_KEYS}
    relevant = {name: value for name, value in values.items() if defaults.get(name, ...) != value}
    if all(value in (None, "default") for name, value in values.items() if name.endswith("rope_type")):
        relevant.pop("max_position_embeddings", None)  # the size of a table, which its weights show, or no effect
    if set(relevant.get("layer_types", ())) == {"full_attention"}:
        del relevant["layer_types"]  # one entry per layer, the default of every layer
    return _plain(relevant | {"model_type": base.model_type})


def _tokenizer_digests(tokenizer: Any, name: str) -> dict[str, str]:
    """A digest of each part of ``tokenizer`` that decides the ids of texts without special tokens around them.

    Truncation and padding are arguments of every call, so they do not count. A setting that is off equals a missing
    one, and merges are written as strings, so that the version of the library makes no difference.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise ConfigError(f"{name}: its tokenizer is not a fast one; add its tokenizer.json to the checkpoint.")
    parts = _present(json.loads(core.to_str()))
    merges = parts.get("model", {}).get("merges", [])
    if merges:
        parts["model"]["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    parts["special_tokens"] = [sorted(special_ids(tokenizer)), bool(tokenizer.split_special_tokens)]
    relevant = sorted(parts.keys() - {"version", "truncation", "padding", "decoder", "post_processor"})
    return {part: digest_of(parts[part])[:16] for part in relevant}


def _present(values: Any) -> Any:
    """``values`` without entries of objects that are null or false."""
    if isinstance(values, dict):
        return {key: _present(value) for key, value in values.items() if value is not None and value is not False}
    return [_present(value) for value in values] if isinstance(values, list) else values


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` after a round trip through JSON; 10000.0 becomes 10000, because configurations differ in this."""

    def number(text: str) -> int | float:
        value = float(text)
        return int(value) if value.is_integer() else value

    plain: dict[str, Any] = json.loads(json.dumps(values, default=str), parse_float=number)
    return plain
