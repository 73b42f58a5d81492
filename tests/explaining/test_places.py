"""Proposals at the mask places against the model's own logits and impacts."""

from __future__ import annotations

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.explaining.places import shown_term, view_texts

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
        for row, place in zip(rows.astype(np.float64), view.places, strict=True):
            order = np.argsort(-row, kind="stable")[:4]
            softmax = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            assert [one.term for one in place.proposals] == [model.term_names.name(i) for i in order]
            assert [one.probability for one in place.proposals] == pytest.approx(softmax[order], rel=1e-3)
            assert [one.weight for one in place.proposals] == pytest.approx(np.log1p(np.maximum(row[order], 0)))
            assert all(
                one.special is (order[i] in model.tokenizer.all_special_ids) for i, one in enumerate(place.proposals)
            )


def test_impacts_are_the_best_own_weights_of_the_kept_places(model: DiffRetriever) -> None:
    texts = list(PASSAGES.values())
    for impacts, view in zip(
        model.encode(texts, side="passage").impacts,
        view_texts(model, texts, model.prepare(texts, "passage"), 1000),
        strict=True,
    ):
        best: dict[str, float] = {}
        for place in view.places:
            for one in place.own if place.kept else ():
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


def test_the_default_model_names_stems() -> None:
    model = DiffRetriever.from_pretrained("diffretriever")
    texts = ["plants and computing"]
    [view] = view_texts(model, texts, model.prepare(texts, "query"), 2000)
    of_text = {one.shown for place in view.places for one in place.own}
    assert of_text == {"plant", "computer"}  # the rows of these stems
    shown = {one.shown: one for place in view.places for one in (*place.proposals, *place.own)}
    assert shown["computer"].stem == "comput" and shown["plant"].stem is None
    assert all(one.own for word, one in shown.items() if word in ("planted", "computers", "computing", "plants"))
    assert any(word in shown for word in ("planted", "computers", "computing", "plants"))
    assert not shown["computer"].special and shown_term(model, "plant") == "plant"
