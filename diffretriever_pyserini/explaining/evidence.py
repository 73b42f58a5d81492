"""The parts of the scores: proposals at mask positions, inner products of vectors, terms in both texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import scoring
from ..model.layout import special_ids
from ..model.method import pool
from ..model.nltk_parts import porter_stemmer
from .records import Interaction, MaskPosition, Overlap, Proposal, Term, TextView

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever
    from ..model.tokenization import Prepared


def view_texts(model: DiffRetriever, texts: Sequence[str], prepared: Prepared, top: int) -> list[TextView]:
    """Each text, ``prepared`` for its side, with its K mask positions and the ``top`` strongest proposals at each."""
    budget = prepared.layout.text_budget
    views = []
    for i, text in enumerate(texts):
        positions = _positions(model, prepared, i, top) if model.reader.has_terms else ()
        views.append(TextView(text, len(prepared.ids[i]), len(prepared.ids[i]) >= budget, positions))
    return views


def _positions(model: DiffRetriever, prepared: Prepared, number: int, top: int) -> tuple[MaskPosition, ...]:
    """The K positions of text ``number``."""
    from ..model.method import kept_positions

    content = None if prepared.content is None else prepared.content[number]  # the head's rows; None is every row
    _, outputs, read = model.reader.read(prepared, [number])
    if read is None and model.config.cut_at_stop:
        read = kept_positions(outputs.argmax(dim=2), model.reader.stop_ids)
    logits = outputs[0].float().cpu().numpy()
    kept = len(logits) if read is None else int(read.sum())
    proposals = _Proposals(model, content)
    positions = []
    for number, row in enumerate(logits):
        largest = row.max()
        scale = np.exp(row - largest).sum()

        def proposal(term: int, row: np.ndarray = row, largest: float = largest, scale: float = scale) -> Proposal:
            probability = float(np.exp(row[term] - largest) / scale)
            return proposals.make(term, probability, float(np.log1p(max(float(row[term]), 0.0))))

        best = np.argsort(-row, kind="stable")[:top].tolist()
        best_own = [] if content is None else content[np.argsort(-row[content], kind="stable")][:top].tolist()
        own = tuple(one for one in map(proposal, best_own) if one.weight > 0)
        positions.append(MaskPosition(tuple(map(proposal, best)), own, number < kept))
    return tuple(positions)


class _Proposals:
    """Makes proposals of head rows: their names, and whether they stand for words of the text."""

    def __init__(self, model: DiffRetriever, content: np.ndarray | None):
        self._model = model
        self._special = special_ids(model.tokenizer)
        self._stem = porter_stemmer() if model.config.lexical_terms == "stems" else None
        self._own = None if content is None else frozenset(content.tolist())
        # All forms of a word count through the one row of their stem.
        self._own_stems = frozenset(stem for row in self._own or () if (stem := self._stem_of(row)) is not None)

    def make(self, row: int, probability: float, weight: float) -> Proposal:
        term = self._model.term_names.name(row)
        shown, stem, special = shown_row(self._model, row), self._stem_of(row), row in self._special
        own = not special if self._own is None else row in self._own or stem in self._own_stems
        return Proposal(term, shown, stem if stem != shown else None, probability, weight, own, special)

    def _stem_of(self, row: int) -> str | None:
        name = self._model.term_names.name(row)
        if self._stem is None or len(name) < 3 or not (name.isascii() and name.isalpha() and name.islower()):
            return None
        return self._stem(name)


def shown_row(model: DiffRetriever, row: int) -> str:
    """Head row ``row`` in readable form: decoded, or the vocabulary's own string where that is clearer."""
    name = model.term_names.name(row)
    if row >= len(model.tokenizer):
        return name
    text = model.tokenizer.decode([row])
    return name if not text.strip() or "\ufffd" in text else text


def shown_term(model: DiffRetriever, term: str) -> str:
    """:func:`shown_row` of a Lucene term."""
    return shown_row(model, model.term_names.row(term))


def term_factors(model: DiffRetriever, prepared: Prepared, terms: Mapping[str, int]) -> dict[str, float]:
    """Factors of term frequency of the only ``prepared`` text's terms that are among ``terms``, in readable form."""
    if prepared.content is None or prepared.factors is None:
        return {}
    names = ((model.term_names.name(row), row) for row in prepared.content[0].tolist())
    pairs = zip(names, prepared.factors[0].tolist(), strict=True)
    return {shown_row(model, row): factor for (name, row), factor in pairs if name in terms}


def interaction(query: np.ndarray, passage: np.ndarray) -> Interaction:
    """``query`` [K_q, H] against ``passage`` [K_p, H]."""
    query, passage = query.astype(np.float32), passage.astype(np.float32)
    cells = query @ passage.T
    no_query, no_passage = ~query.any(axis=1), ~passage.any(axis=1)
    largest = np.where(no_passage[None, :], -np.inf, cells).argmax(axis=1)
    gains = np.maximum(cells.max(axis=1), 0)
    return Interaction(
        cells=tuple(map(tuple, cells.tolist())),
        best=tuple(int(j) if gain > 0 else None for j, gain in zip(largest, gains, strict=True)),
        gains=tuple(gains.tolist()),
        empty_query=tuple(no_query.tolist()),
        empty_passage=tuple(no_passage.tolist()),
        score=float(scoring.maxsim(query[None], passage[None])[0, 0]),
        pooled=float(scoring.pooled_scores(pool(query[None]), pool(passage[None]))[0, 0]),
    )


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float | None:
    """Mean cosine of two passages' vectors [K, H] over the positions where neither is zero; None if there is none."""
    if first.shape != second.shape:
        return None
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    nonzero = lengths > 0
    if not nonzero.any():
        return None
    return float(((first * second).sum(axis=1)[nonzero] / lengths[nonzero]).mean())


def overlap(
    query: Mapping[str, int],
    passage: Mapping[str, int],
    shown: Callable[[str], str],
    top: int,
    whole: bool = True,
) -> Overlap:
    """Impacts of query and passage by term; ``whole`` is False where ``passage`` has only the query's terms."""

    def terms(chosen: set[str]) -> list[Term]:
        records = [Term(term, shown(term), query.get(term, 0), passage.get(term, 0)) for term in chosen]
        return sorted(records, key=lambda record: (-record.share, -record.query, -record.passage, record.term))

    matched = {term for term, impact in passage.items() if impact > 0 and term in query}
    others = _strongest(set(passage) - matched, passage, top) if whole else None
    return Overlap(
        matched=tuple(terms(matched)),
        query_only=tuple(terms(_strongest(set(query) - matched, query, top))),
        passage_only=None if others is None else tuple(terms(others)),
        query_terms=len(query),
        passage_terms=len(passage) if whole else None,
    )


def _strongest(terms: set[str], impacts: Mapping[str, int], top: int) -> set[str]:
    """The ``top`` of ``terms`` by impact."""
    return set(sorted(terms, key=lambda term: (-impacts[term], term))[:top])
