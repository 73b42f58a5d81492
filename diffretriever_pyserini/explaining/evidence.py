"""The parts of the scores: proposals at mask positions, inner products of vectors, terms in both texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import scoring
from ..model.layout import special_ids
from ..model.method import kept_positions, pool
from .records import Interaction, MaskPosition, Overlap, Proposal, Term, TextView

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever
    from ..model.tokenization import Prepared

_ALIKE = 0.95  # cosine from which two mask positions say the same


def proposes(model: DiffRetriever) -> bool:
    """Whether the head's strongest tokens say something: not if it was trained on the words of its texts only.

    That is so where the terms are stems, each the one trained row for all forms of a word, and where the base came
    without a head; never where the terms are the whole vocabulary.
    """
    terms = model.config.lexical_terms
    return terms == "vocabulary" or (terms == "content" and not model.reader.backbone.missing_head)


def view_texts(model: DiffRetriever, texts: Sequence[str], prepared: Prepared, top: int) -> list[TextView]:
    """Each text, ``prepared`` for its side, with its K mask positions and the ``top`` strongest proposals at each."""
    budget = prepared.layout.text_budget
    views = []
    for i, text in enumerate(texts):
        positions = _positions(model, prepared, i, top) if model.reader.has_terms and proposes(model) else ()
        views.append(TextView(text, len(prepared.ids[i]), len(prepared.ids[i]) >= budget, positions))
    return views


def _positions(model: DiffRetriever, prepared: Prepared, number: int, top: int) -> tuple[MaskPosition, ...]:
    """The K positions of text ``number``."""
    content = None if prepared.content is None else prepared.content[number]  # the head's rows; None is every row
    _, outputs, read = model.reader.read(prepared, [number])
    if read is None and model.config.cut_at_stop:
        read = kept_positions(outputs.argmax(dim=2), model.reader.stop_ids)
    logits = outputs[0].float().cpu().numpy()
    kept = len(logits) if read is None else int(read.sum())
    special = special_ids(model.tokenizer)
    own_rows = None if content is None else frozenset(content.tolist())
    positions = []
    for number, row in enumerate(logits):
        exponentials = np.exp(row - row.max())
        probabilities, weights = exponentials / exponentials.sum(), np.log1p(np.maximum(row, 0))

        def proposal(term: int, probabilities: np.ndarray = probabilities, weights: np.ndarray = weights) -> Proposal:
            return Proposal(
                model.term_names.name(term),
                shown_row(model, term),
                float(probabilities[term]),
                float(weights[term]),
                term not in special if own_rows is None else term in own_rows,
                term in special,
            )

        best = np.argsort(-row, kind="stable")[:top].tolist()
        best_own = [] if content is None else content[np.argsort(-row[content], kind="stable")][:top].tolist()
        own = tuple(one for one in map(proposal, best_own) if one.weight > 0)
        positions.append(MaskPosition(tuple(map(proposal, best)), own, number < kept))
    return tuple(positions)


def shown_row(model: DiffRetriever, row: int) -> str:
    """Head row ``row`` in readable form: decoded, or the vocabulary's own string where that is clearer."""
    name = model.term_names.name(row)
    if row >= len(model.tokenizer):
        return name
    text = model.tokenizer.decode([row])
    return name if not text.strip() or "\ufffd" in text else text


def words_by_row(model: DiffRetriever, text: str) -> dict[int, tuple[str, ...]]:
    """Head rows of the terms of ``text``, with the words that each is, or is a piece or the stem of, in order."""
    words: dict[int, list[str]] = {}
    for word, rows in model.prepare.content.by_word(text).items():
        for row in rows:
            words.setdefault(row, []).append(word)
    return {row: tuple(of_row) for row, of_row in words.items()}


@dataclass(frozen=True)
class Wording:
    """Names terms for readers, by :func:`words_by_row` of ``query`` and ``passage``; empty for an unknown text."""

    model: DiffRetriever
    query: Mapping[int, tuple[str, ...]]
    passage: Mapping[int, tuple[str, ...]]

    def term(self, name: str, query: int, passage: int) -> Term:
        """The record of the term ``name`` with its impacts; 0 where a text lacks it."""
        row = self.model.term_names.row(name)
        words = self.query.get(row, ()) if query else (), self.passage.get(row, ()) if passage else ()
        return Term(name, shown_row(self.model, row), query, passage, *words)

    def factors(self, prepared: Prepared, terms: Collection[str]) -> dict[str, float]:
        """Factors of term frequency, by words, of those terms of the only ``prepared`` text that are in ``terms``."""
        if prepared.content is None or prepared.factors is None:
            return {}
        words = self.query if prepared.side == "query" else self.passage
        pairs = zip(prepared.content[0].tolist(), prepared.factors[0].tolist(), strict=True)
        return {" and ".join(words[row]): factor for row, factor in pairs if self.model.term_names.name(row) in terms}


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
        alike_query=alike(query),
        alike_passage=alike(passage),
        score=float(scoring.maxsim(query[None], passage[None])[0, 0]),
        pooled=float(scoring.pooled_scores(pool(query[None]), pool(passage[None]))[0, 0]),
    )


def alike(vectors: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Positions of ``vectors`` [K, H] in groups that say the same: of a cosine of at least 0.95 with the group's first.

    Zero vectors are one group.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    empty = ~vectors.any(axis=1)
    same = (unit @ unit.T >= _ALIKE) | (empty[:, None] & empty)
    groups: dict[int, list[int]] = {}
    for i in range(len(vectors)):
        first = next((first for first in groups if same[first, i]), i)
        groups.setdefault(first, []).append(i)
    return tuple(map(tuple, groups.values()))


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
    record: Callable[[str, int, int], Term],
    top: int,
    whole: bool = True,
) -> Overlap:
    """Impacts of query and passage by term; ``whole`` is False where ``passage`` has only the query's terms.

    ``record`` makes the record of a term and its two impacts.
    """

    def terms(chosen: set[str]) -> list[Term]:
        records = [record(term, query.get(term, 0), passage.get(term, 0)) for term in chosen]
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
