"""RetrieverConfig: everything that decides the representations of a text, in one frozen record.

Sources, from lowest to highest precedence: the defaults of the kind of checkpoint (zero-shot or fine-tuned,
docs/method.md §2), the checkpoint's own ``retriever_config.json``, a prebuilt or user YAML file, keyword overrides.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le

from ..errors import ConfigError
from ..files.atomic import read_json
from ..settings import Count, CountFrom0, Help, Masks, check_names, parsed, validate
from .hub import is_hub_id, local_folder
from .prebuilt import written_values

Family = Literal["dream", "llada", "a2d", "llada_moe", "masked_lm"]
Prompt = Literal["auto", "one", "three", "few", "none"]
LexicalTerms = Literal["content", "stems", "vocabulary"]
MaskPositionIds = Literal["follow", "tail"]
MaskTokenType = Literal[0, 1]
Ids = tuple[CountFrom0, ...]
Budgets = tuple[Masks, ...]
FAMILIES = get_args(Family)
HUB_BASES = {"dream": "Dream-org/Dream-v0-Instruct-7B", "llada": "GSAI-ML/LLaDA-8B-Instruct"}
_MODEL_TYPES = {
    "dream": ("dream",),
    "llada": ("llada", "llada1", "llada15"),
    "a2d": ("a2d", "a2d-qwen3", "a2d-qwen2", "a2d-llama"),
    "llada_moe": ("llada_moe", "lladamoe"),
    "masked_lm": ("masked_lm", "bert", "roberta", "xlm-roberta", "distilbert", "modernbert"),
}
# Settings of a retriever_config.json that the released ones do not have.
_OUR_KEYS = (
    "lexical_terms",
    "lexical_tf",
    "hybrid_weight",
    "prefix_budgets",
    "impact_rounding",
    "cut_at_stop",
    "prompt",
    "mask_position_ids",
    "mask_token_type",
    "split_special_tokens",
)
# Defaults of a fine-tuned checkpoint that differ from those of a bare base (docs/method.md §2).
_FINE_TUNED = {
    "cut_at_stop": False,
    "impact_rounding": "nearest",
    "denoising_schedule": "trained",
}


@dataclass(frozen=True, slots=True)
class LexicalTf:
    """How often a term occurs, as a factor of its weight (docs/method.md §4.1; not in the paper)."""

    k1: Annotated[float, Gt(0), Le(100), Help("passages: where more occurrences stop to count, as in BM25")] = 0.9
    b: Annotated[float, Ge(0), Le(1), Help("passages: how much length counts, as in BM25")] = 0.4
    average_length: Annotated[float, Gt(0), Help("content words of a passage of average length")] = 60.0
    query_exponent: Annotated[float, Ge(0), Le(2), Help("queries: n occurrences count n to this power")] = 1.0

    def __post_init__(self) -> None:
        validate(self, where="lexical_tf")


@dataclass(frozen=True, slots=True)
class RetrieverConfig:
    """The complete settings of one retriever: weights, token layout and read-out.

    docs/configs.md says how to set the fields in a YAML file. An invalid value raises ConfigError.

    Examples
    --------
    >>> from diffretriever_pyserini import resolve_config
    >>> config = resolve_config("diffretriever", max_length=128)
    >>> config.family, config.max_length, config.k("query") == config.k_query
    ('masked_lm', 128, True)
    """

    name: Annotated[str, Help("the model as the user named it: prebuilt name, hub id, folder or YAML file")]
    family: Annotated[
        Family,
        Help(
            "dream (Qwen2 bidirectional), llada (Llama bidirectional), a2d (Qwen3, Qwen2 or Llama bidirectional), "
            "llada_moe (Qwen3-MoE bidirectional) or masked_lm (BERT family)"
        ),
    ]
    backbone: Annotated[str, Help("folder or hub id of the base weights")]
    adapter: Annotated[str | None, Help("folder or hub id of a LoRA adapter that is merged into the base")] = None
    k_query: Annotated[Masks, Help("mask positions of a query (docs/method.md §1)")] = 1
    k_passage: Annotated[Masks, Help("mask positions of a passage (docs/method.md §1)")] = 1
    max_length: Annotated[
        Count, Help("tokens of prefix, text and suffix; masks and tail are not counted (docs/method.md §2)")
    ] = 512
    prompt: Annotated[Prompt, Help('wording of the prompt; auto is "one" for K = 1 and "few" for larger K')] = "auto"
    query_prefix_ids: Annotated[Ids | None, Help("fixed token ids before a query, as in released checkpoints")] = None
    query_suffix_ids: Annotated[Ids | None, Help("fixed token ids after a query")] = None
    passage_prefix_ids: Annotated[Ids | None, Help("fixed token ids before a passage")] = None
    passage_suffix_ids: Annotated[Ids | None, Help("fixed token ids after a passage")] = None
    n_tail: Annotated[CountFrom0, Help("tokens after the masks: closing quote, end of turn, end of text")] = 3
    mask_token_id: Annotated[
        CountFrom0 | None, Help("id of the mask", default="that of the checkpoint or its tokenizer")
    ] = None
    denoising_steps: Annotated[Count, Help("forward passes per text (docs/method.md §3)")] = 1
    denoising_schedule: Annotated[
        Literal["zero_shot", "trained"], Help("positions that each step decodes (docs/method.md §3)")
    ] = "zero_shot"
    cut_at_stop: Annotated[
        bool, Help("zero-shot rule: a mask position that decodes to a special token ends the answer")
    ] = True
    impact_rounding: Annotated[
        Literal["zero", "nearest"], Help("weights x impact_scale are cut towards zero or rounded")
    ] = "zero"
    lexical_terms: Annotated[
        LexicalTerms,
        Help(
            "content: the words of the text, as in the paper; stems: the same, but words with the same Porter stem are "
            "one term; vocabulary: every term (expansion)"
        ),
    ] = "content"
    lexical_tf: Annotated[
        LexicalTf | None,
        Help(
            "factors for how often a term occurs, by k1, b, average_length and query_exponent (docs/method.md §4.1); "
            "the paper has none"
        ),
    ] = None
    top_terms: Annotated[Count, Help("terms that a mask position keeps")] = 128
    impact_scale: Annotated[Count, Help("factor before rounding")] = 100
    max_lexical_chars: Annotated[
        Count, Help("characters of a text that are split into words; the rest adds no term")
    ] = 100_000
    split_special_tokens: Annotated[
        bool | None,
        Help(
            "read a special token in a text, such as [SEP], as plain text and not as that token",
            default="that of its tokenizer_config.json",
        ),
    ] = None
    mask_position_ids: Annotated[
        MaskPositionIds, Help("masked LMs: masks follow the text or use the end of the position table")
    ] = "follow"
    mask_token_type: Annotated[MaskTokenType, Help("masked LMs: segment id of the masks")] = 0
    hybrid_weight: Annotated[
        float,
        Gt(0),
        Le(1),
        Help("share of the dense signal in a hybrid search by min-max; `search` uses it unless it gets --alpha"),
    ] = 0.5
    prefix_budgets: Annotated[
        Budgets | None, Help("prefixes of the K vectors that were trained to stand alone (docs/method.md §6)")
    ] = None
    description: Annotated[str, Help("shown by `diffretriever models`")] = ""

    def __post_init__(self) -> None:
        validate(self, where=str(self.name))
        for side in ("query", "passage"):
            if (getattr(self, f"{side}_prefix_ids") is None) != (getattr(self, f"{side}_suffix_ids") is None):
                raise ConfigError(f"{self.name}: {side}_prefix_ids and {side}_suffix_ids go together; give both.")
        if self.lexical_tf is not None and self.lexical_terms == "vocabulary":
            raise ConfigError(
                f"{self.name}: lexical_tf counts terms of the text, and lexical_terms=vocabulary adds others; omit one."
            )

    @property
    def hybrid_alpha(self) -> float:
        """``hybrid_weight`` as Pyserini's ``--alpha``: the weight of the lexical list against 1 for the dense one."""
        return (1 - self.hybrid_weight) / self.hybrid_weight

    def k(self, side: str) -> int:
        """K of ``side`` ("query" or "passage")."""
        return self.k_query if check_side(side) == "query" else self.k_passage

    def fixed_ids(self, side: str) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The released prefix and suffix ids of ``side``, or None if they are built from the prompt."""
        prefix, suffix = (
            (self.query_prefix_ids, self.query_suffix_ids)
            if check_side(side) == "query"
            else (self.passage_prefix_ids, self.passage_suffix_ids)
        )
        return (prefix, suffix) if prefix is not None and suffix is not None else None

    def replace(self, **changes: Any) -> RetrieverConfig:
        """A copy with ``changes``; unknown names raise :class:`ConfigError`."""
        check_names(RetrieverConfig, changes, where=self.name)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        return dataclasses.asdict(self)


FIELDS = frozenset(f.name for f in dataclasses.fields(RetrieverConfig))


def check_side(side: str) -> str:
    """Return ``side`` if it is "query" or "passage", else raise :class:`ConfigError`."""
    if side not in ("query", "passage"):
        raise ConfigError(f'side must be "query" or "passage", not {side!r}.')
    return side


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
    return RetrieverConfig(**_checkpoint_values(chosen) | chosen)


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


def family_of(raw: dict[str, Any], path: Path) -> str:
    """The backbone family of a checkpoint by its JSON object ``raw``; raises ConfigError naming ``path``."""
    model_type = raw.get("model_type")
    family = next((name for name, types in _MODEL_TYPES.items() if str(model_type).lower() in types), None)
    if family is None:
        known = ", ".join(sorted(name for types in _MODEL_TYPES.values() for name in types))
        raise ConfigError(f"{path}: model_type {model_type!r} is not supported (supported: {known}).")
    code = f"{raw.get('architectures')} {raw.get('auto_map')}".lower()
    if family == "llada" and (raw.get("num_experts") or "lladamoe" in code):
        return "llada_moe"  # on the hub, LLaDA-MoE has LLaDA-8B's model_type
    return family
