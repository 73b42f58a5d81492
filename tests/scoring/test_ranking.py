"""Order of ranked lists, by hand."""

from __future__ import annotations

from diffretriever_pyserini.scoring.ranking import best, ranked, whole_scores


def test_ranked_orders_ties_by_docid() -> None:
    assert ranked({"b": 1.0, "a": 1.0, "c": 2.0}) == [("c", 2.0), ("a", 1.0), ("b", 1.0)]


def test_best_cuts_and_drops_one_document() -> None:
    scores = {"b": 1.0, "a": 1.0, "c": 2.0, "d": 0.5}
    assert best(scores, 3) == [("c", 2.0), ("a", 1.0), ("b", 1.0)]
    assert best(scores, 3, without="c") == [("a", 1.0), ("b", 1.0), ("d", 0.5)]
    assert best({}, 3) == []


def test_lowered_ties_are_whole_again() -> None:
    assert whole_scores({"z": 700.0, "y": 699.999939}) == {"z": 700.0, "y": 700.0}
