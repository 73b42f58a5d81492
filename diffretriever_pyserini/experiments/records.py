"""The records of an experiment: collections, rows with published scores, and the size of a model for estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Le

from ..errors import ConfigError
from ..searching.options import Signal
from ..settings import AboveZero, Count, CountFrom0, Weight, validate

BM25 = "bm25"
SIGNALS = get_args(Signal)
Score = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, slots=True)
class Collection:
    """A corpus with topics and judgements, by the names under which libraries know them, or as a folder.

    Attributes
    ----------
    corpus : what ``diffretriever encode --corpus`` takes; collections with the same corpus share a store.
    topics, qrels : names of Pyserini, or other sources.
    folder, split : a folder in BEIR layout instead of these three, and its split.
    irds, hub : other names of the same texts, in ir_datasets and on the hub.
    pyserini_index : Pyserini's ready index of the texts for BM25.
    passages, queries, words : their numbers, and the mean words of a passage, for estimates.
    measure : of the published scores, unless a row says otherwise.
    relevance : the lowest grade that is relevant in binary measures.
    remove_query : the query itself is a passage, which is removed from the results.
    mean_of : collections whose mean this is; then it has nothing else but a description.
    """

    corpus: str | None = None
    topics: str | None = None
    qrels: str | None = None
    folder: Path | None = None
    split: str = "test"
    irds: str | None = None
    hub: str | None = None
    pyserini_index: str | None = None
    passages: Count | None = None
    queries: Count | None = None
    words: AboveZero | None = None
    measure: str = "nDCG@10"
    relevance: Count = 1
    remove_query: bool = False
    mean_of: tuple[str, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        validate(self)

    def topics_source(self) -> str | None:
        """What ``--topics`` takes."""
        return self.topics if self.folder is None else str(self.folder)

    def qrels_source(self) -> str | None:
        """What ``--qrels`` takes."""
        return self.qrels if self.folder is None else str(self.folder)

    def corpus_source(self) -> str | None:
        """What ``--corpus`` takes."""
        return self.corpus if self.folder is None else str(self.folder)


@dataclass(frozen=True, slots=True)
class Row:
    """One score: a collection searched in one mode.

    Attributes
    ----------
    collection : its name.
    mode : as for ``diffretriever search --mode``, or bm25.
    published : the score; None where none is known, and the row is only measured.
    measure, tolerance, source : None are those of the collection and of the experiment.
    """

    collection: str
    mode: str
    published: Score | None = None
    measure: str | None = None
    tolerance: Weight | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        validate(self)
        names = self.mode.split(",")
        known = self.mode in (BM25, "hybrid") or (set(names) <= set(SIGNALS) and len(set(names)) == len(names))
        if not known:
            raise ConfigError(
                f"mode={self.mode!r} must be bm25, hybrid, or a comma-separated list of {', '.join(SIGNALS)}."
            )


@dataclass(frozen=True, slots=True)
class Size:
    """What an estimate of hours and bytes needs of a model, without loading it.

    Attributes
    ----------
    parameters : of the blocks, with which each token is multiplied; not embeddings and head.
    dimension : of its vectors.
    prompt : tokens before and after a passage.
    max_length : of prompt and passage together.
    """

    parameters: AboveZero
    dimension: Count
    prompt: CountFrom0
    max_length: Count

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class Experiment:
    """The rows of one model, or of BM25, as a file in ``prebuilt_configs/runs`` holds them.

    Attributes
    ----------
    name : of the file.
    rows : what is measured.
    model : a name for ``--encoder``; or ``config``, settings as in a model's YAML file. BM25 needs neither.
    multi : how several vectors are searched: by the compressed ``index``, or by ``exact`` MaxSim over the store.
    source, tolerance : of the rows that have none of their own.
    size : for estimates.
    collections : by name; those of the file, and the known ones.
    """

    name: str
    description: str
    rows: tuple[Row, ...]
    source: str = ""
    tolerance: Weight = 0.005
    model: str | None = None
    config: Mapping[str, Any] | None = None
    multi: Literal["index", "exact"] = "index"
    size: Size | None = None
    collections: Mapping[str, Collection] = field(default_factory=dict)
