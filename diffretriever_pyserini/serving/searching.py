"""Searching a collection: an index whose searchers ask Qdrant."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpora.formats import Passage
from ..errors import InputError
from ..indexes.options import MultiOptions
from ..model.lexical import content_words
from ..model.provenance import Needed, require_same_encoder
from ..scoring.ranking import Hits, ranked, through_ties, whole_scores
from ..searching.answers import Texts
from ..searching.encoder import QueryEncoder, open_encoder
from ..searching.folder import IndexFolder
from ..searching.index import SearchIndex
from ..searching.options import BM25, SearchOptions
from ..searching.searchers import Scores
from .engine import DENSE, DOCID, LEXICAL, MULTI, Engine, RankFusion, Sparse, Stage, open_engine
from .options import QdrantSearch
from .record import Upload, existing_record

if TYPE_CHECKING:
    from ..model.representations import QueryRepresentation

_QUERIES = 16  # per request


@dataclass(frozen=True)
class CollectionFolder(IndexFolder):
    """What is known of a collection before it is searched.

    Attributes
    ----------
    held : the signals that it can be searched by.
    """

    held: tuple[str, ...] = ()

    @property
    def record_name(self) -> str:
        """What names the encoder."""
        return self.name

    def folders(self, signal: str) -> tuple[Path, ...]:
        """The collection itself, for a signal that it holds."""
        return (Path(self.name),) if signal in self.held else ()

    def mode(self, requested: str | None) -> str:
        """See :meth:`.IndexFolder.mode`."""
        if requested is not None and MULTI in requested.split(",") and MULTI not in self.held:
            raise InputError(
                f"{self.name} holds pooled vectors only, so it cannot be searched in mode {requested}: encode the "
                "corpus with --vectors all, or search with --mode hybrid, which takes the pooled vectors."
            )
        if requested is not None and BM25 in requested.split(","):
            raise InputError(
                f"{self.name} has no index for {BM25}: search with --mode {self.modes[0]}, or search an index of "
                "`diffretriever index --text` for it."
            )
        return super().mode(requested)


@dataclass(frozen=True)
class _Queries:
    """How representations become queries of a collection."""

    engine: Engine
    encoder: QueryEncoder
    effort: QdrantSearch
    multi: MultiOptions

    def stage(self, signal: str, query: QueryRepresentation, limit: int, depth: int) -> Stage | None:
        """The query of one signal; None for a lexical one without terms.

        Parameters
        ----------
        depth : what the number of candidates depends on.
        """
        if signal == LEXICAL:
            row = self.encoder.model.term_names.row
            terms = {row(term): float(impact) for term, impact in query.impacts.items()}
            return Stage(LEXICAL, Sparse([*terms], [*terms.values()]), limit) if terms else None
        if signal == DENSE:
            return Stage(DENSE, query.vector, limit, scan=self.effort.scan, ef=self.effort.ef)
        count = self.multi.candidate_count(depth)
        candidates = (self.stage(first, query, count, depth) for first in (DENSE, LEXICAL))
        return Stage(MULTI, query.vectors, limit, tuple(one for one in candidates if one is not None))

    def ask(self, stages: Sequence[Stage | RankFusion | None]) -> list[Scores]:
        """The answers, in the order of the queries; empty for None."""
        asked = [stage for stage in stages if stage is not None]
        answers = iter([scores for batch in batched(asked, _QUERIES) for scores in self.engine.query(batch)])
        return [{} if stage is None else next(answers) for stage in stages]


class CollectionSearcher:
    """One signal of a collection; see :class:`.searchers.Searcher`."""

    exact = False

    def __init__(self, signal: str, queries: _Queries, documents: int):
        self._signal, self._queries, self.documents = signal, queries, documents

    def search(self, queries: Sequence[QueryRepresentation], depth: int, threads: int) -> list[Scores]:
        """The best ``depth`` passages of each query; the engine decides on threads."""

        def search(numbers: Sequence[int], length: int) -> list[Scores]:
            scores = self._queries.ask(
                [self._queries.stage(self._signal, queries[number], length, depth) for number in numbers]
            )
            return [whole_scores(one) for one in scores] if self._signal == LEXICAL else scores

        return through_ties(search, len(queries), depth, self.documents)

    def vectors(self, docid: str) -> np.ndarray | None:
        """The vectors of a passage, float32 [n, H], as the engine keeps them."""
        for point in self._queries.engine.points([docid]) if self._signal != LEXICAL else ():
            vectors = point.vectors[self._signal]
            assert isinstance(vectors, np.ndarray)
            return vectors[None] if self._signal == DENSE else vectors[:-1]  # the last one is zero
        return None

    def close(self) -> None:
        """The index closes the engine."""


@dataclass(frozen=True)
class _Payloads:
    """The texts that the points of a collection have; see :class:`.answers.Texts`."""

    engine: Engine

    @property
    def without(self) -> str:
        """See :class:`.answers.Texts`."""
        return (
            f"Titles and texts are not shown, as {self.engine.name} has none of them: run "
            "`diffretriever export qdrant` again with --texts CORPUS."
        )

    def passages(self, docids: Iterable[str]) -> dict[str, Passage]:
        """See :class:`.answers.Texts`."""
        payloads = [point.payload for point in self.engine.points([*docids], vectors=False)]
        passages = (Passage(one[DOCID], one.get("title", ""), one["text"]) for one in payloads if "text" in one)
        return {passage.docid: passage for passage in passages}

    def terms(self, text: str) -> list[str]:
        """The words of a text without stopwords; not stemmed, as Lucene would do it."""
        return content_words(text)


@dataclass(frozen=True)
class _Opener:
    """Opens the searchers of a collection."""

    queries: _Queries
    documents: int

    def open(self, index: IndexFolder, signal: str) -> CollectionSearcher:
        """The searcher of ``signal``; InputError for term weights of another encoder."""
        index.mode(signal)
        encoder = self.queries.encoder
        if signal == LEXICAL and index.provenance is not None:
            needed: Needed = "everything" if encoder.own_query_side else "terms"
            require_same_encoder(
                index.provenance, encoder.provenance, f"{index.name} holds term weights", needed=needed
            )
        return CollectionSearcher(signal, self.queries, self.documents)


class CollectionIndex(SearchIndex):
    """An open collection, with the methods of :class:`.SearchIndex`.

    Fusion by reciprocal ranks is one request if every list has the weight 1; all else is fused here.

    Attributes
    ----------
    unfinished : an upload that was interrupted, so that some of its passages may be missing; or None.
    """

    def __init__(self, folder: CollectionFolder, encoder: QueryEncoder, opener: _Opener, unfinished: Upload | None):
        super().__init__(folder, encoder, opener)
        self.unfinished = unfinished
        self._queries, self._documents = opener.queries, opener.documents

    def _batch(self, topics: dict[str, str], mode: str, options: SearchOptions) -> dict[str, Hits]:
        signals = self.folder.signals(mode)
        unweighted = all(self.weights(options).get(signal, 1.0) == 1 for signal in signals)
        if len(signals) == 1 or options.fusion != "rrf" or options.remove_query or not unweighted:
            return super()._batch(topics, mode, options)
        with self._timed("encode"):
            queries = self._encode(list(topics.values()), options.batch_size)
        depth = options.listed(len(signals))

        def search(numbers: Sequence[int], length: int) -> list[Scores]:
            fusions = []
            for number in numbers:
                stages = (self._queries.stage(signal, queries[number], depth, depth) for signal in signals)
                lists = tuple(stage for stage in stages if stage is not None)
                fusions.append(RankFusion(lists, options.rrf_k, length) if lists else None)
            return self._queries.ask(fusions)

        with self._timed("fuse"):
            scores = through_ties(search, len(queries), options.hits, self._documents)
        return {qid: ranked(one)[: options.hits] for qid, one in zip(topics, scores, strict=True)}

    def texts(self) -> Texts:
        """Titles and texts of the passages, from the payload."""
        return _Payloads(self._queries.engine)

    def close(self) -> None:
        """Close the searchers and the engine."""
        super().close()
        self._queries.engine.close()


def open_collection(
    target: str | Path,
    collection: str,
    encoder: str | None = None,
    *,
    mode: str | None = None,
    effort: QdrantSearch | None = None,
    multi_options: MultiOptions | None = None,
    **model_options: Any,
) -> CollectionIndex:
    """Open a collection of ``diffretriever export qdrant`` for searching.

    Parameters
    ----------
    target : URL of a server, or the folder of the engine in this process.
    effort : how the pooled vectors are searched.
    multi_options : how many candidates MaxSim scores: so many of the pooled vectors, and so many of the term weights.
    encoder, mode, model_options : as for :func:`~diffretriever_pyserini.open_index`.

    Raises
    ------
    InputError
        When there is no such collection, its first upload is not finished, or another encoder made it.
    DiffRetrieverError
        When the server does not answer.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, encode_corpus
    >>> from diffretriever_pyserini.serving import export_to_qdrant, open_collection
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> figures = export_to_qdrant("store", "qdrant", "passages")
    >>> with open_collection("qdrant", "passages") as index:
    ...     run = index.search({"q1": "where is Paris"}, mode="hybrid", hits=1)
    >>> [docid for docid, score in run["q1"]]
    ['p2']
    """
    started = time.perf_counter()
    engine = open_engine(target, collection)
    try:
        record = existing_record(engine)
        record.require_complete(engine.name)
        # A read-out without terms has no lexical signal.
        without = record.provenance.terms_refused
        held = tuple(one for one in record.layout.signals if one != LEXICAL or not without)
        folder = CollectionFolder(engine.name, None, None, record.provenance, engine.count(), held=held)
        folder.mode(mode)
        query_encoder = open_encoder(folder, encoder, **model_options)
        queries = _Queries(engine, query_encoder, effort or QdrantSearch(), multi_options or MultiOptions())
        opener = _Opener(queries, folder.passages or 0)
    except BaseException:
        engine.close()
        raise
    index = CollectionIndex(folder, query_encoder, opener, record.upload)
    index.seconds["open"] = time.perf_counter() - started
    return index
