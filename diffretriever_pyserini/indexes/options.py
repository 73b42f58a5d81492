"""What is made of a store, and how far a search of the K vectors looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from ..errors import InputError
from ..settings import AboveZero, Count, CountFrom0, Help, Threads, validate

if TYPE_CHECKING:
    from ..store.store import Store

DENSE, LEXICAL, MULTI = "dense", "lexical", "multi"
DenseKind = Literal["flat", "sq8", "pq", "ivfpq", "hnsw"]
_MORE_CANDIDATES, _PER_HIT = 400, 1.5  # what the first stage proposes beyond the hits, or for each hit


@dataclass(frozen=True)
class MultiBuild:
    """How the K vectors of a passage are kept for MaxSim. Values that cannot be raise InputError."""

    bytes_per_vector: Annotated[
        Count | None,
        Help(
            "of a passage's record and first-stage code, divided by K",
            default="H/8, a sixteenth of float16",
            group="multi-vector index",
        ),
    ] = None
    refine: Annotated[
        Literal["int8"] | None, Help("keep the vectors on disk, too, so that the best passages can be scored by them")
    ] = None

    def __post_init__(self) -> None:
        validate(self, InputError)

    def budget(self, store: Store) -> int:
        """Bytes of a passage."""
        spec = store.spec
        return spec.k_passage * (self.bytes_per_vector or max(1, spec.dimension // 8))


@dataclass(frozen=True)
class MultiOptions:
    """How far a search of a multi-vector index looks. Values that cannot be raise InputError."""

    candidates: Annotated[
        Count | None,
        Help(
            "passages to score, never fewer than hits, or depth in a fusion",
            default="1.5 x that, or 400 more",
            group="multi-vector signal",
        ),
    ] = None
    refine: Annotated[CountFrom0, Help("best ones scored again by the vectors on disk, where they were kept")] = 200

    def __post_init__(self) -> None:
        validate(self, InputError)

    def wanted(self, depth: int) -> int:
        """Passages to propose for ``depth`` hits."""
        return max(depth, self.candidates or max(depth + _MORE_CANDIDATES, int(_PER_HIT * depth)))


@dataclass(frozen=True)
class IndexOptions:
    """What is made of a store; ``multi`` says how the K vectors are kept, None makes no such index.

    Values that cannot be raise InputError.
    """

    dense: Annotated[DenseKind | None, Help("build this FAISS index")] = "flat"
    lexical: Annotated[bool, Help("build the Lucene impact index")] = True
    multi: MultiBuild | None = None
    threads: Annotated[Threads | None, Help("for FAISS", default="all; 1 for hnsw, whose graph depends on timing")] = (
        None
    )
    max_memory: Annotated[
        AboveZero | None, Help("gigabytes that flat and hnsw may take", "GB", default="80 % of what is free")
    ] = None
    encoder: Annotated[str | None, Help("the store's encoder, if its name or place has changed", "NAME")] = None
    verify: Annotated[bool, Help("do not check the parts' checksums")] = True
    gpu: Annotated[bool, Help("train ivfpq on the GPUs")] = False
    quiet: Annotated[bool, Help("no bar, no summary")] = False

    def __post_init__(self) -> None:
        validate(self, InputError)
        if not self.signals:
            raise InputError("neither a dense nor a lexical nor a multi-vector index is asked for.")

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that are made."""
        asked = {DENSE: self.dense is not None, LEXICAL: self.lexical, MULTI: self.multi is not None}
        return tuple(signal for signal, wanted in asked.items() if wanted)
