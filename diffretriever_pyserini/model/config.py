"""RetrieverConfig: everything that decides the representations of a text, in one frozen record."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le

from ..errors import ConfigError
from ..settings import Count, CountFrom0, Help, Masks, check_names, validate
from .readouts import Readout, has_terms, misfit

Family = Literal["dream", "llada", "a2d", "llada_moe", "masked_lm", "causal"]
Prompt = Literal["auto", "one", "three", "few", "none"]
LexicalTerms = Literal["content", "stems", "vocabulary"]
MaskPositionIds = Literal["follow", "tail"]
MaskTokenType = Literal[0, 1]
Ids = tuple[CountFrom0, ...]
Budgets = tuple[Masks, ...]
FAMILIES = get_args(Family)
_MODEL_TYPES = {
    "dream": ("dream",),
    "llada": ("llada", "llada1", "llada15"),
    "a2d": ("a2d", "a2d-qwen3", "a2d-qwen2", "a2d-llama"),
    "llada_moe": ("llada_moe", "lladamoe"),
    "masked_lm": ("masked_lm", "bert", "roberta", "xlm-roberta", "distilbert", "modernbert"),
    "causal": ("causal", "qwen2", "qwen3", "llama", "mistral", "phi3"),
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
            "llada_moe (Qwen3-MoE bidirectional), masked_lm (BERT family) or causal (Qwen2, Qwen3, Llama, Mistral, "
            "Phi-3)"
        ),
    ]
    backbone: Annotated[str, Help("folder or hub id of the base weights")]
    adapter: Annotated[str | None, Help("folder or hub id of a LoRA adapter that is merged into the base")] = None
    readout: Annotated[
        Readout,
        Help(
            "what is read: mask (DiffRetriever), next_token (PromptReps), mean (DiffEmbed) or last_token (RepLLaMA); "
            "docs/method.md §8"
        ),
    ] = "mask"
    k_query: Annotated[Masks, Help("positions of a query that are read (docs/method.md §1)")] = 1
    k_passage: Annotated[Masks, Help("positions of a passage that are read (docs/method.md §1)")] = 1
    max_length: Annotated[
        Count, Help("tokens of prefix, text and suffix; masks and tail are not counted (docs/method.md §2)")
    ] = 512
    query_max_length: Annotated[
        Count | None,
        Help("the same for a query, where it is shorter (RepLLaMA reads 32, DiffEmbed 64)", default="max_length"),
    ] = None
    prompt: Annotated[Prompt, Help('wording of the prompt; auto is "one" for K = 1 and "few" for larger K')] = "auto"
    query_prefix_ids: Annotated[Ids | None, Help("fixed token ids before a query, as in released checkpoints")] = None
    query_suffix_ids: Annotated[Ids | None, Help("fixed token ids after a query")] = None
    passage_prefix_ids: Annotated[Ids | None, Help("fixed token ids before a passage")] = None
    passage_suffix_ids: Annotated[Ids | None, Help("fixed token ids after a passage")] = None
    query_prefix: Annotated[str, Help("mean, last_token: text before each query, such as 'query: '")] = ""
    passage_prefix: Annotated[str, Help("mean, last_token: text before each passage, such as 'passage: '")] = ""
    append_eos: Annotated[
        bool | None,
        Help("mean, last_token: end each text with the end-of-text token", default="true for last_token, else false"),
    ] = None
    n_tail: Annotated[CountFrom0, Help("tokens after the masks: closing quote, end of turn, end of text")] = 3
    mask_token_id: Annotated[
        CountFrom0 | None, Help("id of the mask", default="that of the checkpoint or its tokenizer")
    ] = None
    denoising_steps: Annotated[Count, Help("forward passes per text (docs/method.md §3)")] = 1
    denoising_schedule: Annotated[
        Literal["zero_shot", "trained"], Help("positions that each step decodes (docs/method.md §3)")
    ] = "zero_shot"
    cut_at_stop: Annotated[
        bool, Help("zero-shot rule: a special token ends the answer; for next_token, a quotation mark does too")
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
        self._check_readout()
        if self.lexical_tf is not None and self.lexical_terms == "vocabulary":
            raise ConfigError(
                f"{self.name}: lexical_tf counts terms of the text, and lexical_terms=vocabulary adds others; omit one."
            )

    def _check_readout(self) -> None:
        """Raise ConfigError if the read-out does not fit the family, or another setting does not fit the read-out."""
        if why := misfit(self.readout, self.family):
            raise ConfigError(f"{self.name}: the read-out {self.readout} does not fit the family {self.family}: {why}.")
        if self.readout != "mask" and self.denoising_steps > 1:
            raise ConfigError(f"{self.name}: denoising_steps is for the read-out mask, not {self.readout}; omit it.")
        if has_terms(self.readout):
            for key in ("query_prefix", "passage_prefix", "append_eos"):
                if getattr(self, key):
                    raise ConfigError(f"{self.name}: {key} is for the read-outs mean and last_token; omit it.")
            return
        if (self.k_query, self.k_passage) != (1, 1):
            raise ConfigError(
                f"{self.name}: the read-out {self.readout} gives one vector per text, so k_query and k_passage must be "
                f"1, not {self.k_query} and {self.k_passage}."
            )
        if self.prompt not in ("auto", "none"):
            raise ConfigError(f"{self.name}: the read-out {self.readout} has no prompt {self.prompt!r}; omit prompt.")

    @property
    def ends_with_eos(self) -> bool:
        """Whether a text without a prompt ends with the end-of-text token: ``append_eos``, or its default."""
        return self.readout == "last_token" if self.append_eos is None else self.append_eos

    def text_prefix(self, side: str) -> str:
        """The text before each text of ``side``; empty for read-outs with a prompt."""
        return self.query_prefix if check_side(side) == "query" else self.passage_prefix

    @property
    def hybrid_alpha(self) -> float:
        """``hybrid_weight`` as Pyserini's ``--alpha``: the weight of the lexical list against 1 for the dense one."""
        return (1 - self.hybrid_weight) / self.hybrid_weight

    def k(self, side: str) -> int:
        """K of ``side`` ("query" or "passage")."""
        return self.k_query if check_side(side) == "query" else self.k_passage

    def length(self, side: str) -> int:
        """The limit on prefix, text and suffix of ``side``: ``max_length``, or a shorter ``query_max_length``."""
        of_queries = self.query_max_length if check_side(side) == "query" else None
        return min(self.max_length, of_queries or self.max_length)

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
