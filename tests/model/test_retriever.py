"""The public object: shapes, options, sharing, the query cache and the fingerprint."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import ConfigError, DiffRetriever, Representations
from diffretriever_pyserini.model import inference, retriever
from diffretriever_pyserini.model.method import pool
from diffretriever_pyserini.model.retriever import load_shared

from .conftest import TEXTS, Load, assert_close, copy_folder, edit_weights


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is shared before or after the test."""
    monkeypatch.setattr(retriever, "_shared", weakref.WeakValueDictionary())


def test_shapes_and_types(tiny_bert: Path, load: Load) -> None:
    model = load(tiny_bert, k_query=2, k_passage=3)
    assert (model.dimension, model.device, model.config.name) == (32, "cpu", str(tiny_bert))
    for side, k in (("query", 2), ("passage", 3)):
        reps = model.encode(TEXTS, side=side)
        assert reps.vectors.shape == (len(TEXTS), k, 32)
        assert reps.pooled.shape == (len(TEXTS), 32)
        assert reps.weights.shape == (len(TEXTS), model.vocab_size)
    assert model.vocab_size == len(model.tokenizer) + 3, "the head's rows, not the tokenizer's size"


def test_no_texts(tiny_bert: Path, load: Load) -> None:
    model = load(tiny_bert, k_passage=3)
    reps = model.encode([])
    assert (reps.vectors.shape, reps.pooled.shape, reps.impacts) == ((0, 3, 32), (0, 32), [])
    assert reps.weights.shape == (0, model.vocab_size)
    raw = model.forward_masks([], side="passage")
    assert (raw.hidden.shape, raw.logits.shape) == ((0, 3, 32), (0, 3, model.vocab_size))
    assert model.encode_queries_cached([]) == []


def test_impacts_are_the_rounded_weights_of_the_texts_own_words(tiny_bert: Path, load: Load) -> None:
    """Computed from the raw logits, step by step."""
    model = load(tiny_bert, k_query=2, cut_at_stop=False, impact_rounding="nearest")
    logits = model.forward_masks(["The dense index"]).logits[0]
    expected = {}
    for token in ("dense", "index"):
        row = model.tokenizer.convert_tokens_to_ids(token)
        weight = round(100 * float(np.log1p(max(0.0, float(logits[:, row].max())))))
        if weight:
            expected[token] = weight
    assert expected, "both words have a negative logit: the test compares nothing"
    assert model.encode(["The dense index"], side="query").impacts == [expected]


def test_expansion_scores_every_term_but_the_mask_and_the_unknown_word(tiny_bert: Path, load: Load) -> None:
    model = load(tiny_bert, cut_at_stop=False, lexical_terms="vocabulary", impact_rounding="nearest", top_terms=20)
    reps = model.encode(["the", ""])
    logits = np.log1p(np.maximum(model.forward_masks(["the", ""], side="passage").logits[:, 0], 0))
    logits[:, [model.tokenizer.mask_token_id, model.tokenizer.unk_token_id]] = 0
    for row, weights in zip(reps.weights.toarray(), logits, strict=True):
        expected = np.zeros_like(weights)
        best = np.argsort(-weights)[:20]
        expected[best] = weights[best]
        np.testing.assert_array_equal(row, np.rint(100 * expected))
    assert reps.weights[:, [model.tokenizer.mask_token_id]].nnz == 0
    assert reps.weights.nnz > 20


@pytest.mark.parametrize("terms", ["content", "stems", "vocabulary"])
def test_the_unknown_word_scores_nowhere(tiny_bert: Path, load: Load, terms: str) -> None:
    model = load(tiny_bert, lexical_terms=terms, cut_at_stop=False)
    unknown = model.tokenizer.unk_token_id
    for side in ("query", "passage"):
        weights = model.encode(["🦄", "𓀀 🦊", "dense 🦄"], side=side).weights
        assert weights[:, [unknown]].nnz == 0
        if terms != "vocabulary":
            assert weights[:2].nnz == 0


