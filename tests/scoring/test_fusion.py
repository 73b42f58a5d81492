"""Fusion of ranked lists, against numbers computed by hand and against the paper's equation over whole matrices."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from annotated_types import Le
from hypothesis import given, settings
from hypothesis import strategies as st

from diffretriever_pyserini import scoring
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.scoring.fusion import (
    Contribution,
    RankedList,
    add_raw,
    fuse_lists,
    lexical_floor,
    pyserini_weights,
)
from diffretriever_pyserini.scoring.ranking import Hits, ranked
from diffretriever_pyserini.settings import RankConstant

Scores = dict[str, float]


def two(dense: Scores, lexical: Scores, floor: float | None = None, alpha: float = 1.0, **how: Any) -> list[RankedList]:
    weights = pyserini_weights(alpha, **how)
    return [RankedList("dense", ranked(dense), weights[0]), RankedList("lexical", ranked(lexical), weights[1], floor)]


def min_max(*arguments: Any, **how: Any) -> Hits:
    return fuse_lists(two(*arguments, **how)).hits


def test_both_lists_are_scaled_and_weighted() -> None:
    dense, lexical = {"a": 3.0, "b": 2.0, "c": 1.0}, {"b": 30.0, "d": 10.0, "e": 20.0}
    assert min_max(dense, lexical) == [("b", 0.75), ("a", 0.5), ("e", 0.25), ("d", 0.0), ("c", 0.0)]


def test_a_short_lexical_list_has_the_minimum_zero() -> None:
    assert dict(min_max({"a": 1.0, "b": 0.0}, {"b": 40.0, "c": 10.0}, 0.0)) == {"a": 0.5, "b": 0.5, "c": 0.125}
    assert dict(min_max({"a": 1.0, "b": 0.0}, {"b": 40.0, "c": 10.0})) == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_alpha_weighs_the_lexical_list_or_the_dense_one() -> None:
    dense, lexical = {"a": 1.0, "b": 0.0}, {"b": 1.0, "a": 0.0}
    assert dict(min_max(dense, lexical, alpha=3.0)) == {"b": 0.75, "a": 0.25}
    assert dict(min_max(dense, lexical, alpha=3.0, weight_on_dense=True)) == {"a": 0.75, "b": 0.25}
    assert dict(min_max(dense, lexical, alpha=0.0)) == {"a": 1.0, "b": 0.0}


def test_raw_scores_are_added_without_normalization() -> None:
    dense, lexical = {"a": 3.0, "b": 2.0}, {"b": 30.0, "d": 10.0}
    assert add_raw(two(dense, lexical, alpha=0.1)).hits == [("b", 5.0), ("a", 4.0), ("d", 3.0)]
    assert add_raw(two(dense, lexical, 0.0, alpha=0.1)).hits == [("b", 5.0), ("d", 3.0), ("a", 3.0)]
    assert add_raw(two(dense, lexical, alpha=2.0, weight_on_dense=True)).hits == [("b", 34.0), ("a", 16.0), ("d", 14.0)]


@pytest.mark.parametrize("fuse", [fuse_lists, add_raw])
@pytest.mark.parametrize("floor", [None, 0.0])
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
    dense: Scores, lexical: Scores, floor: float | None, fuse: Any
) -> None:
    fused = fuse(two(dense, lexical, floor)).hits
    assert {docid for docid, _ in fused} == dense.keys() | lexical.keys()
    assert all(math.isfinite(score) for _, score in fused)


def test_one_hit_in_each_list() -> None:
    assert min_max({"a": 0.3}, {"a": 7.0}, 0.0) == [("a", 0.5)]  # the list's minimum is the 0 of all others
    assert min_max({"a": 0.3}, {"a": 7.0}) == min_max({"a": 0.3}, {}) == [("a", 0.0)]
    assert min_max({}, {}) == []


def test_ties_go_by_descending_docid() -> None:
    assert min_max({}, {"y": 7.0, "z": 7.0, "x": 5.0}) == [("z", 0.5), ("y", 0.5), ("x", 0.0)]
    lists = [RankedList("dense", ranked({"a": 2.0, "b": 1.0})), RankedList("lexical", ranked({"b": 2.0, "a": 1.0}))]
    assert [docid for docid, _ in fuse_lists(lists, "rrf").hits] == ["b", "a"]
    # Scores that differ only in float64 are tied in every fused list, too.
    tied = RankedList("dense", ranked({"a": 0.1 + 1e-12, "b": 0.1}))
    assert [one.rank for one in fuse_lists([tied, lists[1]], "rrf").contributions("b")] == [1, 1]


@pytest.mark.parametrize("alpha", [-0.1, math.nan, math.inf])
def test_an_alpha_that_is_negative_or_not_finite_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="--alpha"):
        pyserini_weights(alpha)


def test_a_lexical_list_has_a_floor_if_it_is_not_full() -> None:
    assert lexical_floor(9, 10, 100) == 0.0 and lexical_floor(10, 10, 100) is None
    assert lexical_floor(4, 10, 5) == 0.0 and lexical_floor(5, 10, 5) is None
    assert lexical_floor(9, 10, None) == 0.0 and lexical_floor(10, 10, None) is None


def test_reciprocal_ranks_by_hand() -> None:
    lists = two({"a": 9.0, "b": 8.0}, {"b": 70.0, "c": 60.0})
    fused = fuse_lists(lists, "rrf").hits
    assert [docid for docid, _ in fused] == ["b", "a", "c"]
    assert dict(fused) == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "c": 1 / 62})
    half = [lists[0], RankedList("lexical", lists[1].hits, 0.5)]
    assert dict(fuse_lists(half, "rrf", rrf_k=1).hits) == pytest.approx(
        {"a": 1 / 2, "b": 1 / 3 + 0.5 / 2, "c": 0.5 / 3}
    )


def test_the_largest_constant_of_reciprocal_ranks_keeps_the_order() -> None:
    """Beyond it a run would have ties, in the order of docids."""
    hits = [(f"d{rank:04}", -float(rank)) for rank in range(1000)]
    (constant,) = (one.le for one in get_args(RankConstant) if isinstance(one, Le))
    fused = fuse_lists([RankedList("dense", hits), RankedList("lexical", hits)], "rrf", constant).hits
    assert [docid for docid, _ in fused] == [docid for docid, _ in hits]
    assert len({f"{score:.9f}" for _, score in fused}) == len(hits)


THREE = [
    RankedList("dense", [("a", 4.0), ("b", 2.0)]),
    RankedList("multi", [("b", 9.0), ("c", 8.0), ("a", 5.0)], 2.0),
    RankedList("lexical", [("c", 10.0), ("b", 4.0)], floor=0.0),
]


def test_three_lists_by_hand() -> None:
    # The lexical list is short, so its minimum is 0: c 1, b 0.4. Shares are a quarter, a half and a quarter.
    fused = fuse_lists(THREE).hits
    assert dict(fused) == pytest.approx({"a": 0.25, "b": 0.5 + 0.1, "c": 0.5 * 0.75 + 0.25})
    assert [docid for docid, _ in fused] == ["c", "b", "a"]
    assert dict(fuse_lists(THREE, "rrf", 1).hits)["b"] == pytest.approx(1 / 3 + 2 / 2 + 1 / 3)


def test_contributions_by_hand_add_up_to_the_score() -> None:
    fused = fuse_lists(THREE)
    dense, multi, lexical = fused.contributions("c")
    assert dense == Contribution("dense", 2, None, None, 2.0, 4.0, 0.0, 0.25, 0.0)
    assert multi == Contribution("multi", 3, 2, 8.0, 5.0, 9.0, 0.75, 0.5, 0.375)
    assert lexical == Contribution("lexical", 2, 1, 10.0, 0.0, 10.0, 1.0, 0.25, 0.25)
    for fusion in ("minmax", "rrf"):
        fused = fuse_lists(THREE, fusion)
        for docid, score in fused.hits:
            assert sum(part.adds for part in fused.contributions(docid)) == pytest.approx(score)
    ranks = fuse_lists(THREE, "rrf", 1).contributions("c")
    assert [(part.rank, part.scaled, part.low, part.weight) for part in ranks] == [
        (None, None, None, 1.0),
        (2, None, None, 2.0),
        (1, None, None, 1.0),
    ]
    assert all(part.rank is None and part.adds == 0 for part in fused.contributions("nowhere"))


def test_a_single_list_is_returned_as_it_is() -> None:
    fused = fuse_lists(THREE[1:2], "rrf")
    assert fused.hits == [("b", 9.0), ("c", 8.0), ("a", 5.0)]
    assert fused.contributions("c") == (Contribution("multi", 3, 2, 8.0, None, None, None, 1.0, 8.0),)


@pytest.mark.parametrize("fusion", ["minmax", "rrf"])
def test_weights_that_are_all_zero_are_refused(fusion: str) -> None:
    with pytest.raises(InputError, match="all weights are 0"):
        fuse_lists([RankedList("dense", [("a", 4.0)], 0.0), RankedList("lexical", [("b", 3.0)], 0.0)], fusion)


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(InputError, match="'sum' is not one of minmax, rrf"):
        fuse_lists(THREE, "sum")


def test_a_list_of_weight_zero_changes_no_order() -> None:
    lists = [RankedList("dense", [("a", 4.0), ("b", 2.0)]), RankedList("lexical", [("b", 3.0)], 0.0, 0.0)]
    assert dict(fuse_lists(lists).hits) == {"a": 1.0, "b": 0.0}


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 10_000), st.sampled_from([0.25, 0.5, 0.8]))
def test_ranked_lists_fuse_as_whole_matrices_do(documents: int, depth: int, seed: int, weight: float) -> None:
    """Searchers return the best `depth` of the dense signal, but only positive scores of the lexical one."""
    random = np.random.default_rng(seed)
    dense = random.permutation(documents).astype(np.float32)  # no ties at the cut, where the order of searchers differs
    lexical = np.where(random.random(documents) < 0.6, 1 + random.permutation(documents), 0).astype(np.float32)
    whole = scoring.fuse(dense[None], lexical[None], weight=weight, depth=depth)[0]

    def best(scores: np.ndarray) -> Scores:
        order = sorted((i for i in range(documents) if scores is dense or scores[i] > 0), key=lambda i: -scores[i])
        return {f"{i:02d}": float(scores[i]) for i in order[:depth]}

    lists = best(dense), best(lexical)
    fused = min_max(*lists, lexical_floor(len(lists[1]), depth, documents), alpha=(1 - weight) / weight)
    assert [score for _, score in fused] == sorted((score for _, score in fused), reverse=True)
    for docid, score in fused:
        assert score == pytest.approx(float(whole[int(docid)]), abs=1e-6)
