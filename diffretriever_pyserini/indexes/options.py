"""The options of building indexes, and of searching K vectors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from ..errors import InputError
from ..settings import AboveZero, Count, CountFrom0, Help, Threads, validate

if TYPE_CHECKING:
    from ..store.store import Store

DENSE, LEXICAL, MULTI, TEXT = "dense", "lexical", "multi", "text"
PARTS = (DENSE, LEXICAL, MULTI, TEXT)
DenseKind = Literal["flat", "sq8", "pq", "ivfpq", "hnsw"]
_MORE_CANDIDATES, _PER_HIT = 400, 1.5  # candidates of the first stage: so many more than hits, or so many per hit


@dataclass(frozen=True)
class MultiBuild:
    """How the K vectors of a passage are stored for MaxSim. Invalid values raise InputError."""

    bytes_per_vector: Annotated[
        Count | None,
        Help(
            "size of a passage's record and first-stage code, divided by K",
            default="H/8, a sixteenth of float16",
            group="multi-vector index",
        ),
    ] = None
    refine: Annotated[
        Literal["int8"] | None, Help("also store the vectors on disk, to score the best passages by them")
    ] = None

    def __post_init__(self) -> None:
        validate(self, InputError)

    def budget(self, store: Store) -> int:
        """Return the bytes per passage."""
        spec = store.spec
        return spec.k_passage * (self.bytes_per_vector or max(1, spec.dimension // 8))


@dataclass(frozen=True)
class MultiOptions:
    """How many passages a search of a multi-vector index scores. Invalid values raise InputError."""

    candidates: Annotated[
        Count | None,
        Help(
            "passages to score, never fewer than hits, or depth in a fusion",
            default="1.5 x that, or 400 more",
            group="multi-vector signal",
        ),
    ] = None
    refine: Annotated[CountFrom0, Help("how many of the best are scored by the vectors on disk, if stored")] = 200

    def __post_init__(self) -> None:
        validate(self, InputError)

    def candidate_count(self, depth: int) -> int:
        """Return how many passages the first stage proposes for ``depth`` hits."""
        return max(depth, self.candidates or max(depth + _MORE_CANDIDATES, int(_PER_HIT * depth)))


@dataclass(frozen=True)
class IndexOptions:
    """Which indexes of a store are built; ``multi`` says how the K vectors are stored, None builds no such index.

    The texts of a text index are read from ``corpus``, or else from the files that the store names.
    Invalid values raise InputError.

    Examples
    --------
    >>> from diffretriever_pyserini import IndexOptions
    >>> IndexOptions(dense="hnsw", lexical=False).signals
    ('dense',)
    """

    dense: Annotated[DenseKind | None, Help("build this FAISS index")] = "flat"
    lexical: Annotated[bool, Help("build the Lucene impact index")] = True
    multi: MultiBuild | None = None
    text: Annotated[
        bool, Help("build the Lucene index of the texts: titles and texts for `search --query`, and BM25")
    ] = False
    corpus: Annotated[
        tuple[str, ...], Help("corpus of --text, as for `encode`", "SOURCE", default="the files that the store names")
    ] = ()
    shards: Annotated[Count, Help("build an index in N shards, each over consecutive parts of the store")] = 1
    threads: Annotated[
        Threads | None, Help("threads for FAISS", default="all; 1 for hnsw, whose graph depends on timing")
    ] = None
    max_memory: Annotated[
        AboveZero | None, Help("gigabytes that flat and hnsw may take", "GB", default="80 % of the free memory")
    ] = None
    encoder: Annotated[str | None, Help("the store's encoder, if its name or location has changed", "NAME")] = None
    verify: Annotated[bool, Help("do not check the parts' checksums")] = True
    gpu: Annotated[bool, Help("train ivfpq on the GPUs")] = False
    rebuild: Annotated[bool, Help("also build indexes that exist already, of this store and with these options")] = (
        False
    )
    quiet: Annotated[bool, Help("no bar, no summary")] = False

    def __post_init__(self) -> None:
        validate(self, InputError)
        if not self.signals:
            raise InputError("No index is selected: choose a dense, lexical, multi-vector or text index.")
        if self.corpus and not self.text:
            raise InputError("corpus is where the texts of a text index are read: choose this index (--text) too.")
        if self.text and self.shards > 1:
            raise InputError(
                "a text index is not built in shards, because BM25 needs the statistics of the whole collection: build "
                "it without shards in a folder of its own, and give that to the search with --text-index DIR/text."
            )

    @property
    def signals(self) -> tuple[str, ...]:
        """The parts of the index that are built."""
        chosen = (self.dense is not None, self.lexical, self.multi is not None, self.text)
        return tuple(itertools.compress(PARTS, chosen))
