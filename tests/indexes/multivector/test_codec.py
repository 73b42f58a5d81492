"""Records of fixed size: decoding them, and scoring them without decoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes.multivector import codec as codecs
from diffretriever_pyserini.indexes.multivector.codec import (
    _QUANTISERS,
    RecordCodec,
    allocate,
    principal,
    read_codec,
    train_codec,
)
from diffretriever_pyserini.indexes.multivector.products import Floats, Integers, integers_are_exact
from diffretriever_pyserini.indexes.multivector.scorer import QueryScorer
from diffretriever_pyserini.runtime.threads import Workers
from diffretriever_pyserini.scoring.pairwise import maxsim

from .conftest import made_up_vectors


@pytest.fixture(scope="module")
def codec(vectors: np.ndarray) -> RecordCodec:
    return train_codec(vectors, 40)


@pytest.fixture(params=[Floats, Integers])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Floats]:
    """Codecs of this test multiply in this way, whatever the processor has."""
    if request.param is Integers and not integers_are_exact():
        pytest.skip("torch has no exact products of 8-bit integers on this processor")
    monkeypatch.setattr(codecs, "products_for", lambda longest: request.param)
    return request.param


def error(codec: RecordCodec, vectors: np.ndarray) -> float:
    """Return the mean squared error of the vectors that are not zero."""
    back = codec.decode(codec.encode(vectors))
    return float(np.square(back - vectors).sum(axis=2)[vectors.any(axis=2)].mean())


def test_more_bytes_less_error(vectors: np.ndarray) -> None:
    errors = [error(train_codec(vectors[:500], budget), vectors[500:]) for budget in (8, 20, 48, 120)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1.0  # smaller than that of zero vectors, with two bytes per vector
    assert errors[-1] < 0.02


@pytest.mark.parametrize("budget", [2, 5, 13, 40, 97, 500])
def test_a_record_keeps_to_its_budget(vectors: np.ndarray, budget: int) -> None:
    codec = train_codec(vectors[:300], budget)
    records = codec.encode(vectors[:7])
    assert records.shape == (7, codec.stride)
    assert budget - 1 <= codec.stride <= budget or set(codec.bits) == {12}


def test_every_code_has_bits_of_its_own(codec: RecordCodec) -> None:
    """Together the planes hold each code once, and no two parts share a bit of the record."""
    code_bits = [np.zeros(bits, int) for bits in codec.bits]
    record_bits = np.zeros((codec.stride - codec.mask_bytes, 8), int)
    for plane in codec.planes:
        for code, below in zip(plane.codes, plane.below, strict=True):
            code_bits[code][below : below + plane.width] += 1
        record_bits[plane.columns, plane.shift : plane.shift + plane.width] += 1
    assert all((bits == 1).all() for bits in code_bits)
    assert record_bits.max() == 1
    assert record_bits.sum() == codec.bits.sum()
    assert set(codec.bits) >= {2, 4, 6}


def test_an_empty_position_comes_back_empty(codec: RecordCodec, vectors: np.ndarray) -> None:
    empty = np.zeros((1, *vectors.shape[1:]), np.float32)
    passages = np.concatenate([vectors[:50], empty])
    back = codec.decode(codec.encode(passages))
    assert np.array_equal(back.any(axis=2), passages.any(axis=2))


def test_scores_are_maxsim_with_the_decoded_vectors(
    products: type[Floats], vectors: np.ndarray, queries: list[np.ndarray]
) -> None:
    codec = train_codec(vectors, 40)
    records = codec.encode(vectors[:700])
    back = codec.decode(records)
    for query in queries:
        scores = QueryScorer(codec, query).scores(records)
        np.testing.assert_allclose(scores, maxsim(query[None], back)[0], atol=2e-5)
    assert not QueryScorer(codec, queries[-2]).scores(records).any()  # a query without vectors
    assert QueryScorer(codec, queries[0]).scores(records[:0]).shape == (0,)


@pytest.mark.parametrize("k_query", [1, 2, 16])
@pytest.mark.parametrize("count", [1, 511, 1025, 5000])
def test_threads_that_share_a_query_give_the_same_scores(products: type[Floats], k_query: int, count: int) -> None:
    vectors = made_up_vectors(count)
    codec = train_codec(made_up_vectors(300), 64)
    assert set(codec.bits) >= {2, 4, 6}
    assert codec.products is products
    records, query = codec.encode(vectors), made_up_vectors(1, k=k_query, seed=3)[0]
    alone = QueryScorer(codec, query).scores(records)
    with Workers(4) as workers:
        for most in (None, 2, 3, 9):
            np.testing.assert_array_equal(QueryScorer(codec, query, workers, most).scores(records), alone)


def test_an_empty_position_never_scores(products: type[Floats]) -> None:
    """Without the mask, the mean that replaces an empty position would score."""
    vectors = made_up_vectors(400)
    codec = train_codec(vectors, 60)
    passages = vectors[:200].copy()
    passages[:, 1:] = 0
    query = vectors[:1, :1].copy()
    scores = QueryScorer(codec, query[0]).scores(codec.encode(passages))
    np.testing.assert_allclose(scores, maxsim(query, codec.decode(codec.encode(passages)))[0], atol=2e-5)
    empty = codec.encode(np.zeros_like(passages[:3]))
    assert not QueryScorer(codec, query[0]).scores(empty).any()


def test_the_order_of_a_passages_vectors_matters_little(
    products: type[Floats], vectors: np.ndarray, queries: list[np.ndarray]
) -> None:
    """MaxSim ignores the order, but the codec does not, so scores change by at most its error."""
    codec = train_codec(vectors, 120)
    complete = vectors[vectors.any(axis=2).all(axis=1)][:300]
    mixed = np.stack([row[np.random.default_rng(i).permutation(4)] for i, row in enumerate(complete)])
    for query in queries[:10]:
        exact = maxsim(query[None], complete)[0]
        for passages in (complete, mixed):
            records = codec.encode(passages)
            error = np.linalg.norm(codec.decode(records) - passages, axis=2).max(axis=1)
            assert error.mean() < 0.03
            difference = np.abs(QueryScorer(codec, query).scores(records) - exact)
            assert (difference <= np.linalg.norm(query, axis=1).sum() * error + 1e-5).all()


def test_the_same_sample_gives_the_same_bytes(vectors: np.ndarray, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_codec(vectors[:300], 30).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_codec_can_be_saved_and_read(codec: RecordCodec, vectors: np.ndarray, tmp_path: Path) -> None:
    codec.save(tmp_path / "codec.safetensors")
    again = read_codec(tmp_path / "codec.safetensors")
    records = codec.encode(vectors[:100])
    assert np.array_equal(again.encode(vectors[:100]), records)
    assert np.array_equal(again.decode(records), codec.decode(records))
    (tmp_path / "codec.safetensors").write_bytes(b"no codec")
    with pytest.raises(InputError, match=r"codec\.safetensors: damaged"):
        read_codec(tmp_path / "codec.safetensors")


def test_too_few_bytes_are_an_error(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="1 bytes per passage are too few"):
        train_codec(vectors[:50], 1)


def test_passages_that_are_all_the_same(products: type[Floats], queries: list[np.ndarray]) -> None:
    """Their mean is exact, so that no bits are allocated."""
    vectors = np.repeat(made_up_vectors(1), 20, axis=0)
    for codec in (train_codec(vectors, 40), train_codec(vectors[:1], 40), train_codec(np.zeros_like(vectors), 40)):
        assert QueryScorer(codec, queries[0]).scores(codec.encode(vectors)).shape == (20,)
    codec = train_codec(vectors, 40)
    np.testing.assert_allclose(codec.decode(codec.encode(vectors)), vectors, atol=1e-3)
    scores = QueryScorer(codec, queries[0]).scores(codec.encode(vectors))
    np.testing.assert_allclose(scores, maxsim(queries[0][None], vectors)[0], atol=1e-3)


def test_one_vector_per_passage_gives_dot_products(products: type[Floats]) -> None:
    vectors = made_up_vectors(20, k=1)
    codec = train_codec(vectors, 33)
    assert error(codec, vectors) < 1e-3
    query = vectors[3]
    np.testing.assert_allclose(
        QueryScorer(codec, query).scores(codec.encode(vectors)), (vectors[:, 0] @ query[0]).clip(0), atol=0.05
    )


variances = arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.just(0.0) | st.floats(1e-12, 1e6)
)


@settings(max_examples=100, deadline=None)
@given(variances, st.integers(0, 60), st.sampled_from([2, 4]))
def test_bits_are_allocated_by_variance(variances: np.ndarray, size: int, unit: int) -> None:
    bits = allocate(variances, size, unit)
    assert bits.sum() <= 8 * size
    assert set(bits.flat) <= set(range(0, 13, unit))
    assert not bits[variances == 0].any()
    assert 8 * size - bits.sum() < 16 or set(bits[variances > 0]) <= {12}, "no usable bits are left over"
    order = np.argsort(-variances, axis=None, kind="stable")
    assert (np.diff(bits.flat[order]) <= 0).all(), "a larger variance gets at least as many bits"


def test_bits_leave_the_least_error() -> None:
    """No other allocation of the same bits has a smaller error, of all that exist."""
    variances = np.array([9.0, 4.0, 1.0, 0.02])
    left = np.array(
        [1, np.nan, 0.11885, np.nan, 0.01154, np.nan, 0.00104, np.nan, 8.77e-5, np.nan, 7e-6, np.nan, 5.36e-7]
    )
    allocations = np.stack(np.meshgrid(*[np.arange(0, 14, 2)] * 4), axis=-1).reshape(-1, 4)
    for size in range(6):
        bits = allocate(variances, size, 2)
        least = (variances * left[allocations[allocations.sum(axis=1) <= bits.sum()]]).sum(axis=1).min()
        assert (variances * left[bits]).sum() == pytest.approx(least)


def test_the_best_uniform_quantisers_of_a_gaussian() -> None:
    """The table of steps and errors, by integration."""
    x = np.linspace(-9, 9, 400_001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * (x[1] - x[0])

    def error(step: float, bits: int) -> float:
        half = 1 << bits - 1
        return float((density * np.square((np.floor(x / step).clip(-half, half - 1) + 0.5) * step - x)).sum())

    for bits, (step, left) in _QUANTISERS.items():
        assert error(step, bits) == pytest.approx(left, rel=0.01)
        assert error(step, bits) <= min(error(0.97 * step, bits), error(1.03 * step, bits))


def test_directions_are_orthonormal_and_ordered() -> None:
    sample = made_up_vectors(200, k=6)
    gram = np.einsum("nkh,njh->kj", sample, sample) / len(sample)
    directions = principal(gram)
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-5)
    energies = np.diag(directions.T @ gram @ directions)
    assert energies.tolist() == sorted(energies.tolist(), reverse=True)
    assert energies[0] > 0.8 * energies.sum()  # similar vectors: one direction has nearly all the energy


@pytest.mark.parametrize("spread", ["normal", "laplace", "uniform", "exponential", "integers"])
def test_a_code_is_the_nearest_level(spread: str) -> None:
    """For any distribution: values beyond the levels get the outermost one, and the range fits the values."""
    generator = np.random.default_rng(4)
    values = generator.integers(2, size=6000) if spread == "integers" else getattr(generator, spread)(size=6000)
    values = values.reshape(-1, 1, 1).astype(np.float32)
    codec = train_codec(values, 2)
    assert codec.bits.tolist() == [8]
    back = codec.decode(codec.encode(values)).ravel()
    levels = codec.means.ravel() + codec.basis.ravel() * codec.directions * codec.steps * (np.arange(256) - 127.5)
    nearest = np.abs(values.ravel()[:, None] - levels).min(axis=1)
    present = values.ravel() != 0
    np.testing.assert_allclose(np.abs(back - values.ravel())[present], nearest[present], atol=1e-5)
    assert np.square(nearest).mean() < 3e-3 * values.var()


def test_records_of_many_bytes_have_fewer_codes() -> None:
    """They have codes of 4 and 8 bits only: the time per code does not depend on its bits."""
    vectors = made_up_vectors(200, k=16, width=256)
    assert set(train_codec(vectors, 1024).bits) >= {2, 4, 6}
    assert set(train_codec(vectors, 1025).bits) == {4, 8}
