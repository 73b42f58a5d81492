"""A2D and LLaDA-MoE, which the published implementation lacks, against their own public code with its layout."""

from __future__ import annotations

import numpy as np
import pytest

from .conftest import Goldens, side_and_k

MODELS = ("tiny-a2d-qwen3", "tiny-a2d-qwen2", "tiny-llada-moe")


@pytest.mark.parametrize("model", MODELS)
def test_layout_states_and_vectors(goldens: Goldens, model: str) -> None:
    """Every recorded side, K and length: ids exactly, unit vectors within 1e-5."""
    facts, case = goldens.facts(f"{model}.tokenisation"), goldens.case(f"{model}.encode")
    settings = sorted({key.rpartition("/")[0] for key in case})
    assert len(settings) >= 5
    for setting in settings:
        key, _, length = setting.partition("/ml")
        side, k = side_and_k(key)
        retriever = goldens.model(model, key, max_length=int(length), cut_at_stop=False)
        layout, expected = retriever.layout(side), facts["sides"][key]
        assert list(layout.prefix) == expected["prefix_ids"]
        assert list(layout.suffix) == expected["suffix_ids"]
        assert list(layout.tail) == expected["tail_ids"]
        assert (layout.mask_id, layout.pad_id) == (facts["mask_token_id"], expected["pad_token_id"])
        assert layout.text_budget == expected["budgets"][length]["max_text_tokens"]
        prepared = retriever.prepare(goldens.texts, side)
        ids, mask = case[f"{setting}/input_ids"], case[f"{setting}/attention_mask"]
        assert all(
            layout.assemble(text.tolist()) == row[kept == 1].tolist()
            for text, row, kept in zip(list(prepared.ids), ids, mask, strict=True)
        )
        raw = retriever.forward_masks(goldens.texts, side=side)
        np.testing.assert_allclose(raw.hidden, case[f"{setting}/hidden_raw"][:, 1:], atol=1e-4)
        if f"{setting}/mask_logits" in case:
            np.testing.assert_allclose(raw.logits, case[f"{setting}/mask_logits"], atol=1e-4)
        vectors = retriever.encode(goldens.texts, side=side).vectors
        assert vectors.shape == (12, k, retriever.dimension)
        np.testing.assert_allclose(vectors, case[f"{setting}/repr_hidden"], atol=1e-5)
