"""An open index: topics in, ranked lists out, from one forward pass per query whatever the mode."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InputError
from ..runtime.threads import processors
from ..scoring.fusion import RankedList, fuse_lists, lexical_floor
from ..scoring.ranking import Hits, best
from .encoder import QueryEncoder, open_encoder
from .folder import IndexFolder, read_index
from .options import SearchOptions, check_effort
from .searchers import DenseSearcher, LexicalSearcher, MultiSearcher, Scores, Searcher

if TYPE_CHECKING:
    from ..indexes.options import MultiOptions
    from ..model.retriever import DiffRetriever, QueryRepresentation

_BATCHES_AT_ONCE = 8  # searchers answer many queries together faster than few


class SearchIndex:
    """An index that is searched; make it with :func:`open_index`, and close it or use it in a ``with`` block.

    ``seconds`` adds up the time of each stage: open, encode, dense, multi, lexical, fuse.
    """

    def __init__(
        self,
        folder: IndexFolder,
        encoder: QueryEncoder,
        parameters: Mapping[str, int] | None = None,
        multi_options: MultiOptions | None = None,
    ):
        self.folder = folder
        self.encoder = encoder
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._parameters = dict(parameters or {})
        self._multi_options = multi_options
        self._searchers: dict[str, Searcher] = {}
        self._opening = threading.RLock()

    def __repr__(self) -> str:
        folder = self.folder
        passages = "" if folder.passages is None else f", {folder.passages} passages"
        return f"SearchIndex({folder.name!r}{passages}, modes={folder.modes}, encoder={str(self.encoder.name)!r})"

    @property
    def model(self) -> DiffRetriever:
        """The query encoder's model, shared with whoever else asks for it."""
        return self.encoder.model

    @property
    def dense(self) -> DenseSearcher:
        """Opened when first used. Raises InputError where there is none, or it is not of this index or encoder."""

        def opened() -> DenseSearcher:
            folder = self._part("dense")
            return self._checked(folder, DenseSearcher(folder, self.encoder, self._parameters))

        return self._once("dense", opened)

    @property
    def multi(self) -> MultiSearcher:
        """Opened when first used. Raises InputError where there is none, or it is not of this index or encoder."""

        def opened() -> MultiSearcher:
            folder = self._part("multi")
            return self._checked(folder, MultiSearcher(folder, self.encoder, self._multi_options))

        return self._once("multi", opened)

    @property
    def lexical(self) -> LexicalSearcher:
        """Opened when first used. Raises InputError where there is none, or it is not of this encoder."""
        return self._once("lexical", lambda: LexicalSearcher(self._part("lexical"), self.encoder))

    def searcher(self, signal: str) -> Searcher:
        """The searcher of ``dense``, ``multi`` or ``lexical``, opened when first used."""
        if signal == "dense":
            return self.dense
        return self.multi if signal == "multi" else self.lexical

    def _once[S: Searcher](self, signal: str, opened: Callable[[], S]) -> S:
        with self._opening:  # threads that ask first at the same time get the same one
            if signal not in self._searchers:
                self._searchers[signal] = opened()
            return cast(S, self._searchers[signal])

    def _part(self, signal: str) -> Path:
        self.folder.mode(signal)
        folder: Path | None = {"dense": self.folder.dense, "multi": self.folder.multi}.get(signal, self.folder.lexical)
        assert folder is not None
        return folder

    def _checked[S: Searcher](self, folder: Path, searcher: S) -> S:
        if self.folder.passages not in (None, searcher.documents):
            raise InputError(
                f"{folder} holds {searcher.documents} passages, but the index was made of {self.folder.passages}: it "
                "is damaged or was replaced; build it again."
            )
        return searcher

    def open(self, mode: str | None = None) -> str:
        """Open the searchers that ``mode`` needs, and return the mode (see :meth:`IndexFolder.mode`)."""
        mode = self.folder.mode(mode)
        with self._timed("open"):
            for signal in self.folder.signals(mode):
                self.searcher(signal)
        return mode

    def search(
        self, topics: Mapping[str, str], mode: str | None = None, hits: int = 1000, **options: Any
    ) -> dict[str, Hits]:
        """Search ``topics`` (query id → text); query id → [(docid, score)], best first, equal scores by docid.

        Parameters
        ----------
        mode : ``dense``, ``multi``, ``lexical``, ``hybrid`` (multi or else dense, with lexical), or signals with commas
            between them, which are fused; None is hybrid where that is possible.
        options : fields of :class:`SearchOptions`.

        Raises
        ------
        InputError
            For a mode whose signal is missing, options that make no sense, or topics that are no strings.
        """
        found: dict[str, Hits] = {}
        for part in self.batches(topics, mode, SearchOptions(hits=hits, **options)):
            found |= part
        return found

    def batches(
        self, topics: Mapping[str, str], mode: str | None = None, options: SearchOptions | None = None
    ) -> Iterator[dict[str, Hits]]:
        """As :meth:`search`, some hundred queries at a time, so that a long run need not be held in memory."""
        options = options or SearchOptions()
        _check_topics(topics)
        mode = self.open(mode)
        options.check_signals(mode, self.folder.signals(mode))
        for part in batched(topics.items(), options.batch_size * _BATCHES_AT_ONCE):
            yield self._batch(dict(part), mode, options)

    def _batch(self, topics: dict[str, str], mode: str, options: SearchOptions) -> dict[str, Hits]:
        signals = self.folder.signals(mode)
        depth = options.listed(len(signals)) + options.remove_query  # one more, as one may go
        with self._timed("encode"):
            queries = self._encode(list(topics.values()), options.batch_size)
        answers: dict[str, list[Scores]] = {}
        for signal in signals:
            with self._timed(signal):
                answers[signal] = self.searcher(signal).search(queries, depth, options.threads or processors())
        with self._timed("fuse"):
            return {
                qid: self._fuse(qid, {signal: scores[i] for signal, scores in answers.items()}, options)
                for i, qid in enumerate(topics)
            }

    def _fuse(self, qid: str, scores: dict[str, Scores], options: SearchOptions) -> Hits:
        lists = self.ranked_lists(scores, options, without=qid if options.remove_query else None)
        return fuse_lists(lists, options.fusion, options.rrf_k).hits[: options.hits]

    def ranked_lists(
        self, scores: Mapping[str, Scores], options: SearchOptions, without: str | None = None
    ) -> list[RankedList]:
        """What is fused for one query: each signal's list of its ``scores``, but for the document ``without``."""
        depth = options.listed(len(scores))
        # Lucene leaves out passages without terms, so the largest count is the collection's.
        documents = max(self.searcher(signal).documents for signal in scores)
        documents -= any(without in one for one in scores.values())
        lists = []
        for signal, one in scores.items():
            hits = best(one, depth, without)
            floor = lexical_floor(len(hits), depth, documents) if signal == "lexical" else None
            lists.append(RankedList(signal, hits, options.all_weights.get(signal, 1.0), floor))
        return lists

    def _encode(self, texts: list[str], batch_size: int) -> list[QueryRepresentation]:
        """Each text once through the model, alike ones together, long ones together."""
        known: dict[str, QueryRepresentation] = {}
        for part in batched(sorted(set(texts), key=lambda text: (len(text), text)), batch_size):
            known |= zip(part, self.model.encode_queries_cached(part, batch_size), strict=True)
        return [known[text] for text in texts]

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
        :func:`~.folder.separate_folders` puts an index together from folders of Pyserini's own commands.
    encoder : overrides the name in ``index.json``, for example where a checkpoint has moved.
    mode : refuse an index that cannot be searched so, before the model is loaded.
    parameters : FAISS's parameters of searching, ``nprobe`` or ``efSearch``.
    multi_options : how far the multi-vector searcher looks.
    model_options : ``device``, ``dtype``, ``k_query``, ``max_length`` of the query encoder; ``max_length`` can only
        shorten.

    Raises
    ------
    InputError
        For what is no index, and for an encoder that did not make it.
    ConfigError, ModelNotFoundError
        When the encoder cannot be used or found.
    """
    folder = index if isinstance(index, IndexFolder) else read_index(index)
    folder.mode(mode)
    parameters = check_effort(parameters or {})
    started = time.perf_counter()
    opened = SearchIndex(folder, open_encoder(folder, encoder, **model_options), parameters, multi_options)
    opened.seconds["open"] = time.perf_counter() - started
    return opened


def _check_topics(topics: Mapping[str, str]) -> None:
    if not isinstance(topics, Mapping):
        raise InputError(f"topics must be a mapping from query id to text, not {type(topics).__name__}.")
    for qid, text in topics.items():
        if not isinstance(qid, str) or not isinstance(text, str):
            raise InputError(f"query {qid!r}: id and text must be strings, found {text!r:.60}.")
