"""Results do not depend on the other texts of a batch, the row, the batch size, or on a second call."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffretriever_pyserini import DiffRetriever

from .conftest import TEXTS, assert_close

WORDS = [
    "dense",
    "retrieval",
    "the",
    "of",
    "index",
    "日本語",
    "naïve",
    "😀",
    "<|mask|>",
    "[MASK]",
    "a\0b",
    "...",
    "x" * 70,
]
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
ANY_TEXT = st.one_of(st.just(""), st.text(max_size=60), SENTENCES, st.text(alphabet="ab \n\u3000é", max_size=600))
BATCHES = st.lists(ANY_TEXT, min_size=2, max_size=7)
MODEST = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@given(texts=BATCHES, side=st.sampled_from(["query", "passage"]), rng=st.randoms(use_true_random=False))
@MODEST
def test_batch_composition_never_changes_a_result(
    any_model: DiffRetriever, texts: list[str], side: str, rng: random.Random
) -> None:
    together = any_model.encode(texts, side=side)
    assert together.vectors.shape == (len(texts), any_model.config.k(side), any_model.dimension)
    assert_close(any_model.encode(texts, side=side, batch_size=1), together)
    order = rng.sample(range(len(texts)), len(texts))
    shuffled = any_model.encode([texts[i] for i in order], side=side, batch_size=rng.randint(1, 4))
    back = np.argsort(order)
    np.testing.assert_allclose(shuffled.vectors[back], together.vectors, rtol=0, atol=1e-5)
    assert np.abs((shuffled.weights[back] - together.weights).toarray()).max() <= 1


@given(texts=BATCHES)
@MODEST
def test_encoding_twice_gives_the_same_bytes(any_model: DiffRetriever, texts: list[str]) -> None:
    first, second = any_model.encode(texts), any_model.encode(texts)
    assert first.vectors.tobytes() == second.vectors.tobytes()
    for part in ("data", "indices", "indptr"):
        assert getattr(first.weights, part).tobytes() == getattr(second.weights, part).tobytes()
    assert first.impacts == second.impacts


@given(texts=BATCHES)
@MODEST
def test_every_representation_is_well_formed(any_model: DiffRetriever, texts: list[str]) -> None:
    reps = any_model.encode(texts)
    lengths = np.linalg.norm(reps.vectors, axis=2)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))
    assert np.all(lengths[:, 0] > 0), "the first position is never cut"
    assert np.all(np.diff(lengths > 0.5, axis=1).sum(axis=1) <= 1), "the cut positions are at the end"
    assert (reps.vectors.dtype, reps.pooled.dtype, reps.weights.dtype) == (np.float32, np.float32, np.int32)
    assert reps.weights.shape == (len(texts), any_model.vocab_size)
    assert reps.weights.has_canonical_format
    assert reps.weights.data.min(initial=1) >= 1
    mask = any_model.layout("query").mask_id
    assert reps.weights[:, [mask]].nnz == 0
    assert [len(impacts) for impacts in reps.impacts] == np.diff(reps.weights.indptr).tolist()


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("schedule", ["zero_shot", "trained"])
def test_several_steps_do_not_depend_on_the_batch(request, load, tiny_bert, steps: int, schedule: str) -> None:
    model = load(tiny_bert, k_passage=4, denoising_steps=steps, denoising_schedule=schedule)
    assert_close(model.encode(TEXTS, batch_size=1), model.encode(TEXTS))


def test_max_length_shortens_as_if_the_text_were_shorter(any_model: DiffRetriever) -> None:
    """With a budget of n tokens, a text is its first n tokens; a max_length above the model's changes nothing."""
    text = "retrieval of dense passages and queries in an index " * 20
    layout = any_model.layout("passage")
    fixed = len(layout.prefix) + len(layout.suffix)
    whole = any_model.forward_masks([text], side="passage")
    same = any_model.forward_masks([text], side="passage", max_length=10_000)
    assert whole.hidden.tobytes() == same.hidden.tobytes()
    short = any_model.forward_masks([text], side="passage", max_length=fixed + 5)
    ids = any_model.tokenizer(text, add_special_tokens=False)["input_ids"][:5]
    hidden = any_model.reader.forward([ids], layout).hidden
    np.testing.assert_array_equal(short.hidden, hidden.detach().numpy())
    assert np.abs(short.hidden - whole.hidden).max() > 1e-3


def test_forward_masks_is_what_encode_reads(any_model: DiffRetriever) -> None:
    raw = any_model.forward_masks(TEXTS, side="query")
    assert raw.hidden.shape == (len(TEXTS), 2, any_model.dimension)
    assert raw.logits.shape == (len(TEXTS), 2, any_model.vocab_size)
    unit = raw.hidden / np.linalg.norm(raw.hidden, axis=2, keepdims=True)
    vectors = any_model.encode(TEXTS, side="query").vectors
    kept = np.any(vectors != 0, axis=2)
    np.testing.assert_allclose(vectors[kept], unit[kept], atol=1e-6)
