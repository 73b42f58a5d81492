"""Order of ranked lists, by hand and against trec_eval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from diffretriever_pyserini.scoring import ranking
from diffretriever_pyserini.scoring.ranking import (
    as_written,
    best,
    best_rows,
    ranked,
    through_ties,
    trec_eval_order,
    whole_scores,
)


def test_of_equal_scores_the_last_docid_comes_first() -> None:
    assert ranked({"b": 1.0, "a": 1.0, "c": 2.0}) == [("c", 2.0), ("b", 1.0), ("a", 1.0)]
    assert [docid for docid, _ in ranked(dict.fromkeys(["10", "9", "é", "z", "𝒳", "\uffff"], 0.0))] == [
        "𝒳",
        "\uffff",
        "é",
        "z",
        "9",
        "10",
    ]


def test_scores_that_differ_beyond_float32_or_nine_decimals_are_equal() -> None:
    assert [docid for docid, _ in ranked({"a": 0.5 + 1e-9, "b": 0.5})] == ["b", "a"]
    assert [docid for docid, _ in ranked({"a": 2e-10, "b": 1e-10})] == ["b", "a"]
    assert [docid for docid, _ in ranked({"a": 2e-9, "b": 1e-9})] == ["a", "b"]
    assert trec_eval_order({"a": 2e-10, "b": 1e-10, "c": 1e300, "d": 2e300}) == ["d", "c", "a", "b"]
    assert trec_eval_order({"a": 20_000_001.0, "b": 20_000_000.0}) == ["b", "a"]


@pytest.mark.parametrize("decimals", [6, 9])
def test_a_score_that_is_written_is_read_back(decimals: int) -> None:
    random = np.random.default_rng(0)
    scores = random.standard_normal(20_000) * 10.0 ** random.integers(-9, 7, 20_000)
    once = as_written(scores, decimals)
    again = np.array([f"{score:.{decimals}f}" for score in once.tolist()], np.float64).astype(np.float32)
    np.testing.assert_array_equal(again, once)


def test_trec_eval_uses_this_order() -> None:
    import pytrec_eval

    random = np.random.default_rng(1)
    scores = {f"{name}": float(random.integers(3)) + 1e-9 * i for i, name in enumerate(random.permutation(40))}
    order = trec_eval_order(scores)
    for rank, docid in enumerate(order, 1):
        measures = pytrec_eval.RelevanceEvaluator({"q": {docid: 1}}, {"recip_rank"}).evaluate({"q": scores})
        assert measures["q"]["recip_rank"] == pytest.approx(1 / rank)


def test_best_cuts_and_drops_one_document() -> None:
    scores = {"b": 1.0, "a": 1.0, "c": 2.0, "d": 0.5}
    assert best(scores, 2) == [("c", 2.0), ("b", 1.0)]
    assert best(scores, 3, without="c") == [("b", 1.0), ("a", 1.0), ("d", 0.5)]
    assert best({}, 3) == []


@pytest.mark.parametrize("depth", [1, 3, 17, 40, 99])
def test_rows_have_the_same_order(depth: int) -> None:
    random = np.random.default_rng(depth)
    names = [f"d{i}" for i in random.permutation(40)]
    scores = random.integers(0, 4, 40).astype(np.float32)
    rows, best_scores = best_rows(np.arange(40), scores, depth, lambda rows: [names[row] for row in rows])
    assert [(names[row], score) for row, score in zip(rows, best_scores.tolist(), strict=True)] == ranked(
        dict(zip(names, scores.tolist(), strict=True))
    )[:depth]


class RowOrderSearch:
    """A searcher that cuts ties in the order of its rows and records its calls."""

    def __init__(self, scores: list[dict[str, float]]):
        self.scores = [dict(sorted(one.items(), key=lambda hit: -hit[1])) for one in scores]
        self.calls: list[tuple[list[int], int]] = []

    def __call__(self, numbers: Sequence[int], length: int) -> list[dict[str, float]]:
        self.calls.append((list(numbers), length))
        return [dict(list(self.scores[number].items())[:length]) for number in numbers]


def test_a_list_cut_within_a_tie_is_the_head_of_the_full_list() -> None:
    distinct = {f"{i:03}": float(i) for i in range(900)}
    tied = {f"{i:03}": float(i == 7) for i in range(900)}
    search = RowOrderSearch([distinct, tied, {}])
    assert through_ties(search, 3, 5, 900) == [dict(ranked(one)[:5]) for one in search.scores]
    assert search.calls == [([0, 1, 2], 69), ([1], 517), ([1], 900)]


def test_a_tie_is_followed_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "MOST_TIED", 100)
    search = RowOrderSearch([{f"{i:04}": 0.0 for i in range(2000)}])
    five, fifty, many = (list(through_ties(search, 1, depth, 2000)[0]) for depth in (5, 50, 80))
    assert five == fifty[:5] == [f"{i:04}" for i in range(99, 94, -1)]
    assert len(many) == 80 and max(length for _, length in search.calls) == 160


def test_lowered_ties_are_whole_numbers_again() -> None:
    assert whole_scores({"z": 700.0, "y": 699.999939}) == {"z": 700.0, "y": 700.0}
