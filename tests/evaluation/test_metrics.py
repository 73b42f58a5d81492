"""Measures against figures computed by hand."""

import math

import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.evaluation.metrics import evaluate


def test_measures_equal_the_hand_computed_ones() -> None:
    qrels = {"q1": {"a": 2, "b": 1, "c": 0}}
    run = {"q1": {"c": 3.0, "a": 2.0, "x": 1.0}}
    found = evaluate(run, qrels)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert found.means["nDCG@10"] == pytest.approx((2 / math.log2(3)) / ideal)
    assert found.means["R@100"] == pytest.approx(0.5)
    assert found.means["RR@10"] == pytest.approx(0.5)


def test_a_query_without_results_counts_zero_and_is_reported() -> None:
    found = evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"b": 1}})
    assert found.per_query["nDCG@10"] == {"q1": 1.0, "q2": 0.0}
    assert found.means["R@100"] == 0.5
    assert found.without_results == ["q2"]


def test_an_empty_run_counts_zero() -> None:
    assert evaluate({}, {"q1": {"a": 1}}).means == {"nDCG@10": 0.0, "R@100": 0.0, "RR@10": 0.0}


def test_queries_without_a_relevant_passage_do_not_count() -> None:
    found = evaluate({"q1": {"a": 1.0}, "q2": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"a": 0}}, ["RR@10"])
    assert found.means == {"RR@10": 1.0}
    assert found.unjudged == ["q2"]


def test_recall_stops_at_its_cutoff() -> None:
    run = {"q1": {f"d{number}": float(-number) for number in range(150)}}
    qrels = {"q1": {"d99": 1, "d100": 1}}
    assert evaluate(run, qrels, ["R@100"]).means == {"R@100": 0.5}


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(InputError, match="nDGC"):
        evaluate({}, {"q1": {"a": 1}}, ["nDGC@10"])


def test_judgements_without_relevance_are_refused() -> None:
    with pytest.raises(InputError, match="no relevant passage"):
        evaluate({}, {"q1": {"a": 0}})


def test_a_measure_can_ask_for_a_higher_grade() -> None:
    found = evaluate({"q1": {"a": 2.0, "b": 1.0}}, {"q1": {"a": 1, "b": 2}}, ["RR@10", "RR(rel=2)@10"])
    assert found.means == {"RR@10": 1.0, "RR(rel=2)@10": 0.5}
