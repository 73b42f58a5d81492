"""What the model proposes at each mask place of a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .explanation import Place, Proposal, TextView

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever
    from ..model.tokenization import Prepared


def view_texts(model: DiffRetriever, texts: Sequence[str], prepared: Prepared, top: int) -> list[TextView]:
    """Each text, ``prepared`` for its side, with its K places and the ``top`` strongest proposals at each."""
    budget = prepared.layout.text_budget
    views = []
    for i, text in enumerate(texts):
        own = None if prepared.content is None else prepared.content[i]
        _, logits = model.reader.read(prepared, [i])
        places = _places(model, logits[0].float().cpu().numpy(), own, top)
        views.append(TextView(text, len(prepared.ids[i]), len(prepared.ids[i]) >= budget, places))
    return views


def _places(model: DiffRetriever, logits: np.ndarray, own: np.ndarray | None, top: int) -> tuple[Place, ...]:
    """``logits`` [K, V]; ``own`` are the rows of the text's terms, None where all are."""
    from ..model.method import kept_positions

    kept = len(logits)
    if model.config.cut_at_stop:
        import torch

        kept = int(kept_positions(torch.from_numpy(logits.argmax(axis=1))[None], model.reader.stop_ids).sum())
    names = _Names(model, own)
    found = []
    for number, row in enumerate(logits):
        largest = row.max()
        scale = np.exp(row - largest).sum()

        def proposal(place: int, row: np.ndarray = row, largest: float = largest, scale: float = scale) -> Proposal:
            probability = float(np.exp(row[place] - largest) / scale)
            return names.proposal(place, probability, float(np.log1p(max(float(row[place]), 0.0))))

        best = np.argsort(-row, kind="stable")[:top].tolist()
        mine = [] if own is None else own[np.argsort(-row[own], kind="stable")][:top].tolist()
        of_text = tuple(one for one in map(proposal, mine) if one.weight > 0)
        found.append(Place(tuple(map(proposal, best)), of_text, number < kept))
    return tuple(found)


class _Names:
    """How rows of the head are called, and which stand for words of the text."""

    def __init__(self, model: DiffRetriever, own: np.ndarray | None):
        self._model = model
        self._special = frozenset(model.tokenizer.all_special_ids)
        self._stem: Callable[[str], str] | None = None
        if model.config.lexical_terms == "stems":
            from nltk.stem.porter import PorterStemmer

            self._stem = PorterStemmer().stem
        self._own = None if own is None else frozenset(own.tolist())
        # A stem has one row, so another form of the word counts through that.
        self._own_stems = frozenset(stem for row in self._own or () if (stem := self._stem_of(row)) is not None)

    def proposal(self, row: int, probability: float, weight: float) -> Proposal:
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
    """Head row ``row`` as a person reads it: decoded, or the vocabulary's own string where that says more."""
    name = model.term_names.name(row)
    if row >= len(model.tokenizer):
        return name
    text = model.tokenizer.decode([row])
    return name if not text.strip() or "\ufffd" in text else text


def shown_term(model: DiffRetriever, term: str) -> str:
    """:func:`shown_row` of a Lucene term."""
    return shown_row(model, model.term_names.row(term))
