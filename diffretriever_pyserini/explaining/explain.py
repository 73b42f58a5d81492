"""Explain the rank of passages for a query, from the index and the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..model.lexical import LUCENE_CLAUSES, strongest
from ..model.resolve import resolve_config
from ..model.tokenization import Preparer
from ..runtime import java
from ..scoring.fusion import RankedList, fuse_lists
from ..searching.index import SearchIndex
from ..searching.options import BM25, SearchOptions
from ..settings import Count, parsed
from .evidence import Wording, interaction, mean_cosine, overlap, view_texts, words_by_row
from .ranking import ranked_entries
from .records import Explanation, RankedEntry, TextView

if TYPE_CHECKING:
    from ..model.representations import QueryRepresentation

_QID = "query"
_SAME_TEXT = 0.5  # cosine; compressed vectors of the same text are far above, those of another text mostly below
_FIELD = "contents"  # of a Lucene impact index


def explain(
    index: SearchIndex,
    query: str,
    docids: Sequence[str] | int = 3,
    texts: Mapping[str, str] | Callable[[Sequence[str]], Mapping[str, str]] | None = None,
    mode: str | None = None,
    options: SearchOptions | None = None,
    top: int = 5,
) -> list[Explanation]:
    """Explain why passages have their ranks in the result of ``query``.

    Parameters
    ----------
    index : open; its model encodes the query and the texts.
    query : one query.
    docids : the passages to explain; a number N stands for the first N of the result.
    texts : docid → text of the passages whose text is known (title and text joined by one space), or a function that
        returns them for docids.
    mode, options : those of the search that is explained; see ``SearchIndex`` and ``SearchOptions``.
    top : number of tokens to show per mask position; twice as many terms that only one of the texts has.

    Raises
    ------
    InputError
        For a passage that is not in the index, and for options that contradict each other.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, build_index, encode_corpus, explain, open_index
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> facts = build_index("store", "index")
    >>> with open_index("index") as index:
    ...     why = explain(index, "where is Paris", ["p2"], {"p2": "Paris is in France."})
    >>> why[0].result.rank
    1
    """
    options = options or SearchOptions()
    _check(docids, options, top)
    mode = index.mode(mode)
    signals = index.folder.signals(mode)
    if signals == (BM25,):
        raise InputError(f"mode {BM25} alone uses no model, so there is nothing to explain: add a signal of the model.")
    index.open(mode)
    options.check_signals(mode, signals)
    fused = fuse_lists(_lists(index, query, signals, options), options.fusion, options.rrf_k)
    if isinstance(docids, int):
        docids = [docid for docid, _ in fused.hits[: options.hits][:docids]]
    docids = list(dict.fromkeys(docids))
    texts = texts(docids) if callable(texts) else texts or {}
    entries = ranked_entries(mode, fused, options, docids)
    explained = _ExplainedQuery(index, query, signals, top)
    try:
        return [explained.about(docid, texts.get(docid), entry) for docid, entry in zip(docids, entries, strict=True)]
    finally:
        explained.close()


def _check(docids: Sequence[str] | int, options: SearchOptions, top: int) -> None:
    for name, value in (("top", top), ("docids", docids)):
        if isinstance(value, int):
            parsed(value, Count, InputError, name)
    if options.remove_query:
        raise InputError("an explained query has no id, so remove_query has no effect: leave it out.")


def _lists(index: SearchIndex, query: str, signals: Sequence[str], options: SearchOptions) -> list[RankedList]:
    """The lists that are fused: each signal is searched alone, with as many hits as are fused."""
    single = {"hits": options.listed(len(signals)), "batch_size": options.batch_size, "threads": options.threads}
    scores = {signal: dict(index.search({_QID: query}, mode=signal, **single)[_QID]) for signal in signals}
    return index.ranked_lists(scores, options)


class _ExplainedQuery:
    """One query on one index; explains passages."""

    def __init__(self, index: SearchIndex, query: str, signals: Sequence[str], top: int):
        self._index, self._model, self._signals, self._top = index, index.model, signals, top
        self._query: QueryRepresentation = index.model.encode_queries_cached([query])[0]
        self._terms = strongest(self._query.impacts, LUCENE_CLAUSES)
        prepared = index.model.prepare([query], "query")
        self._view: TextView = view_texts(index.model, [query], prepared, top)[0]
        self._words = words_by_row(index.model, query)
        factors = Wording(index.model, self._words, {}).factors(prepared, self._terms)
        self._frequencies = tuple(_frequencies("query", factors))
        folders = index.folder.folders("lexical") if "lexical" in signals else ()
        self._postings = [_Postings(path) for path in folders]

    @cached_property
    def _prepare(self) -> Preparer:
        """Prepares passages as for the index, even where a shorter ``max_length`` was set for queries."""
        model, encoder = self._model, self._index.encoder
        assert encoder is not None  # else there would be no model
        config = resolve_config(str(encoder.name.target), k_passage=model.config.k_passage)
        return model.prepare if config.max_length == model.config.max_length else Preparer(config)

    def close(self) -> None:
        """Close Lucene's files."""
        for postings in self._postings:
            postings.close()

    def about(self, docid: str, text: str | None, result: RankedEntry) -> Explanation:
        """The explanation of one passage."""
        vectors, dense, impacts = self._indexed(docid)
        absent = vectors is None and dense is None and impacts is None
        lexical_only = self._signals == ("lexical",)
        if absent and (text is None or not lexical_only):
            hint = " (or it has no terms: Lucene holds only passages that have some)" if lexical_only else ""
            raise InputError(
                f"{self._index.folder.name} holds no passage {docid!r}{hint}: give the id as in the corpus and in runs."
            )
        wording = Wording(self._model, self._words, {} if text is None else words_by_row(self._model, text))
        explanation = Explanation(
            index=self._index.folder.name,
            encoder=self._model.config.name,
            docid=docid,
            query=self._view,
            passage=None,
            vectors=None,
            indexed_vectors=None if vectors is None else interaction(self._query.vectors, vectors),
            similarity=None,
            dense=None if dense is None else float(self._query.vector @ dense),
            terms=None,
            indexed_terms=None
            if not self._postings
            else overlap(self._terms, impacts or {}, wording.term, 2 * self._top, whole=False),
            lucene_document=impacts is not None if self._postings else None,
            frequencies=self._frequencies,
            result=result,
            notes=(),
        )
        if text is not None:
            explanation = self._with_text(explanation, text, wording, vectors)
        return dataclasses.replace(explanation, notes=tuple(self._notes(explanation)))

    def _indexed(self, docid: str) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, int] | None]:
        """The index's vectors [K, H], pooled vector [H] and impacts of the query's terms; None for each it lacks."""
        vectors = dense = impacts = None
        if "multi" in self._signals:
            vectors = self._index.searcher("multi").vectors(docid)
        if "dense" in self._signals:
            pooled = self._index.searcher("dense").vectors(docid)
            dense = None if pooled is None else pooled[0]
        for postings in self._postings:
            if (impacts := postings.impacts(docid, self._terms)) is not None:
                break  # the other shards do not hold it
        return vectors, dense, impacts

    def _with_text(
        self, explanation: Explanation, text: str, wording: Wording, indexed: np.ndarray | None
    ) -> Explanation:
        model = self._model
        prepared = self._prepare([text], "passage", self._index.folder.max_length)
        fresh = model.represent(prepared)
        return dataclasses.replace(
            explanation,
            passage=view_texts(model, [text], prepared, self._top)[0],
            vectors=interaction(self._query.vectors, fresh.vectors[0]),
            similarity=None if indexed is None else mean_cosine(fresh.vectors[0], indexed),
            terms=overlap(self._terms, fresh.impacts[0], wording.term, 2 * self._top),
            frequencies=(*self._frequencies, *_frequencies("passage", wording.factors(prepared, self._terms))),
        )

    def _notes(self, explanation: Explanation) -> list[str]:
        notes = []
        dropped = len(self._query.impacts) - len(self._terms)
        if dropped:
            notes.append(f"{dropped} of the query's terms are left out: Lucene takes at most {LUCENE_CLAUSES}.")
        if explanation.passage is None:
            notes.append(
                "The passage's text is not known, and the index has no texts. Its words, its exact scores and its "
                "other terms are therefore missing. Give the corpus with --corpus, or the text with --text."
            )
        if explanation.lucene_document is False:
            notes.append("The lexical index does not hold this passage: it has no terms, so its lexical score is 0.")
        if explanation.terms is not None and explanation.indexed_terms is not None and not _same_impacts(explanation):
            notes.append(
                "The text has other impacts than the index: is it the text that was encoded, with the same "
                "--max-length and precision?"
            )
        elif explanation.similarity is not None and explanation.similarity < _SAME_TEXT:
            notes.append(
                f"The text's vectors differ from those in the index (mean cosine {explanation.similarity:.3f}): is it "
                "the text that was encoded?"
            )
        return notes


