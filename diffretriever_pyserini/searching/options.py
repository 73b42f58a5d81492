"""The options of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from ..errors import InputError
from ..settings import Batch, Count, Effort, Help, RankConstant, Threads, Weight, parsed, validate

BM25 = "bm25"  # the signal of a text index; the others come from the model
Signal = Literal["dense", "multi", "lexical", "bm25"]
ANSWER_HITS = 5  # of a single query
_DEPTH = 1000  # of the lists that are fused (docs/method.md §5)


def check_effort(parameters: Mapping[str, int]) -> dict[str, int]:
    """Check FAISS's search ``parameters``; InputError for a value that FAISS would misread or ignore."""
    return {name: parsed(value, Effort, InputError, name) for name, value in parameters.items()}


@dataclass(frozen=True)
class SearchOptions:
    """How to search. Defaults other than ``hits`` are the paper's, or change no result.

    Min-max scaling depends on ``depth``; for the same depth, a shorter result is the head of a longer one. A single
    signal is not fused: its list has ``hits`` passages. ``weights`` holds signal weights other than 1; a weight for
    ``lexical`` overrides ``alpha``. Invalid values raise InputError.

    Examples
    --------
    >>> from diffretriever_pyserini import SearchOptions
    >>> SearchOptions(hits=10, alpha=0.5).all_weights()
    {'lexical': 0.5}
    """

    hits: Annotated[Count, Help("passages per query")] = 1000
    remove_query: Annotated[bool, Help("drop the passage that has the query's id, before fusion")] = False
    fusion: Annotated[
        Literal["minmax", "rrf"], Help("min-max and weighted sum, or reciprocal ranks", group="hybrid")
    ] = "minmax"
    depth: Annotated[
        Count | None,
        Help("passages of each list that are fused, at least hits", default="1000, or hits where that is more"),
    ] = None
    alpha: Annotated[
        Weight | None,
        Help(
            "lexical weight against 1 for the others; 1 is the paper's 0.5/0.5",
            "A",
            default="by the model's hybrid_weight; 1 for rrf",
        ),
    ] = None
    weights: Mapping[Signal, Weight] = field(default_factory=dict)
    rrf_k: Annotated[RankConstant, Help("constant of rrf", "K")] = 60
    batch_size: Annotated[Batch, Help("queries per forward pass", group="speed")] = 32
    threads: Annotated[Threads | None, Help("of FAISS and Lucene", default="all processors")] = None

    def __post_init__(self) -> None:
        validate(self, InputError)
        if self.depth is not None and self.depth < self.hits:
            raise InputError(
                f"depth={self.depth!r} must be a whole number of at least hits={self.hits}: the fused lists cannot be "
                "shorter than the result; increase depth or reduce hits."
            )

    def all_weights(self, hybrid_alpha: float = 1.0) -> dict[str, float]:
        """Weights by signal; every other signal has the weight 1.

        Parameters
        ----------
        hybrid_alpha : the model's own weight of the lexical list, for min-max without ``alpha``.
        """
        alpha = self.alpha
        if alpha is None:
            alpha = hybrid_alpha if self.fusion == "minmax" else 1.0
        return {"lexical": alpha} | {str(signal): weight for signal, weight in self.weights.items()}

    def listed(self, signals: int) -> int:
        """Length of each signal's list when ``signals`` signals are searched."""
        if signals == 1:
            return self.hits
        return max(self.hits, _DEPTH) if self.depth is None else self.depth

    def check_signals(self, mode: str, signals: Sequence[str]) -> None:
        """Raise InputError for a weight of a signal that ``mode`` does not search."""
        if unused := [signal for signal in self.weights if signal not in signals]:
            raise InputError(f"the weight for {unused[0]} has no effect: mode {mode} searches {' and '.join(signals)}.")