def test_the_cut_at_stop_zeroes_later_positions(tiny_bert: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*TEXTS, "retrieval", "q w e r t y", "0 1 2 3", "the of the of"]
    whole = load(tiny_bert, k_passage=6, cut_at_stop=False)
    decoded = whole.forward_masks(texts, side="passage").logits.argmax(axis=2)
    later = {int(token) for token in decoded[:, 1:].flatten()} - {int(token) for token in decoded[:, 0]}
    assert later, "every position decodes to the same token: nothing can be cut"
    cut = DiffRetriever.from_pretrained(tiny_bert, k_passage=6)
    monkeypatch.setattr(cut.reader, "stop_ids", frozenset(later))
    reps, expected = cut.encode(texts), whole.encode(texts)
    lengths = []
    for i, row in enumerate(decoded):
        kept = next((j for j, token in enumerate(row) if int(token) in later), 6)
        lengths.append(kept)
        np.testing.assert_array_equal(reps.vectors[i, :kept], expected.vectors[i, :kept])
        assert not reps.vectors[i, kept:].any()
    assert 1 <= min(lengths) < 6
    np.testing.assert_array_equal(reps.pooled, pool(reps.vectors))

    monkeypatch.setattr(cut.reader, "stop_ids", frozenset(int(token) for token in decoded[:, 0]))
    np.testing.assert_array_equal(cut.encode(texts).vectors, expected.vectors)  # a stop at position 1 cuts nothing


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(tiny_bert: Path, load: Load, dtype: str) -> None:
    half, full = load(tiny_bert, dtype=dtype).encode(TEXTS), load(tiny_bert).encode(TEXTS)
    assert half.vectors.dtype == np.float32
    assert np.sum(half.vectors * full.vectors, axis=2).min() > 0.99


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8' is not one of float32"),
        ({"device": "gpu"}, "device 'gpu' is not one that torch knows"),
    ],
)
def test_devices_and_types_that_do_not_exist(tiny_bert: Path, setting: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DiffRetriever.from_pretrained(tiny_bert, **setting)


def test_cuda_where_there_is_none(tiny_bert: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match=r"no CUDA device here; use cpu"):
        DiffRetriever.from_pretrained(tiny_bert, device="cuda")


@pytest.mark.gpu
def test_a_gpu_gives_the_same_numbers(any_model: DiffRetriever) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    on_gpu = DiffRetriever(any_model.config, device="cuda", dtype="float32").encode(TEXTS)
    expected = any_model.encode(TEXTS)
    np.testing.assert_allclose(on_gpu.vectors, expected.vectors, atol=1e-4)
    assert np.abs((on_gpu.weights - expected.weights).toarray()).max() <= 1


def test_one_shared_model_per_process(tiny_bert: Path, alone: None) -> None:
    model = load_shared(str(tiny_bert), k_query=2)
    for same in ({}, {"device": "cpu"}, {"dtype": "float32"}, {"device": "cpu", "dtype": "float32"}):
        assert load_shared(str(tiny_bert), k_query=2, **same) is model
    other = load_shared(str(tiny_bert), k_query=3)
    assert other is not model
    half = load_shared(str(tiny_bert), k_query=2, dtype="bfloat16")
    assert half is not model
    assert load_shared(str(tiny_bert), k_query=3) is other


def test_threads_that_ask_at_once_get_the_same_model(tiny_bert: Path, alone: None) -> None:
    models: list[DiffRetriever] = []
    threads = [threading.Thread(target=lambda: models.append(load_shared(str(tiny_bert)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 4
    assert len(set(map(id, models))) == 1


def test_queries_are_encoded_once(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DiffRetriever.from_pretrained(tiny_bert, k_query=2)
    monkeypatch.setattr(retriever, "_CACHED_QUERIES", 3)
    encoded: list[list[str]] = []
    encode = model.encode

    def logged(texts: list[str], **options: Any) -> Representations:
        encoded.append(list(texts))
        return encode(texts, **options)

    monkeypatch.setattr(model, "encode", logged)

    first = model.encode_queries_cached(["a", "b", "a"])
    assert first[0] is first[2]
    expected = encode(["a", "b"], side="query")
    np.testing.assert_array_equal(first[1].vector, expected.pooled[1])
    assert first[1].impacts == expected.impacts[1]
    assert model.encode_queries_cached(["b", "a"]) == [first[1], first[0]]
    assert encoded == [["a", "b"]]

    model.encode_queries_cached(["c", "a"])  # "b" is now the least recently used
    model.encode_queries_cached(["d"])
    model.encode_queries_cached(["a", "c", "d"])
    assert encoded == [["a", "b"], ["c"], ["d"]]
    model.encode_queries_cached(["b"])
    assert encoded[-1] == ["b"]

    many = [f"query {i}" for i in range(6)]  # a batch larger than the cache is kept whole
    model.encode_queries_cached(many)
    model.encode_queries_cached(many)
    assert encoded[-1] == many


def test_threads_share_a_model(tiny_bert: Path, load: Load) -> None:
    model = load(tiny_bert, k_query=2, k_passage=3)
    expected = model.encode(TEXTS)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(3):
            reps = model.encode(TEXTS)
            if np.abs(reps.vectors - expected.vectors).max() > 1e-5 or reps.impacts != expected.impacts:
                wrong.append(reps)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_fingerprint_depends_on_what_decides_a_representation(tiny_bert: Path, tmp_path: Path, load: Load) -> None:
    model = load(tiny_bert, k_passage=3)
    copy = copy_folder(tiny_bert, tmp_path / "copy")
    assert DiffRetriever.from_pretrained(copy, k_passage=3).fingerprint == model.fingerprint, (
        "it does not depend on the name"
    )
    changed = {load(tiny_bert, k_passage=3, **one).fingerprint for one in (
        {"k_query": 2}, {"max_length": 100}, {"cut_at_stop": False}, {"impact_rounding": "nearest"},
        {"lexical_terms": "vocabulary"}, {"denoising_steps": 2}, {"query_prefix_ids": (2, 9), "query_suffix_ids": (3,)},
    )}  # fmt: skip
    assert len(changed | {model.fingerprint}) == 8
    edit_weights(copy, lambda weights: weights["bert.encoder.layer.0.output.dense.weight"].add_(1e-3))
    assert DiffRetriever.from_pretrained(copy, k_passage=3).fingerprint != model.fingerprint


def test_a_batch_is_split_if_its_logits_take_too_much_memory(tiny_bert: Path, load: Load, monkeypatch) -> None:
    model = load(tiny_bert, k_passage=3)
    expected = model.encode(TEXTS)
    monkeypatch.setattr(inference, "LOGIT_BYTES", 2 * 4 * 3 * model.vocab_size)
    sizes: list[int] = []
    forward = model.reader.forward

    def logged(ids: Any, *more: Any) -> Any:
        sizes.append(len(ids))
        return forward(ids, *more)

    monkeypatch.setattr(model.reader, "forward", logged)
    assert_close(model.encode(TEXTS, batch_size=100), expected)
    assert sizes == [2, 2, 2]


def test_a_passage_fingerprint_depends_on_the_passage_side_only(tiny_bert: Path, load: Load) -> None:
    model = load(tiny_bert, k_passage=3)
    same = ({"k_query": 2}, {"max_length": 100}, {"lexical_terms": "vocabulary"}, {"impact_rounding": "nearest"},
            {"query_prefix_ids": (2, 9), "query_suffix_ids": (3,)})  # fmt: skip
    assert {load(tiny_bert, k_passage=3, **one).passage_fingerprint for one in same} == {model.passage_fingerprint}
    other = ({"k_passage": 4}, {"cut_at_stop": False}, {"denoising_steps": 2}, {"mask_token_type": 1},
             {"passage_prefix_ids": (2, 9), "passage_suffix_ids": (3,)})  # fmt: skip
    fingerprints = {load(tiny_bert, **{"k_passage": 3} | one).passage_fingerprint for one in other}
    assert len(fingerprints | {model.passage_fingerprint}) == 6
