"""Measures against figures computed by hand."""

import math

import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.evaluation.metrics import evaluate


def test_measures_equal_the_hand_computed_ones() -> None:
    qrels = {"q1": {"a": 2, "b": 1, "c": 0}}
    run = {"q1": {"c": 3.0, "a": 2.0, "x": 1.0}}
    evaluation = evaluate(run, qrels)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert evaluation.means["nDCG@10"] == pytest.approx((2 / math.log2(3)) / ideal)
    assert evaluation.means["R@100"] == pytest.approx(0.5)
    assert evaluation.means["RR@10"] == pytest.approx(0.5)


def test_a_query_without_results_counts_zero_and_is_reported() -> None:
    evaluation = evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"b": 1}})
    assert evaluation.per_query["nDCG@10"] == {"q1": 1.0, "q2": 0.0}
    assert evaluation.means["R@100"] == 0.5
    assert evaluation.without_results == ["q2"]


def test_an_empty_run_counts_zero() -> None:
    assert evaluate({}, {"q1": {"a": 1}}).means == {"nDCG@10": 0.0, "R@100": 0.0, "RR@10": 0.0}


def test_queries_without_a_relevant_passage_do_not_count() -> None:
    evaluation = evaluate({"q1": {"a": 1.0}, "q2": {"a": 1.0}}, {"q1": {"a": 1}, "q2": {"a": 0}}, ["RR@10"])
    assert evaluation.means == {"RR@10": 1.0}
    assert evaluation.unjudged == ["q2"]


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


def test_a_measure_can_require_a_higher_grade() -> None:
    evaluation = evaluate({"q1": {"a": 2.0, "b": 1.0}}, {"q1": {"a": 1, "b": 2}}, ["RR@10", "RR(rel=2)@10"])
    assert evaluation.means == {"RR@10": 1.0, "RR(rel=2)@10": 0.5}


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-12])
@pytest.mark.parametrize("score", [1.0, 0.7, 700.0])
def test_every_measure_orders_ties_as_trec_eval_does(score: float, apart: float) -> None:
    """The largest docid comes first, also where scores differ only beyond the precision of float32."""
    run = {"q1": {"a": score + apart, "b": score}}
    measures = ["RR", "RR@10", "P@1", "nDCG@10", "AP", "Judged@1", "Success@1", "ERR@10", "Compat(p=0.5)"]
    last = evaluate(run, {"q1": {"b": 1}}, measures).means
    assert [last[name] for name in measures if name != "ERR@10"] == [1.0] * 8
    first = evaluate(run, {"q1": {"a": 1}}, measures).means
    assert [first[name] for name in ("RR", "RR@10", "P@1", "Success@1", "Judged@1")] == [0.5, 0.5, 0.0, 0.0, 0.0]
    assert first["nDCG@10"] == pytest.approx(1 / math.log2(3))
    assert first["ERR@10"] == pytest.approx(last["ERR@10"] / 2, abs=1e-5)


def test_ids_are_compared_bytewise() -> None:
    run = {"q1": dict.fromkeys(["9", "10", "é", "𝒳", "\uffff"], 0.5)}
    means = {docid: evaluate(run, {"q1": {docid: 1}}, ["RR", "RR@10"]).means for docid in run["q1"]}
    for rank, docid in enumerate(["𝒳", "\uffff", "é", "9", "10"], 1):
        assert means[docid] == {"RR": pytest.approx(1 / rank), "RR@10": pytest.approx(1 / rank)}


def test_grades_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"query 'q1', passage 'b': the grade 99999999999 is out of range"):
        evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 1, "b": 99999999999}})
    with pytest.raises(InputError, match=r"the grade 0\.5 is not a whole number"):
        evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 0.5}})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="a score for query 'q1' that is not a number"):
        evaluate({"q1": {"a": math.nan}}, {"q1": {"a": 1}})
    assert evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 1_000_000, "b": -2}}).means["R@100"] == 1
