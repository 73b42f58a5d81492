"""Proposals compared with the model's logits and impacts, the interaction matrix, and terms in both texts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffretriever_pyserini import DiffRetriever, scoring
from diffretriever_pyserini.explaining.evidence import (
    Wording,
    alike,
    interaction,
    mean_cosine,
    overlap,
    proposes,
    view_texts,
    words_by_row,
)
from diffretriever_pyserini.explaining.records import Term

from .conftest import PASSAGES


@pytest.fixture(scope="module")
def model(encoder: str) -> DiffRetriever:
    return DiffRetriever.from_pretrained(encoder, k_passage=3)


def test_proposals_are_the_largest_logits(model: DiffRetriever) -> None:
    texts = list(PASSAGES.values())
    logits = model.forward_masks(texts, side="passage").logits
    for text, rows, view in zip(
        texts, logits, view_texts(model, texts, model.prepare(texts, "passage"), 4), strict=True
    ):
        assert view.text == text
        for row, position in zip(rows.astype(np.float64), view.positions, strict=True):
            order = np.argsort(-row, kind="stable")[:4]
            softmax = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert [one.term for one in position.proposals] == [model.term_names.name(i) for i in order]
            assert [one.probability for one in position.proposals] == pytest.approx(softmax[order], rel=1e-3)
            assert [one.weight for one in position.proposals] == pytest.approx(np.log1p(np.maximum(row[order], 0)))
            assert all(
                one.special is (order[i] in model.tokenizer.all_special_ids) for i, one in enumerate(position.proposals)
            )


def test_impacts_are_the_best_own_weights_of_the_kept_positions(model: DiffRetriever) -> None:
    texts = list(PASSAGES.values())
    for impacts, view in zip(
        model.encode(texts, side="passage").impacts,
        view_texts(model, texts, model.prepare(texts, "passage"), 1000),
        strict=True,
    ):
        best: dict[str, float] = {}
        for position in view.positions:
            for one in position.own if position.kept else ():
                assert one.own
                best[one.term] = max(best.get(one.term, 0.0), one.weight)
        scaled = {term: int(weight * model.config.impact_scale + 1e-4) for term, weight in best.items()}
        assert {term: weight for term, weight in scaled.items() if weight} == impacts


def test_how_much_of_a_text_is_read(model: DiffRetriever) -> None:
    texts = ["dense", "", "word " * 5000]
    short, nothing, long = view_texts(model, texts, model.prepare(texts, "query"), 1)
    assert (short.tokens, short.full) == (1, False)
    assert (nothing.tokens, nothing.full) == (0, False)
    assert (long.tokens, long.full) == (model.layout("query").text_budget, True)


def test_the_default_model_has_words_of_the_text_and_no_proposals() -> None:
    model = DiffRetriever.from_pretrained("diffretriever")
    texts = ["plants and computing", "Computers, a planted computer and statins"]
    wording = Wording(model, *(words_by_row(model, text) for text in texts))
    plant, comput, piece = (wording.term(name, 1, 1) for name in ("plant", "computer", "##ins"))
    assert (plant.query_words, plant.passage_words) == (("plants",), ("planted",))
    assert (comput.shown, comput.query_words, comput.passage_words) == (
        "computer",
        ("computing",),
        ("computers", "computer"),
    )
    assert (piece.query_words, piece.passage_words) == ((), ("statins",))
    assert wording.term("plant", 1, 0).passage_words == ()
    assert not proposes(model)  # its head was trained on such rows only
    views = view_texts(model, texts, model.prepare(texts, "query"), 5)
    assert [(view.tokens, view.positions) for view in views] == [(3, ()), (8, ())]


def test_only_a_head_that_knows_other_words_proposes(encoder: str) -> None:
    def with_terms(name: str, terms: str) -> bool:
        return proposes(DiffRetriever.from_pretrained(name, lexical_terms=terms))

    assert [with_terms(encoder, terms) for terms in ("content", "stems", "vocabulary")] == [True, False, True]
    # The default model's base is a sentence encoder, which has no head.
    assert not with_terms("diffretriever", "content")


@given(st.data())
def test_rows_add_up_to_maxsim(data: st.DataObject) -> None:
    numbers = st.floats(-1, 1, width=32)
    query = data.draw(arrays(np.float32, (data.draw(st.integers(1, 4)), 3), elements=numbers))
    passage = data.draw(arrays(np.float32, (data.draw(st.integers(1, 5)), 3), elements=numbers))
    pairs = interaction(query, passage)
    assert pairs.score == pytest.approx(float(scoring.maxsim(query[None], passage[None])[0, 0]), abs=1e-5)
    assert sum(pairs.gains) == pytest.approx(pairs.score, abs=1e-5)
    for i, (best, gain) in enumerate(zip(pairs.best, pairs.gains, strict=True)):
        if best is None:
            assert gain == 0
        else:
            assert pairs.cells[i][best] == gain == max(pairs.cells[i])
            assert not pairs.empty_query[i] and not pairs.empty_passage[best]


def test_empty_vectors_add_nothing() -> None:
    pairs = interaction(np.array([[1.0, 0], [0, 0]]), np.array([[0.0, 0], [-1, 0], [0.5, 0]]))
    assert (pairs.best, pairs.gains) == ((2, None), (0.5, 0.0))
    assert (pairs.empty_query, pairs.empty_passage) == ((False, True), (True, False, False))
    below = interaction(np.array([[1.0, 0]]), np.array([[0.0, 0], [-1, 0]]))
    assert (below.best, below.gains, below.score) == ((None,), (0.0,), 0.0)


def test_positions_that_say_the_same() -> None:
    near, far = [0.97, 0.2], [0.9, 0.4]  # cosines with [1, 0]: 0.98, 0.91
    vectors = np.array([[1.0, 0], [0, 0], near, [0, 1], far, [0, 0], [2, 0.1]])
    assert alike(vectors) == ((0, 2, 6), (1, 5), (3,), (4,))
    assert alike(np.array([[0.0, 0.0]])) == ((0,),)


def test_mean_cosine_skips_zero_vectors() -> None:
    first, second = np.array([[1.0, 0], [0, 0]]), np.array([[2.0, 0], [0, 3]])
    assert mean_cosine(first, second) == 1
    assert mean_cosine(first, second[:1]) is None and mean_cosine(first[1:], second[1:]) is None


def test_terms_are_ordered_by_what_they_add() -> None:
    query, passage = {"a": 3, "b": 5, "c": 9, "d": 1}, {"b": 2, "a": 4, "x": 7, "y": 8, "z": 1}
    terms = overlap(query, passage, lambda term, *impacts: Term(term, term.upper(), *impacts), top=2)
    assert [(t.term, t.shown, t.share) for t in terms.matched] == [("a", "A", 12), ("b", "B", 10)]
    assert terms.score == 22
    assert [t.term for t in terms.query_only] == ["c", "d"]
    assert terms.passage_only is not None and [t.term for t in terms.passage_only] == ["y", "x"]
    assert (terms.query_terms, terms.passage_terms) == (4, 5)
    assert overlap(query, passage, partial(Term, "x"), top=2, whole=False).passage_only is None
