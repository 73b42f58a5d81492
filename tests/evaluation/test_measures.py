"""Names of measures: every alias, every setting, and a clear error for what cannot be computed."""

from __future__ import annotations

import re

import pytest
import pytrec_eval
from ir_measures.measures import registry

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.evaluation.measures import parse_measure
from diffretriever_pyserini.evaluation.metrics import evaluate

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"a": 1}, "q10": {"b": 1}}
RUN = {"q1": {"x": 4.0, "a": 3.0, "c": 2.0, "b": 1.0}, "q2": {"b": 2.0, "a": 1.0}, "other": {"a": 1.0}}


@pytest.mark.parametrize("cutoff", ["", "@10"])
@pytest.mark.parametrize("name", list(registry))
def test_every_registered_name_gives_a_value_or_a_clear_error(name: str, cutoff: str) -> None:
    try:
        mean = evaluate(RUN, QRELS, [name + cutoff]).means[name + cutoff]
    except InputError as error:
        assert str(error).startswith(f"measure '{name}{cutoff}'") and len(str(error)) < 400
    else:
        assert mean >= 0 and (mean <= 1 or name.startswith("Num"))


TREC_EVAL = {
    "NDCG_CUT_2": "nDCG@2",
    "Map": "AP",
    "p_1": "P@1",
    "rr@10": "RR@10",
    "iprec_at_recall_0.10": "IPrec@0.1",
    "rprec": "Rprec",
    "num_rel_ret": "NumRet(rel=1)",
    "num_q": "NumQ",
    "set_P": "SetP",
    "set_recall": "SetR",
    "set_F": "SetF",
    "set_map": "SetAP",
    "ndcg_cut.2": "nDCG@2",
    "ndcg_cut_2": "nDCG@2",
    "ndcg": "nDCG",
    "recall.2": "R@2",
    "map": "AP",
    "map_cut_2": "AP@2",
    "recip_rank": "RR",
    "P_1": "P@1",
    "bpref": "Bpref",
    "success.1": "Success@1",
}


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("RR@10", "MRR@10", 1 / 3),
        ("RR", "MRR", 1 / 3),
        ("RR@10", "RR(rel=1)@10", 1 / 3),
        ("P@1", "Precision@1", 0.0),
        ("R@2", "Recall@2", 0.5),
        ("AP", "MAP", (0.5 + 0.5) / 2 / 3 + 0.5 / 3),
        ("nDCG@2", "NDCG@2", None),
        ("Rprec", "RPrec", 0.5 / 3),
        ("Bpref", "BPref", None),
        ("NumRet(rel=1)", "NumRelRet", 3.0),
        ("SetP(relative=True)", "SetRelP", None),
        ("IPrec@0.1", "IPrec@0.10", None),
        *((name, trec_eval_name, None) for trec_eval_name, name in TREC_EVAL.items()),
    ],
)
def test_one_measure_under_two_names(name: str, other: str, expected: float | None) -> None:
    means = evaluate(RUN, QRELS, [name, other, name]).means
    assert list(means) == [name, other]
    assert means[name] == means[other]
    assert means == pytest.approx(evaluate(RUN, QRELS, [name]).means | evaluate(RUN, QRELS, [other]).means)
    if expected is not None and name != "R@2":
        assert means[name] == pytest.approx(expected)


