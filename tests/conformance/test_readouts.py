"""The baselines of the paper as read-outs: PromptReps, RepLLaMA and DiffEmbed against the recorded outputs."""

from __future__ import annotations

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.model.layout import TokenTable

from .conftest import BASES, SIDES, Goldens, dense_rows

CAUSAL = ("tiny-qwen2", "tiny-llama")


def laid_out(retriever: DiffRetriever, texts: list[str], side: str, pad_left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask [N, L] of a padded batch of ``texts``."""
    prepared = retriever.prepare(texts, side)
    ids = [prepared.ids[i] for i in range(len(prepared))]
    table = TokenTable.padded(prepared.layout.lengths(ids), pad_left)
    return table.ids(prepared.layout, ids), table.mask()


def assert_cut_towards_zero(actual: np.ndarray, activations: np.ndarray) -> None:
    """Impacts are 100 times the recorded log(1 + relu) activations, cut, but for values at a whole number."""
    difference = np.abs(actual - np.trunc(activations * 100))
    assert difference.max() <= 1
    assert not np.any((difference == 1) & (np.abs(activations * 100 - np.rint(activations * 100)) > 0.02))


@pytest.mark.parametrize("model", CAUSAL)
@pytest.mark.parametrize("side", SIDES)
def test_promptreps_with_one_vector(goldens: Goldens, model: str, side: str) -> None:
    case = goldens.case(f"{model}.ar")
    facts, prefix = goldens.facts(f"{model}.ar")[f"promptreps/{side}_k1"], f"promptreps/{side}_k1"
    retriever = goldens.model(model, f"{side}_k1", readout="next_token")
    layout = retriever.layout(SIDES[side])
    assert (list(layout.prefix), list(layout.suffix)) == (facts["prefix_ids"], facts["suffix_ids"])
    ids, mask = laid_out(retriever, goldens.texts, SIDES[side], pad_left=True)
    np.testing.assert_array_equal(mask, case[f"{prefix}/attention_mask"])
    np.testing.assert_array_equal(np.where(mask, ids, 0), np.where(mask, case[f"{prefix}/input_ids"], 0))

    hidden = retriever.forward_masks(goldens.texts, side=SIDES[side]).hidden
    np.testing.assert_allclose(hidden[:, 0], case[f"{prefix}/dense"], atol=1e-4)
    reps = retriever.encode(goldens.texts, side=SIDES[side])
    np.testing.assert_allclose(reps.vectors[:, 0], case[f"{prefix}/dense_normalized"], atol=1e-5)
    np.testing.assert_array_equal(reps.pooled, reps.vectors[:, 0])
    indices, values = case[f"{prefix}/sparse_filtered_indices"], case[f"{prefix}/sparse_filtered_values"]
    assert_cut_towards_zero(reps.weights.toarray(), dense_rows(indices, values, retriever.vocab_size))


@pytest.mark.parametrize("model", CAUSAL)
@pytest.mark.parametrize("side", SIDES)
def test_promptreps_with_several_vectors(goldens: Goldens, model: str, side: str) -> None:
    case, prefix = goldens.case(f"{model}.ar"), f"promptreps/{side}_multi4"
    retriever = goldens.model(model, f"{side}_k4", readout="next_token")
    reps = retriever.encode(goldens.texts, side=SIDES[side])
    recorded = case[f"{prefix}/repr_hidden"]
    lengths = np.linalg.norm(recorded, axis=2, keepdims=True)
    np.testing.assert_allclose(reps.vectors, recorded / np.maximum(lengths, 1e-12), atol=1e-5)
    indices, values = case[f"{prefix}/sparse_indices"], case[f"{prefix}/sparse_values"]
    positions = [dense_rows(indices[:, k], values[:, k], retriever.vocab_size) for k in range(4)]
    assert_cut_towards_zero(reps.weights.toarray(), np.max(positions, axis=0))


@pytest.mark.parametrize("model", CAUSAL)
@pytest.mark.parametrize("side", SIDES)
def test_promptreps_pooled_from_several_positions(goldens: Goldens, model: str, side: str) -> None:
    """The authors' older variant averages raw states of positions before a quotation mark, and takes every term."""
    case, prefix = goldens.case(f"{model}.ar"), f"promptreps/{side}_multi4_pooled"
    retriever = goldens.model(model, f"{side}_k4", readout="next_token", cut_at_stop=False)
    raw = retriever.forward_masks(goldens.texts, side=SIDES[side])
    words = raw.logits.argmax(axis=2)
    quotes = np.array([['"' in retriever.tokenizer.decode([word]) for word in row] for row in words])
    kept = quotes.cumsum(axis=1) == 0
    for i, positions in enumerate(kept):
        states, logits = raw.hidden[i][positions], raw.logits[i][positions]
        mean = states.mean(axis=0) if len(states) else np.zeros(retriever.dimension)
        terms = np.log1p(np.maximum(logits, 0)).max(axis=0, initial=0)
        np.testing.assert_allclose(mean, case[f"{prefix}/dense"][i], atol=1e-4)
        np.testing.assert_allclose(terms, case[f"{prefix}/sparse"][i], atol=1e-4)


@pytest.mark.parametrize("model", CAUSAL)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("prefixed", (False, True))
def test_repllama(goldens: Goldens, model: str, side: str, prefixed: bool) -> None:
    case = goldens.case(f"{model}.ar")
    name = f"repllama/{side}_{'prefixed' if prefixed else 'plain'}"
    prefixes = {"query_prefix": "query: ", "passage_prefix": "passage: "} if prefixed else {}
    limit = {"q": 32, "p": 64}[side]
    retriever = goldens.model(model, f"{side}_k1", readout="last_token", max_length=limit, append_eos=True, **prefixes)
    ids, mask = laid_out(retriever, goldens.texts, SIDES[side], pad_left=True)
    np.testing.assert_array_equal(mask, case[f"{name}/attention_mask"])
    np.testing.assert_array_equal(np.where(mask, ids, 0), np.where(mask, case[f"{name}/input_ids"], 0))
    assert_one_vector(retriever, goldens.texts, SIDES[side], case[f"{name}/embedding"])


@pytest.mark.parametrize("model", BASES)
def test_diffembed(goldens: Goldens, model: str) -> None:
    case = goldens.case(f"{model}.diffembed")
    retriever = goldens.model(model, "q_k1", readout="mean", max_length=64)
    ids, mask = laid_out(retriever, goldens.texts, "passage", pad_left=False)
    np.testing.assert_array_equal(mask, case["attention_mask"])
    np.testing.assert_array_equal(np.where(mask, ids, 0), np.where(mask, case["input_ids"], 0))
    assert not case["embedding"][goldens.texts.index("")].any()
    for side in SIDES.values():
        assert_one_vector(retriever, goldens.texts, side, case["embedding"])


def assert_one_vector(retriever: DiffRetriever, texts: list[str], side: str, expected: np.ndarray) -> None:
    """The vectors are those that are ``expected`` [N, H], in a batch and alone, and there are no terms."""
    for batch_size in (len(texts), 1):
        reps = retriever.encode(texts, side=side, batch_size=batch_size)
        assert reps.vectors.shape == (len(texts), 1, retriever.dimension)
        np.testing.assert_allclose(reps.vectors[:, 0], expected, atol=1e-5)
        np.testing.assert_array_equal(reps.pooled, reps.vectors[:, 0])
        assert reps.weights.shape == (len(texts), retriever.vocab_size) and reps.weights.nnz == 0


def test_some_answers_stop_and_some_do_not(goldens: Goldens) -> None:
    """Else the goldens above would not show the stop rule."""
    kept = {
        int(np.any(vectors != 0, axis=1).sum())
        for model in CAUSAL
        for side in SIDES
        for vectors in goldens.case(f"{model}.ar")[f"promptreps/{side}_multi4/repr_hidden"]
    }
    assert 4 in kept and min(kept) < 4
