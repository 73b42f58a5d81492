"""Records of fixed size: what they give back, and scoring them without decoding."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes.multivector.allocation import axes, balanced, code_sizes, share_out
from diffretriever_pyserini.indexes.multivector.codec import PlaceCodec, even_levels, read_codec, train_codec
from diffretriever_pyserini.indexes.multivector.scorer import QueryTables
from diffretriever_pyserini.runtime.threads import Workers
from diffretriever_pyserini.scoring.pairwise import maxsim

from .conftest import made_up_vectors


@pytest.fixture(scope="module")
def codec(vectors: np.ndarray) -> PlaceCodec:
    return train_codec(vectors, 40)


def error(codec: PlaceCodec, vectors: np.ndarray) -> float:
    """Mean squared error of a vector that is there."""
    back = codec.decode(codec.encode(vectors))
    return float(np.square(back - vectors).sum(axis=2)[vectors.any(axis=2)].mean())


def test_more_bytes_less_error(vectors: np.ndarray) -> None:
    errors = [error(train_codec(vectors[:500], budget), vectors[500:]) for budget in (8, 20, 48, 120)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1.0  # better than nothing at all, though a vector has two bytes
    assert errors[-1] < 0.02


@pytest.mark.parametrize("budget", [5, 13, 40, 97, 500])
def test_a_record_keeps_to_its_budget(vectors: np.ndarray, budget: int) -> None:
    codec = train_codec(vectors[:300], budget)
    records = codec.encode(vectors[:7])
    assert records.shape == (7, codec.stride)
    assert codec.stride <= budget


def test_empty_places_come_back_empty(codec: PlaceCodec, vectors: np.ndarray) -> None:
    nothing = np.zeros((1, *vectors.shape[1:]), np.float32)
    some = np.concatenate([vectors[:50], nothing])
    back = codec.decode(codec.encode(some))
    assert np.array_equal(back.any(axis=2), some.any(axis=2))


def test_scores_are_maxsim_with_the_decoded_vectors(
    codec: PlaceCodec, vectors: np.ndarray, queries: list[np.ndarray]
) -> None:
    records = codec.encode(vectors[:700])
    back = codec.decode(records)
    for query in queries:
        found = QueryTables(codec, query).scores(records)
        np.testing.assert_allclose(found, maxsim(query[None], back)[0], atol=2e-5)
    assert not QueryTables(codec, queries[-2]).scores(records).any()  # a query without vectors
    assert QueryTables(codec, queries[0]).scores(records[:0]).shape == (0,)


@pytest.mark.parametrize("k_query", [1, 2, 16])
@pytest.mark.parametrize("count", [1, 511, 1025, 1500])
def test_threads_that_share_a_query_give_the_same_scores(k_query: int, count: int) -> None:
    vectors = made_up_vectors(count)
    codec = train_codec(made_up_vectors(300), 64)
    assert any(tier.scale_and_start is not None for tier in codec.tiers)
    records, query = codec.encode(vectors), made_up_vectors(1, k=k_query, seed=3)[0]
    alone = QueryTables(codec, query).scores(records)
    with Workers(4) as workers:
        for most in (None, 2, 3, 9):
            np.testing.assert_array_equal(QueryTables(codec, query, workers, most).scores(records), alone)


def test_an_empty_place_never_scores() -> None:
    """Without the mask the mean that stands in for an empty place would score."""
    vectors = made_up_vectors(400)
    codec = train_codec(vectors, 60)
    some = vectors[:200].copy()
    some[:, 1:] = 0
    query = vectors[:1, :1].copy()
    found = QueryTables(codec, query[0]).scores(codec.encode(some))
    np.testing.assert_allclose(found, maxsim(query, codec.decode(codec.encode(some)))[0], atol=2e-5)
    empty = codec.encode(np.zeros_like(some[:3]))
    assert not QueryTables(codec, query[0]).scores(empty).any()


def test_the_same_sample_gives_the_same_bytes(vectors: np.ndarray, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_codec(vectors[:300], 30).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_codec_survives_the_disk(codec: PlaceCodec, vectors: np.ndarray, tmp_path: Path) -> None:
    codec.save(tmp_path / "codec.safetensors")
    again = read_codec(tmp_path / "codec.safetensors")
    records = codec.encode(vectors[:100])
    assert np.array_equal(again.encode(vectors[:100]), records)
    assert np.array_equal(again.decode(records), codec.decode(records))
    (tmp_path / "codec.safetensors").write_bytes(b"no codec")
    with pytest.raises(InputError, match=r"codec\.safetensors: damaged"):
        read_codec(tmp_path / "codec.safetensors")


def test_what_cannot_be_trained(vectors: np.ndarray) -> None:
    with pytest.raises(InputError, match="1 bytes a passage are too few"):
        train_codec(vectors[:50], 1)
    with pytest.raises(InputError, match="dim=33: the vectors have 32 components"):
        train_codec(vectors[:50], 40, dim=33)
    assert len(train_codec(vectors[:50], 40, dim=8).components) == 8


def test_one_vector_a_passage_and_fewer_passages_than_centroids() -> None:
    vectors = made_up_vectors(20, k=1)
    codec = train_codec(vectors, 33)
    assert error(codec, vectors) < 1e-3  # every passage becomes a centroid
    query = vectors[3]
    np.testing.assert_allclose(
        QueryTables(codec, query).scores(codec.encode(vectors)), (vectors[:, 0] @ query[0]).clip(0), atol=0.05
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=16),
    st.sampled_from([8, 32, 96, 384]),
    st.integers(0, 900),
)
def test_bytes_are_shared_out_by_energy(energies: list[float], dimension: int, budget: int) -> None:
    sizes = share_out(energies, dimension, budget)
    assert sum(sizes) <= budget
    assert all(size == 0 or size in code_sizes(dimension) for size in sizes)
    for energy, size in zip(energies, sizes, strict=True):
        assert size == 0 or energy > 0
    ordered = sorted(zip(energies, sizes, strict=True), reverse=True)
    # One step of rounding may stand between two coefficients that are nearly alike.
    for (high, most), (low, least) in itertools.pairwise(ordered):
        assert high < 4 * low or most >= least


def test_components_are_dealt_out_evenly() -> None:
    variances = np.exp(-np.arange(64) / 6.0)
    order = balanced(variances, 8)
    assert sorted(order.tolist()) == list(range(64))
    loads = np.log(variances[order]).reshape(8, 8).sum(axis=1)
    assert np.ptp(loads) < 0.1 * abs(loads.mean())
    assert np.ptp(np.log(variances).reshape(8, 8).sum(axis=1)) > abs(loads.mean())  # as they stood, they were not


def test_axes_are_orthonormal_and_ordered() -> None:
    sample = made_up_vectors(200, k=6)
    directions, energies = axes(np.einsum("nkh,njh->kj", sample, sample) / len(sample))
    np.testing.assert_allclose(directions.T @ directions, np.eye(6), atol=1e-5)
    assert energies.tolist() == sorted(energies.tolist(), reverse=True)
    assert energies[0] > 0.8 * energies.sum()  # alike vectors: one direction has nearly everything


@pytest.mark.parametrize("spread", ["normal", "laplace", "uniform", "skew", "two"])
def test_levels_of_single_components(spread: str) -> None:
    """Even ones, with hardly more error than those of the best range that a search by force finds."""
    draw = np.random.default_rng(4)
    values = {
        "normal": lambda: draw.standard_normal(6000),
        "laplace": lambda: draw.laplace(size=6000),
        "uniform": lambda: draw.uniform(-3, 9, 6000),
        "skew": lambda: draw.exponential(size=6000),
        "two": lambda: draw.integers(2, size=6000).astype(float),
    }[spread]()

    def error(levels: np.ndarray) -> float:
        return float(np.square(np.abs(values[:, None] - levels).min(axis=1)).mean())

    levels = even_levels(values.astype(np.float32))
    assert len(levels) == 256
    np.testing.assert_allclose(np.diff(levels), np.diff(levels).mean(), rtol=1e-3)
    ends = np.quantile(values, [[0, 0.0002, 0.001, 0.005], [1, 0.9998, 0.999, 0.995]])
    least = min(error(np.linspace(low, high, 256)) for low, high in itertools.product(*ends))
    assert error(levels) < 1.1 * least + 1e-9


def test_rounding_finds_the_level_that_faiss_finds(vectors: np.ndarray) -> None:
    tier = next(tier for tier in train_codec(vectors[:300], 64).tiers if tier.scale_and_start is not None)
    values = 3 * np.random.default_rng(2).standard_normal((500, tier.size), dtype=np.float32)
    levels = tier.centroids[:, :, 0]

    def left(codes: np.ndarray) -> np.ndarray:
        return np.abs(np.take_along_axis(levels, codes.T.astype(np.int64), axis=1).T - values)

    np.testing.assert_allclose(left(tier.codes(values)), left(tier.quantizer.compute_codes(values)), atol=1e-6)
    assert {0, 255} <= set(tier.codes(values).flat), "values beyond the range are cut"


def test_uneven_levels_of_an_older_index_are_looked_up(vectors: np.ndarray, queries: list[np.ndarray]) -> None:
    codec = train_codec(vectors[:300], 64)
    even = next(tier for tier in codec.tiers if tier.scale_and_start is not None)
    uneven = replace(even, centroids=even.centroids + 0.01 * np.abs(even.centroids) ** 1.5)
    assert uneven.scale_and_start is None
    older = replace(codec, tiers=tuple(uneven if tier is even else tier for tier in codec.tiers))
    records = older.encode(vectors)
    found = QueryTables(older, queries[0]).scores(records)
    np.testing.assert_allclose(found, maxsim(queries[0][None], older.decode(records))[0], atol=2e-5)


def test_levels_of_a_constant() -> None:
    assert set(even_levels(np.full(50, 0.25, np.float32)).tolist()) == {0.25}