@pytest.mark.parametrize(
    "name",
    ["ndcg_cut_10", "map", "recip_rank", "recall_100", "P_10", "map_cut_10", "success_5", "ndcg", "Rprec", "bpref",
     "iprec_at_recall_0.10", "set_P", "set_recall", "set_map", "num_ret", "num_rel", "num_rel_ret"],
)  # fmt: skip
def test_trec_evals_name_gives_trec_evals_value(name: str) -> None:
    judged = {"q1": QRELS["q1"], "q2": QRELS["q2"]}
    run = {qid: RUN[qid] for qid in judged}
    expected = pytrec_eval.RelevanceEvaluator(judged, {re.sub(r"_(\d+\.?\d*)$", r".\1", name)}).evaluate(run)
    for written in (name, name.upper()):
        assert evaluate(run, judged, [written]).per_query[written] == pytest.approx(
            {qid: values[name] for qid, values in expected.items()}
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NumQ", 3.0),  # counts judgements, independent of the run
        ("NumRel", 4.0),
        ("NumRet", 6.0),
        ("NumRet(rel=1)", 3.0),
        ("Judged@2", 1 / 3),
        ("ERR@1", 0.0),
        ("ERR@2", (3 / 16 / 2 + 1 / 16 / 2) / 3),  # gdeval takes only numbers as query ids
        ("RBP(p=0.5,rel=1)", None),
        ("nDCG(dcg='exp-log2')@10", None),
        ("nDCG(gains={1: 5, 2: 1})@10", None),
        ("SetF(beta=2)", None),
        ("P(judged_only=True)@1", 2 / 3),
    ],
)
def test_settings_and_counts(name: str, expected: float | None) -> None:
    try:
        alone = evaluate(RUN, QRELS, [name]).means[name]
    except InputError as error:
        assert "not installed" in str(error) and expected is None
        return
    among = evaluate(RUN, QRELS, ["P@1", "nDCG@10", "P(judged_only=True)@2", name, "nDCG(gains={1: 9})@10", "NumRet"])
    assert among.means[name] == alone
    assert among.means["nDCG@10"] == evaluate(RUN, QRELS, ["nDCG@10"]).means["nDCG@10"]
    assert among.means["NumRet"] == 6
    if expected is not None:
        assert alone == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("P@0", "cut-off 0 is out of range: from 1 to"),
        ("P@-1", "cut-off -1 is out of range"),
        ("nDCG@2147483648", "cut-off 2147483648 is out of range"),
        ("P@99999999999999999999999", "out of range"),
        ("RR@0", "out of range"),
        ("Judged@0", "out of range"),
        ("P@ten", "ten is not a number"),
        ("P@1.5", "1.5 is not a whole number"),
        ("P@True", "True is not a whole number"),
        ("RR(rel=-1)@10", "rel -1 is out of range"),
        ("RR(rel=99999999999)@10", "rel 99999999999 is out of range"),
        ("RR(cutoff=0)", "cut-off 0 is out of range"),
        ("IPrec@2.5", "recall 2.5 is out of range: from 0 to 1"),
        ("IPrec@0.123", "at most two decimals"),
        ("nDCG(gains={1: 99999999999})@10", "gains 99999999999 is out of range"),
        ("nDCG(gains={1: 0.5})@10", "gains must be whole numbers, not 0.5"),
        ("nDCG(dcg='log3')@10", "dcg='log3' is not allowed; allowed is one of 'log2', 'exp-log2'"),
        ("nDCG(base=2)@10", "no setting 'base'; nDCG has: cutoff, dcg"),
        ("RR(2)@10", "must be names and values"),
        ("RR(rel=)@10", "cannot be read"),
        ("R", "needs a cut-off: for instance R@10"),
        ("Recall", "needs a cut-off: for instance Recall@10"),
        ("IPrec", "needs a recall: for instance IPrec@0.1"),
        ("Rprec@10", "Rprec takes no cut-off; write Rprec"),
        ("NERR8@10", r"needs a max_rel: for instance NERR8\(max_rel=4\)"),
        ("RBP", "cannot compute it in this form; more settings are: .*rel, minimum relevance"),
        ("recip_rnk", "did you mean recip_rank"),
        ("gm_map", "unknown measure 'gm_map'; "),
        ("recall", "needs a cut-off: for instance recall@10"),
        ("P_0", "measure 'P_0': cut-off 0 is out of range"),
        ("P_5,10", "unknown measure"),
        ("nDGC@10", "did you mean nDCG"),
        ("", "unknown measure ''"),
        ("RR@10@10", "unknown measure"),
    ],
)
def test_an_invalid_measure_is_refused_with_a_sentence(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_measure(name)


def test_a_missing_package_is_named() -> None:
    pytest.importorskip("ir_measures")
    with pytest.raises(InputError, match=r"RBP\(rel=1\)' needs a package that is not installed: pip install .*cwl"):
        parse_measure("RBP(rel=1)")


def test_a_failing_measure_is_named_and_fails_alone() -> None:
    with pytest.raises(InputError, match=r"measure 'Accuracy' cannot be computed .*ZeroDivisionError"):
        evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 5}}, ["nDCG@10", "Accuracy"])
    with pytest.raises(InputError, match=r"measure 'ERR@10' takes grades up to 4; the judgements have 5"):
        evaluate({"q1": {"a": 1.0}}, {"q1": {"a": 5}}, ["nDCG@10", "ERR@10"])
