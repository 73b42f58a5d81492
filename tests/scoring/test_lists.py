"""Two lists of one query made into one, by hand-computed numbers."""

from __future__ import annotations

import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.scoring.lists import best, fuse_hits, fuse_sides, reciprocal_ranks


def test_best_orders_ties_by_docid_and_drops_one_document() -> None:
    scores = {"b": 1.0, "a": 1.0, "c": 2.0, "d": 0.5}
    assert best(scores, 3) == [("c", 2.0), ("a", 1.0), ("b", 1.0)]
    assert best(scores, 3, without="c") == [("a", 1.0), ("b", 1.0), ("d", 0.5)]
    assert best({}, 3) == []


def test_min_max_by_hand() -> None:
    dense, lexical = [("a", 4.0), ("b", 3.0), ("c", 2.0)], [("b", 10.0), ("d", 5.0)]
    # Dense: a 1, b 1/2, c 0. The lexical list has room for a third of the four documents, so its minimum is 0.
    assert fuse_hits(dense, lexical, depth=3, documents=4) == [("b", 0.75), ("a", 0.5), ("d", 0.25), ("c", 0.0)]
    # With the list full, its minimum is its last score.
    assert dict(fuse_hits(dense, lexical, depth=2, documents=4))["d"] == 0.0
    weighted = dict(fuse_hits(dense, lexical, depth=3, documents=4, alpha=3.0))
    assert weighted == pytest.approx({"b": 0.25 * 0.5 + 0.75, "a": 0.25, "d": 0.75 * 0.5, "c": 0.0})


def test_one_hit_on_each_side() -> None:
    assert fuse_hits([("a", 0.3)], [("a", 7.0)], depth=1, documents=9) == [("a", 0.0)]
    assert fuse_hits([("a", 0.3)], [], depth=1, documents=9) == [("a", 0.0)]
    assert fuse_hits([], [], depth=1, documents=9) == []


def test_reciprocal_ranks_by_hand() -> None:
    dense, lexical = [("a", 9.0), ("b", 8.0)], [("b", 70.0), ("c", 60.0)]
    expected = [("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("c", 1 / 62)]
    found = reciprocal_ranks((dense, 1.0), (lexical, 1.0))
    assert [docid for docid, _ in found] == ["b", "a", "c"]
    assert dict(found) == pytest.approx(dict(expected))
    assert fuse_hits(dense, lexical, 2, 3, fusion="rrf") == found
    assert dict(reciprocal_ranks((dense, 1.0), (lexical, 0.5), k=1)) == pytest.approx(
        {"a": 1 / 2, "b": 1 / 3 + 0.5 / 2, "c": 0.5 / 3}
    )


def test_three_sides_by_hand() -> None:
    sides = {
        "dense": [("a", 4.0), ("b", 2.0)],
        "multi": [("b", 9.0), ("c", 8.0), ("a", 5.0)],
        "lexical": [("c", 10.0), ("b", 4.0)],
    }
    # The lexical list is short, so its minimum is 0: c 1, b 0.4. Shares are a quarter, a half and a quarter.
    fused = fuse_sides(sides, {"multi": 2.0}, depth=3, documents=5)
    expected = {"a": 0.25, "b": 0.5 + 0.1, "c": 0.5 * 0.75 + 0.25}
    assert dict(fused) == pytest.approx(expected)
    assert [docid for docid, _ in fused] == ["c", "b", "a"]
    ranks = dict(fuse_sides(sides, {"multi": 2.0}, 3, 5, fusion="rrf", rrf_k=1))
    assert ranks["b"] == pytest.approx(1 / 3 + 2 / 2 + 1 / 3)


@pytest.mark.parametrize("fusion", ["minmax", "rrf"])
def test_no_weight_at_all_is_refused(fusion: str) -> None:
    sides = {"dense": [("a", 4.0)], "lexical": [("b", 3.0)]}
    with pytest.raises(InputError, match="all weights are 0"):
        fuse_sides(sides, {"dense": 0.0, "lexical": 0.0}, 2, 9, fusion)


def test_a_side_without_weight_says_nothing() -> None:
    sides = {"dense": [("a", 4.0), ("b", 2.0)], "lexical": [("b", 3.0)]}
    assert dict(fuse_sides(sides, {"lexical": 0.0}, 2, 9)) == {"a": 1.0, "b": 0.0}
