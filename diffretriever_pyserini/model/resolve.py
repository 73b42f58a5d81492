"""From a name to a complete RetrieverConfig: what a checkpoint's own files say, and what the user wrote.

Sources, from lowest to highest precedence: the defaults of the kind of checkpoint (zero-shot or fine-tuned,
docs/method.md §2), the checkpoint's own ``retriever_config.json``, a prebuilt or user YAML file, keyword overrides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files.atomic import read_json
from ..settings import check_names, parsed
from .config import Ids, RetrieverConfig, family_of
from .hub import is_hub_id, local_folder
from .prebuilt import written_values

HUB_BASES = {"dream": "Dream-org/Dream-v0-Instruct-7B", "llada": "GSAI-ML/LLaDA-8B-Instruct"}
# Settings of a retriever_config.json that the released ones do not have.
_OUR_KEYS = (
    "lexical_terms",
    "lexical_tf",
    "hybrid_weight",
    "prefix_budgets",
    "impact_rounding",
    "cut_at_stop",
    "prompt",
    "readout",
    "query_max_length",
    "query_prefix",
    "passage_prefix",
    "append_eos",
    "mask_position_ids",
    "mask_token_type",
    "split_special_tokens",
)
_OF_THE_READOUT = frozenset(
    (
        *("query_prefix_ids", "query_suffix_ids", "passage_prefix_ids", "passage_suffix_ids", "prompt", "n_tail"),
        *("k_query", "k_passage", "prefix_budgets", "denoising_steps", "denoising_schedule"),
        *("query_prefix", "passage_prefix", "append_eos"),
    )
)
# Defaults of a fine-tuned checkpoint that differ from those of a bare base (docs/method.md §2).
_FINE_TUNED = {
    "cut_at_stop": False,
    "impact_rounding": "nearest",
    "denoising_schedule": "trained",
}


def resolve_config(name: str, **overrides: Any) -> RetrieverConfig:
    """The complete config of ``name``: a prebuilt name, a YAML file, a checkpoint folder or a hub id.

    Released folders have their own ids, K and max_length. So checkpoints are looked up on disk and in the hub's cache,
    and downloaded unless the hub is offline.

    Parameters
    ----------
    name : prebuilt name, YAML file, checkpoint folder or hub id; a prebuilt name wins over a folder of that name.
    overrides : fields of :class:`RetrieverConfig`; None leaves a field unchanged.

    Raises
    ------
    ConfigError
        For an unknown setting, an invalid value or an unsupported checkpoint.
    ModelNotFoundError
        When the model is neither on disk nor on the hub.

    Examples
    --------
    >>> from diffretriever_pyserini import resolve_config
    >>> resolve_config("diffretriever", k_query=2).k_query
    2
    """
    overrides = {key: value for key, value in overrides.items() if value is not None}
    check_names(RetrieverConfig, overrides, where=name)
    values = written_values(name)
    check_names(RetrieverConfig, values or {}, where=name)
    chosen = {"name": name} | (values or {}) | overrides
    if values is None:
        folder = local_folder(name)
        key = "adapter" if (folder / "adapter_config.json").is_file() else "backbone"
        chosen.setdefault(key, str(folder))
    elif not chosen.get("adapter") and not chosen.get("backbone"):
        raise ConfigError(f"{name}: names neither a backbone nor an adapter; add one of them.")
    values = _checkpoint_values(chosen)
    if chosen.get("readout", values.get("readout", "mask")) != values.get("readout", "mask"):
        # Prompt, K and lengths of the checkpoint belong to the read-out that it was trained for.
        values = {key: value for key, value in values.items() if key not in _OF_THE_READOUT}
    return RetrieverConfig(**values | chosen)


def _checkpoint_values(chosen: dict[str, Any]) -> dict[str, Any]:
    """Settings of the checkpoint itself (docs/method.md §2), for precedence below the user's; fills in paths."""
    values: dict[str, Any] = {}
    if chosen.get("adapter"):
        folder = local_folder(str(chosen["adapter"]))
        chosen["adapter"] = str(folder)
        values = _release_values(folder)
        family = chosen.get("family") or values.get("family")
        if not chosen.get("backbone"):
            chosen["backbone"] = _adapter_base(folder, family)
    backbone = str(chosen["backbone"])
    if values.get("family") is None:
        folder = local_folder(backbone)
        chosen["backbone"] = str(folder)
        values = _base_values(folder) | {key: value for key, value in values.items() if value is not None}
    return values


