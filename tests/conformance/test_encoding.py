"""Hidden states, vectors and lexical weights of one and several steps against the recorded ones."""

from __future__ import annotations

import numpy as np
import pytest

from diffretriever_pyserini.model.representations import Representations

from .conftest import BASES, Goldens, dense_rows, side_and_k

FINE_TUNED = {"cut_at_stop": False, "impact_rounding": "nearest"}
ONE_STEP = [(key, ml) for key in ("q_k1", "q_k4", "p_k1", "p_k4", "p_k16") for ml in (128, 512)]
SEVERAL = {
    "tiny-dream": [("q_k4", 2), ("q_k4", 4), ("p_k4", 2), ("p_k16", 4)],
    "tiny-llada": [("q_k4", 2), ("q_k4", 4), ("p_k4", 2), ("p_k16", 4)],
}


def assert_impacts(actual: Representations, activations: np.ndarray, rounding: str = "nearest") -> None:
    """Impacts equal those of the recorded log(1 + relu) activations, or differ by 1 at a rounding boundary."""
    expected = activations * 100
    whole = np.rint(expected) if rounding == "nearest" else np.trunc(expected)
    distance = (
        np.abs(expected - np.trunc(expected) - 0.5) if rounding == "nearest" else np.abs(expected - np.rint(expected))
    )
    difference = np.abs(actual.weights.toarray() - whole)
    assert difference.max(initial=0) <= 1
    assert not np.any((difference == 1) & (distance > 0.02))


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize(("key", "max_length"), ONE_STEP)
def test_one_step(goldens: Goldens, model: str, key: str, max_length: int) -> None:
    side, k = side_and_k(key)
    case = goldens.case(f"{model}.encode")
    prefix = f"{key}/ml{max_length}"
    retriever = goldens.model(model, key, max_length=max_length, **FINE_TUNED)
    raw = retriever.forward_masks(goldens.texts, side=side)
    np.testing.assert_allclose(raw.hidden, case[f"{prefix}/hidden_raw"][:, 1:], atol=1e-4)
    activations = np.log1p(np.maximum(raw.logits, 0)).max(axis=1)
    np.testing.assert_allclose(activations, case[f"{prefix}/sparse_acts"], atol=1e-4)
    if f"{prefix}/mask_logits" in case:
        np.testing.assert_allclose(raw.logits, case[f"{prefix}/mask_logits"], atol=2e-4)

    reps = retriever.encode(goldens.texts, side=side)
    assert reps.vectors.dtype == np.float32 and reps.vectors.shape == (12, k, retriever.dimension)
    np.testing.assert_allclose(reps.vectors, case[f"{prefix}/repr_hidden"], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(reps.vectors, axis=2), 1, atol=1e-5)
    filtered = dense_rows(
        case[f"{prefix}/sparse_acts_filtered_indices"],
        case[f"{prefix}/sparse_acts_filtered_values"],
        retriever.vocab_size,
    )
    assert_impacts(reps, filtered)


@pytest.mark.parametrize(("model", "key", "steps"), [(m, k, s) for m in BASES for k, s in SEVERAL[m]])
def test_several_steps_as_trained(goldens: Goldens, model: str, key: str, steps: int) -> None:
    case = goldens.case(f"{model}.encode_multistep")
    prefix = f"{key}/steps{steps}"
    retriever = goldens.model(model, key, denoising_steps=steps, denoising_schedule="trained", **FINE_TUNED)
    reps = retriever.encode(goldens.texts, side=side_and_k(key)[0])
    np.testing.assert_allclose(reps.vectors, case[f"{prefix}/repr_hidden"], atol=1e-5)
    filtered = dense_rows(
        case[f"{prefix}/sparse_acts_filtered_indices"],
        case[f"{prefix}/sparse_acts_filtered_values"],
        retriever.vocab_size,
    )
    assert_impacts(reps, filtered)


def zero_shot_cases() -> list[tuple[str, str, int]]:
    one = [(m, key, 1) for m in BASES for key in ("q_k1", "q_k4", "p_k4", "p_k16")]
    return one + [(m, key, 2) for m in BASES for key in ("q_k4", "p_k4")]


@pytest.mark.parametrize(("model", "key", "steps"), zero_shot_cases())
@pytest.mark.parametrize("cut", (True, False))
def test_zero_shot(goldens: Goldens, model: str, key: str, steps: int, cut: bool) -> None:
    side, k = side_and_k(key)
    case = goldens.case(f"{model}.zeroshot")
    prefix = f"{key}/steps{steps}"
    retriever = goldens.model(model, key, denoising_steps=steps, cut_at_stop=cut)
    raw = retriever.forward_masks(goldens.texts, side=side)
    np.testing.assert_array_equal(raw.logits.argmax(axis=2), case[f"{prefix}/decoded_ids"])
    np.testing.assert_allclose(raw.hidden, case[f"{prefix}/repr_hidden_untruncated"], atol=1e-4)

    reps = retriever.encode(goldens.texts, side=side)
    if cut:
        np.testing.assert_allclose(reps.vectors, case[f"{prefix}/repr_hidden_normalized"], atol=1e-5)
        kept = np.any(reps.vectors != 0, axis=2).sum(axis=1)
        assert kept.tolist() == goldens.facts(f"{model}.zeroshot")[prefix]["kept_positions"]
    values = case[f"{prefix}/sparse_values" + ("" if cut else "_untruncated")]
    indices = case[f"{prefix}/sparse_indices"]
    positions = [dense_rows(indices[:, j], values[:, j], retriever.vocab_size) for j in range(k)]
    difference = np.abs(reps.weights.toarray() - np.max(positions, axis=0))
    logits = np.log1p(np.maximum(raw.logits, 0)) * 100
    distance = np.abs(logits - np.rint(logits)).min(axis=1)
    assert difference.max() <= 1
    assert not np.any((difference == 1) & (distance > 0.02))


def test_stop_ids(goldens: Goldens) -> None:
    for model in BASES:
        expected = goldens.facts(f"{model}.zeroshot")["q_k4/steps1"]["stop_ids"]
        assert sorted(goldens.model(model, "q_k4").reader.stop_ids) == expected
