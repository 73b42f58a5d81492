"""Fusion of two ranked lists, against numbers done by hand and against the paper's equation over whole matrices."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffretriever_pyserini import scoring
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.scoring.fusion import fuse_lists, is_short, min_max


def test_both_lists_are_scaled_and_weighed() -> None:
    dense, lexical = {"a": 3.0, "b": 2.0, "c": 1.0}, {"b": 30.0, "d": 10.0, "e": 20.0}
    fused = fuse_lists(dense, lexical, alpha=1.0, normalization=True)
    assert fused == [("b", 0.75), ("a", 0.5), ("e", 0.25), ("c", 0.0), ("d", 0.0)]


def test_a_short_lexical_list_reaches_down_to_zero() -> None:
    fused = dict(fuse_lists({"a": 1.0, "b": 0.0}, {"b": 40.0, "c": 10.0}, 1.0, normalization=True, short=True))
    assert fused == {"a": 0.5, "b": 0.5, "c": 0.125}


def test_alpha_shifts_the_weight_and_its_side_can_be_turned() -> None:
    dense, lexical = {"a": 1.0, "b": 0.0}, {"b": 1.0, "a": 0.0}
    assert dict(fuse_lists(dense, lexical, 3.0, normalization=True)) == {"b": 0.75, "a": 0.25}
    assert dict(fuse_lists(dense, lexical, 3.0, normalization=True, weight_on_dense=True)) == {"a": 0.75, "b": 0.25}
    assert dict(fuse_lists(dense, lexical, 0.0, normalization=True)) == {"a": 1.0, "b": 0.0}


def test_raw_scores_are_added_without_normalization() -> None:
    dense, lexical = {"a": 3.0, "b": 2.0}, {"b": 30.0, "d": 10.0}
    assert fuse_lists(dense, lexical, 0.1) == [("b", 5.0), ("a", 4.0), ("d", 3.0)]
    assert fuse_lists(dense, lexical, 0.1, short=True) == [("b", 5.0), ("a", 3.0), ("d", 3.0)]
    assert fuse_lists(dense, lexical, 2.0, weight_on_dense=True) == [("b", 34.0), ("a", 16.0), ("d", 14.0)]


@pytest.mark.parametrize("normalization", [False, True])
@pytest.mark.parametrize(
    ("dense", "lexical"),
    [
        ({}, {}),
        ({"a": 1.0}, {}),
        ({}, {"a": 1.0}),
        ({"a": 1.0}, {"a": 5.0}),
        ({"a": 1.0, "b": 1.0}, {"c": 2.0, "d": 2.0}),
    ],
)
def test_empty_single_and_equal_lists_never_divide_by_zero(
    dense: dict[str, float], lexical: dict[str, float], normalization: bool
) -> None:
    for short in (False, True):
        fused = fuse_lists(dense, lexical, 1.0, normalization, short=short)
        assert {docid for docid, _ in fused} == dense.keys() | lexical.keys()
        assert all(math.isfinite(score) for _, score in fused)


def test_ties_go_by_docid_and_lowered_ties_are_lifted() -> None:
    lexical = {"z": 700.0, "y": 699.999939, "x": 500.0}
    assert fuse_lists({}, lexical, 1.0, normalization=True)[0][0] == "z"
    assert fuse_lists({}, lexical, 1.0, normalization=True, integers=True) == [("y", 0.5), ("z", 0.5), ("x", 0.0)]


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_an_alpha_that_weighs_nothing_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="--alpha"):
        fuse_lists({}, {}, alpha)


def test_a_list_is_short_when_it_had_room() -> None:
    assert is_short(9, 10, 100) and not is_short(10, 10, 100)
    assert is_short(4, 10, 5) and not is_short(5, 10, 5)
    assert is_short(9, 10, None) and not is_short(10, 10, None)


def test_a_floor_is_only_the_minimum() -> None:
    assert min_max({"a": 4.0, "b": 2.0}, 0.0) == {"a": 1.0, "b": 0.5}
    assert min_max({"a": 4.0, "b": 2.0}) == {"a": 1.0, "b": 0.0}


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 10_000), st.sampled_from([0.25, 0.5, 0.8]))
def test_the_lists_a_host_returns_fuse_as_the_paper_says(documents: int, depth: int, seed: int, weight: float) -> None:
    """Hosts return the best `depth` of the dense side, and of the lexical side only what is above zero."""
    random = np.random.default_rng(seed)
    dense = random.permutation(documents).astype(np.float32)  # no ties at the cut, where hosts have their own order
    lexical = np.where(random.random(documents) < 0.6, 1 + random.permutation(documents), 0).astype(np.float32)
    whole = scoring.fuse(dense[None], lexical[None], weight=weight, depth=depth)[0]

    def best(scores: np.ndarray) -> dict[str, float]:
        order = sorted((i for i in range(documents) if scores is dense or scores[i] > 0), key=lambda i: -scores[i])
        return {f"{i:02d}": float(scores[i]) for i in order[:depth]}

    lists = best(dense), best(lexical)
    short = is_short(len(lists[1]), depth, documents)
    fused = fuse_lists(*lists, alpha=(1 - weight) / weight, normalization=True, short=short, integers=True)
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
    for docid, score in fused:
        assert score == pytest.approx(float(whole[int(docid)]), abs=1e-6)
