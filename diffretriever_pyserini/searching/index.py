"""An open index: topics in, ranked lists out, from one forward pass per query in every mode."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..errors import InputError
from ..runtime.threads import processors
from ..scoring.fusion import RankedList, fuse_lists, lexical_floor
from ..scoring.ranking import Hits, best
from .encoder import QueryEncoder, open_encoder
from .folder import IndexFolder, read_index
from .opening import Opener, OpensSearchers
from .options import ANSWER_HITS, BM25, SearchOptions, check_effort
from .searchers import Scores, Searcher
from .texts import TextSearcher

if TYPE_CHECKING:
    from ..indexes.options import MultiOptions
    from ..model.representations import QueryRepresentation
    from ..model.retriever import DiffRetriever
    from .answers import Answer, Texts

_BATCHES_PER_SEARCH = 8  # a searcher is faster per query when it answers many together


class SearchIndex:
    """An open index; open it with :func:`open_index`, and close it or use it in a ``with`` block.

    ``seconds`` adds up the time of each stage: open, encode, dense, multi, lexical, bm25, fuse. ``opener`` opens a
    searcher when it is first used. ``encoder`` is None in an index that was opened for BM25 alone.
    """

    def __init__(self, folder: IndexFolder, encoder: QueryEncoder | None, opener: OpensSearchers):
        self.folder = folder
        self.encoder = encoder
        self.opener = opener
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._searchers: dict[str, Searcher] = {}
        self._opening = threading.RLock()

    def __repr__(self) -> str:
        folder = self.folder
        passages = "" if folder.passages is None else f", {folder.passages} passages"
        encoder = None if self.encoder is None else str(self.encoder.name)
        return f"SearchIndex({folder.name!r}{passages}, modes={folder.modes}, encoder={encoder!r})"

    @property
    def model(self) -> DiffRetriever:
        """The query encoder's model, shared with all other users of the same name and settings.

        Raises
        ------
        InputError
            In an index that was opened for BM25 alone.
        """
        if self.encoder is None:
            raise InputError(f"{self.folder.name} was opened for {BM25} alone, without its encoder.")
        return self.encoder.model

    def searcher(self, signal: str) -> Searcher:
        """The searcher of ``dense``, ``multi``, ``lexical`` or ``bm25``, opened on first use.

        Raises
        ------
        InputError
            Where there is none, or it belongs to another index or encoder.
        """
        with self._opening:  # threads that ask at the same time share one searcher
            if signal not in self._searchers:
                self._searchers[signal] = self.opener.open(self.folder, signal)
            return self._searchers[signal]

    def texts(self) -> Texts | None:
        """Titles and texts of the passages; None where the index has none."""
        if not self.folder.folders(BM25):
            return None
        searcher = self.searcher(BM25)
        assert isinstance(searcher, TextSearcher)
        return searcher

    def mode(self, mode: str | None = None) -> str:
        """Check ``mode`` (see :meth:`IndexFolder.mode`); None is bm25 in an index that was opened for it alone."""
        return self.folder.mode(BM25 if mode is None and self.encoder is None else mode)

    def open(self, mode: str | None = None) -> str:
        """Open the searchers that ``mode`` needs, and return the mode (see :meth:`mode`)."""
        mode = self.mode(mode)
        with self._timed("open"):
            for signal in self.folder.signals(mode):
                self.searcher(signal)
        return mode

    @overload
    def search(self, topics: str, mode: str | None = None, hits: int | None = None, **options: Any) -> Answer: ...

    @overload
    def search(
        self, topics: Mapping[str, str], mode: str | None = None, hits: int | None = None, **options: Any
    ) -> dict[str, Hits]: ...

    def search(
        self, topics: str | Mapping[str, str], mode: str | None = None, hits: int | None = None, **options: Any
    ) -> Answer | dict[str, Hits]:
        """Search for one query, or for ``topics`` (query id → text).

        Parameters
        ----------
        mode : ``dense``, ``multi``, ``lexical``, ``bm25``, ``hybrid`` (multi or else dense, with lexical), or a
            comma-separated list of signals, which are fused; None is hybrid where that is possible.
        hits : passages per query; None is 5 for one query, and 1000 for topics.
        options : fields of :class:`SearchOptions`.

        Returns
        -------
        For one query, an :class:`Answer`, which Python prints with titles and snippets if the index has the texts. For
        topics, query id → [(docid, score)], best first, equal scores by docid.

        Raises
        ------
        InputError
            For a mode whose signal is missing, invalid options, an empty query, or topics that are not strings.
        """
        if isinstance(topics, str):
            from .answers import answer

            return answer(self, topics, mode, SearchOptions(hits=ANSWER_HITS if hits is None else hits, **options))
        search_options = SearchOptions(**options) if hits is None else SearchOptions(hits=hits, **options)
        results: dict[str, Hits] = {}
        for batch in self.batches(topics, mode, search_options):
            results |= batch
        return results

    def batches(
        self, topics: Mapping[str, str], mode: str | None = None, options: SearchOptions | None = None
    ) -> Iterator[dict[str, Hits]]:
        """As :meth:`search`, a few hundred queries at a time, so that a long run need not be held in memory."""
        options = options or SearchOptions()
        _check_topics(topics)
        mode = self.open(mode)
        options.check_signals(mode, self.folder.signals(mode))
        for batch in batched(topics.items(), options.batch_size * _BATCHES_PER_SEARCH):
            yield self._batch(dict(batch), mode, options)

    def _batch(self, topics: dict[str, str], mode: str, options: SearchOptions) -> dict[str, Hits]:
        signals = self.folder.signals(mode)
        depth = options.listed(len(signals))
        if options.remove_query:
            depth += 1  # the passage that will be removed
        with self._timed("encode"):
            texts = list(topics.values())
            queries = _unencoded(texts) if signals == (BM25,) else self._encode(texts, options.batch_size)
        all_scores: dict[str, list[Scores]] = {}
        for signal in signals:
            with self._timed(signal):
                all_scores[signal] = self.searcher(signal).search(queries, depth, options.threads or processors())
        with self._timed("fuse"):
            return {
                qid: self._fuse(qid, {signal: scores[i] for signal, scores in all_scores.items()}, options)
                for i, qid in enumerate(topics)
            }

    def _fuse(self, qid: str, scores: dict[str, Scores], options: SearchOptions) -> Hits:
        lists = self.ranked_lists(scores, options, without=qid if options.remove_query else None)
        return fuse_lists(lists, options.fusion, options.rrf_k).hits[: options.hits]

    def ranked_lists(
        self, scores: Mapping[str, Scores], options: SearchOptions, without: str | None = None
    ) -> list[RankedList]:
        """The lists to fuse for one query: each signal's ``scores`` in order, without the document ``without``."""
        depth = options.listed(len(scores))
        # Lucene leaves out passages without terms, so the largest count is the collection's.
        documents = max(self.searcher(signal).documents for signal in scores)
        if any(without in signal_scores for signal_scores in scores.values()):
            documents -= 1
        lists = []
        weights = self.weights(options)
        for signal, signal_scores in scores.items():
            hits = best(signal_scores, depth, without)
            floor = lexical_floor(len(hits), depth, documents) if signal in ("lexical", BM25) else None
            lists.append(RankedList(signal, hits, weights.get(signal, 1.0), floor))
        return lists

    def weights(self, options: SearchOptions) -> dict[str, float]:
        """The weights of a fusion, by signal; 1 for the others."""
        return options.all_weights() if self.encoder is None else options.all_weights(self.model.config.hybrid_alpha)

    def _encode(self, texts: list[str], batch_size: int) -> list[QueryRepresentation]:
        """Encode each distinct text once, in order of length, so that a batch holds texts of similar length."""
        encoded: dict[str, QueryRepresentation] = {}
        for batch in batched(sorted(set(texts), key=lambda text: (len(text), text)), batch_size):
            encoded |= zip(batch, self.model.encode_queries_cached(batch, batch_size), strict=True)
        return [encoded[text] for text in texts]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def close(self) -> None:
        """Close Lucene's files; the model stays, as others may share it."""
        with self._opening:
            while self._searchers:
                self._searchers.popitem()[1].close()

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_index(
    index: str | Path | IndexFolder,
    encoder: str | None = None,
    *,
    mode: str | None = None,
    parameters: Mapping[str, int] | None = None,
    multi_options: MultiOptions | None = None,
    **model_options: Any,
) -> SearchIndex:
    """Open an index of ``diffretriever index``, or the folders of Pyserini's own commands.

    Parameters
    ----------
    index : folder with ``index.json``, or a store, which is searched exactly in mode multi; both name their encoder.
        :func:`~.folder.separate_folders` combines folders of Pyserini's own commands into an index.
    encoder : overrides the name in ``index.json``, for example where a checkpoint has moved.
    mode : checked before the model is loaded: an index that cannot be searched in this mode is refused. For ``bm25``
        alone, no model is loaded.
    parameters : FAISS's search parameters, ``nprobe`` or ``efSearch``.
    multi_options : how many candidates the multi-vector searcher considers.
    model_options : ``device``, ``dtype``, ``k_query``, ``max_length`` of the query encoder; ``max_length`` can only
        shorten.

    Raises
    ------
    InputError
        When the folder is not an index, or the encoder is not the one that made it.
    ConfigError, ModelNotFoundError
        When the encoder cannot be used or found.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, build_index, encode_corpus, open_index
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> facts = build_index("store", "index")
    >>> with open_index("index") as index:
    ...     run = index.search({"q1": "where is Paris"}, hits=1)
    >>> [docid for docid, score in run["q1"]]
    ['p2']
    """
    folder = index if isinstance(index, IndexFolder) else read_index(index)
    signals = folder.signals(folder.mode(mode))
    parameters = check_effort(parameters or {})
    started = time.perf_counter()
    if signals == (BM25,):
        return SearchIndex(folder, None, Opener(None))
    query_encoder = open_encoder(folder, encoder, **model_options)
    opener = Opener(query_encoder.identity, parameters, multi_options, query_encoder.model.device)
    search_index = SearchIndex(folder, query_encoder, opener)
    search_index.seconds["open"] = time.perf_counter() - started
    return search_index


def _unencoded(texts: list[str]) -> list[QueryRepresentation]:
    """Queries for BM25 alone."""
    from ..model.representations import QueryRepresentation

    return [QueryRepresentation.of_text(text) for text in texts]


def _check_topics(topics: Mapping[str, str]) -> None:
    if not isinstance(topics, Mapping):
        raise InputError(f"topics must be one query or a mapping from query id to text, not {type(topics).__name__}.")
    for qid, text in topics.items():
        if not isinstance(qid, str) or not isinstance(text, str):
            raise InputError(f"query {qid!r}: id and text must be strings; the text is {text!r:.60}.")