def _release_values(folder: Path) -> dict[str, Any]:
    """Settings in a released folder's ``retriever_config.json``; empty for a plain adapter."""
    path = folder / "retriever_config.json"
    if not path.is_file():
        return {}
    raw = read_json(path, error=ConfigError)
    legacy = raw.get("n_gen_tokens")  # used only if the keys per side are missing
    values: dict[str, Any] = _FINE_TUNED | {
        "family": family_of(raw, path),
        "mask_token_id": raw.get("mask_token_id"),
        "max_length": raw.get("max_length", 156),
        "k_query": raw.get("n_gen_q_tokens", legacy),
        "k_passage": raw.get("n_gen_p_tokens", legacy),
        "denoising_steps": raw.get("num_denoise_steps") or 1,
        "n_tail": raw.get("n_tail", 1 if raw.get("use_eos") else 0),
    }
    for key in ("query_prefix_ids", "query_suffix_ids", "passage_prefix_ids", "passage_suffix_ids"):
        if raw.get(key) is not None:
            values[key] = parsed(raw[key], Ids, ConfigError, f"{path}: {key}")
    values |= {key: raw[key] for key in _OUR_KEYS if key in raw}
    if values["k_query"] is None or values["k_passage"] is None:
        raise ConfigError(f"{path}: K is missing; give n_gen_q_tokens and n_gen_p_tokens, or n_gen_tokens.")
    if raw.get("normalize") is False:
        raise ConfigError(f"{path}: normalize=false is not supported; vectors have unit length (docs/method.md §4).")
    for key in ("use_k_adapter", "use_k_pre_encoder"):
        if raw.get(key):
            raise ConfigError(f"{path}: {key}=true is not supported; use a checkpoint with a fixed K per side.")
    return values


def _base_values(folder: Path) -> dict[str, Any]:
    """Settings of a zero-shot base, or of a fully fine-tuned folder with a retriever_config.json."""
    values = _release_values(folder)
    path = folder / "config.json"
    raw = read_json(path, error=ConfigError) if path.is_file() else {}
    if not values:
        if not raw:
            raise ConfigError(
                f"{folder}: no config.json, adapter_config.json or retriever_config.json; give a checkpoint folder."
            )
        values = {"family": family_of(raw, path)}
    if values.get("mask_token_id") is None:
        values["mask_token_id"] = raw.get("mask_token_id")
    if values["family"] == "masked_lm" and not _has_chat_template(folder):
        values = {"prompt": "none", "max_length": 256, "n_tail": 1} | values
    return values


def _has_chat_template(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    in_config = path.is_file() and read_json(path, error=ConfigError).get("chat_template")
    return bool(in_config) or (folder / "chat_template.jinja").is_file()


def _adapter_base(folder: Path, family: str | None) -> str:
    """An adapter's base: relative to the folder, as written, or the hub id of its model type (docs/method.md §2)."""
    written = str(read_json(folder / "adapter_config.json", error=ConfigError).get("base_model_name_or_path") or "")
    for candidate in (folder / written, Path(written)):
        if written and candidate.is_dir():
            return str(candidate.resolve())
    if is_hub_id(written):
        return written
    if family in HUB_BASES:
        return HUB_BASES[family]
    raise ConfigError(
        f"{folder}: its base {written!r} is neither a folder nor a hub id; pass backbone=<folder or hub id>."
    )