def _frequencies(whose: str, factors: dict[str, float]) -> Iterator[str]:
    """The factors other than 1 by which term frequency has changed the weights, in a sentence."""
    changed = [f"{words} {factor:.2f}" for words, factor in factors.items() if round(factor, 2) != 1]
    if changed:
        yield f"Term frequency multiplies these weights of the {whose}: {', '.join(changed)} (lexical_tf)."


def _same_impacts(explanation: Explanation) -> bool:
    """Whether text and index give the matching terms the same impacts, up to rounding."""
    assert explanation.terms is not None and explanation.indexed_terms is not None
    fresh = {term.term: term.passage for term in explanation.terms.matched}
    indexed = {term.term: term.passage for term in explanation.indexed_terms.matched}
    return all(abs(fresh.get(term, 0) - indexed.get(term, 0)) <= 1 for term in fresh | indexed)


class _Postings:
    """Reads the postings of a Lucene impact index term by term; close it after use."""

    def __init__(self, folder: Path):
        java.check_process()
        java.prepare()
        from pyserini.index.lucene import LuceneIndexReader
        from pyserini.pyclass import autoclass

        with java.calls:
            self._index: Any = LuceneIndexReader(str(folder.absolute()))
        self._terms = autoclass("org.apache.lucene.index.MultiTerms")
        self._bytes = autoclass("org.apache.lucene.util.BytesRef")

    def impacts(self, docid: str, terms: Iterable[str]) -> dict[str, int] | None:
        """Impacts of the ``terms`` that the passage has; None where the passage is not in the index."""
        java.check_process()
        with java.calls:
            number = self._index.convert_collection_docid_to_internal_docid(docid)
            if number < 0:
                return None
            impacts = {}
            for term in terms:
                postings = self._terms.getTermPostingsEnum(self._index.reader, _FIELD, self._bytes(term.encode()))
                if postings is not None and postings.advance(number) == number:
                    impacts[term] = int(postings.freq())
            return impacts

    def close(self) -> None:
        """Close Lucene's files."""
        with java.calls:
            self._index.reader.close()
