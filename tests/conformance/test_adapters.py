"""Released adapter folders: their own ids, K and max_length, and merged LoRA, also on LLaDA's output head."""

from __future__ import annotations

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever

from .conftest import Goldens, dense_rows, side_and_k
from .test_encoding import assert_impacts

ADAPTERS = ("tiny-dream-adapter", "tiny-dream-adapter-single", "tiny-llada-adapter")


@pytest.fixture(scope="module", params=ADAPTERS)
def adapter(request: pytest.FixtureRequest, goldens: Goldens) -> tuple[str, DiffRetriever]:
    return request.param, DiffRetriever.from_pretrained(goldens.folder / "checkpoints" / request.param)


def test_released_settings(adapter: tuple[str, DiffRetriever]) -> None:
    name, retriever = adapter
    config = retriever.config
    assert (config.k_query, config.k_passage) == ((1, 1) if "single" in name else (4, 16))
    assert (config.max_length, config.n_tail, config.cut_at_stop) == (128, 3, False)
    assert (config.impact_rounding, config.denoising_schedule) == ("nearest", "trained")


def test_encoding(goldens: Goldens, adapter: tuple[str, DiffRetriever]) -> None:
    name, retriever = adapter
    case = goldens.case(f"{name}.encode")
    for key in ("q_k1", "p_k1") if "single" in name else ("q_k4", "p_k16"):
        side, _ = side_and_k(key)
        prefix = f"{key}/ml128"
        np.testing.assert_allclose(
            retriever.forward_masks(goldens.texts, side=side).hidden, case[f"{prefix}/hidden_raw"][:, 1:], atol=1e-4
        )
        reps = retriever.encode(goldens.texts, side=side)
        np.testing.assert_allclose(reps.vectors, case[f"{prefix}/repr_hidden"], atol=1e-5)
        filtered = dense_rows(
            case[f"{prefix}/sparse_acts_filtered_indices"],
            case[f"{prefix}/sparse_acts_filtered_values"],
            retriever.vocab_size,
        )
        assert_impacts(reps, filtered)


def test_backbone_override(goldens: Goldens) -> None:
    checkpoints = goldens.folder / "checkpoints"
    retriever = DiffRetriever.from_pretrained(
        checkpoints / "tiny-llada-adapter", backbone=str(checkpoints / "tiny-llada")
    )
    np.testing.assert_allclose(
        retriever.encode(goldens.texts, side="query").vectors,
        goldens.case("tiny-llada-adapter.encode")["q_k4/ml128/repr_hidden"],
        atol=1e-5,
    )
