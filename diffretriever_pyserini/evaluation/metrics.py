"""Retrieval measures by ir-measures (trec_eval's definitions), over all judged queries."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10")
_OF_JUDGEMENTS = ("NumQ", "NumRel")  # measures that do not depend on the run


@dataclass(frozen=True)
class Evaluation:
    """Measures of one run: values per query (measure → query id → value), and queries that do not match.

    ``sums`` names the counting measures (NumRet), whose value over a run is a sum rather than a mean.
    """

    per_query: dict[str, dict[str, float]]
    without_results: list[str]
    unjudged: list[str]
    sums: frozenset[str] = frozenset()

    @property
    def means(self) -> dict[str, float]:
        """Mean, or sum, of each measure over all judged queries; a query without results counts 0."""
        return {
            name: math.fsum(values.values()) if name in self.sums else statistics.fmean(values.values())
            for name, values in self.per_query.items()
        }

    @property
    def notes(self) -> list[str]:
        """Remarks on queries that only the run or only the judgements have."""
        kinds = (("without results (counted 0)", self.without_results), ("not judged", self.unjudged))
        return [f"{len(qids)} queries {kind}, for instance {qids[0]}" for kind, qids in kinds if qids]


def evaluate(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> Evaluation:
    """Measure a run against judgements.

    Only queries with at least one positive grade count: the others have nothing to retrieve. Any positive grade is
    relevant for recall and reciprocal rank; nDCG uses the grade as its gain. Every measure gets the passages in
    trec_eval's order: equal scores by descending docid.

    Parameters
    ----------
    run : query id → docid → score.
    qrels : query id → docid → grade.
    measures : ir-measures' or trec_eval's names, in any case; the result has each once, as written here.

    Returns
    -------
    An Evaluation: values per query, ``means``, and what was left out.

    Raises
    ------
    InputError
        For a measure that cannot be computed, a score that is not a number, and judgements without any relevant
        passage or with a grade out of range.

    Examples
    --------
    >>> from diffretriever_pyserini import evaluate
    >>> run = {"q1": {"p1": 0.9, "p2": 0.8}}
    >>> evaluate(run, {"q1": {"p2": 1}}, ["RR@10", "R@100"]).means
    {'RR@10': 0.5, 'R@100': 1.0}
    """
    from ir_measures.measures import SumAgg

    from .measures import parse_measure, values

    parsed = {name: parse_measure(name) for name in measures}
    judged = {qid: _grades(qid, grades) for qid, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise InputError("the judgements hold no relevant passage, so nothing can be measured.")
    # ir-measures' packages order ties differently, and one of them takes only numbers as query ids.
    numbers = {qid: str(number) for number, qid in enumerate(judged, start=1)}
    ranks = {number: _ranks(qid, run[qid]) for qid, number in numbers.items() if run.get(qid)}
    grades = {numbers[qid]: query_grades for qid, query_grades in judged.items()}
    computed = {measure: dict.fromkeys(judged, 0.0) for measure in parsed.values()}
    qids = dict(zip(numbers.values(), numbers, strict=True))
    of_judgements = [measure for measure in computed if measure.NAME in _OF_JUDGEMENTS]
    of_run = [measure for measure in computed if measure not in of_judgements]
    for group, group_run in ((of_judgements, grades), (of_run, ranks)):
        if group_run:
            for measure, number, value in values(group, grades, group_run):
                computed[measure][qids[number]] = value
    return Evaluation(
        {name: computed[measure] for name, measure in parsed.items()},
        without_results=[qid for qid in judged if not run.get(qid)],
        unjudged=[qid for qid in run if qid not in judged],
        sums=frozenset(name for name, measure in parsed.items() if isinstance(measure.aggregator(), SumAgg)),
    )


def _ranks(qid: str, hits: Mapping[str, float]) -> dict[str, float]:
    """Scores without ties, in trec_eval's order."""
    from ..scoring.ranking import trec_eval_order

    if any(map(math.isnan, hits.values())):
        raise InputError(f"the run has a score for query '{qid}' that is not a number.")
    return {docid: float(len(hits) - i) for i, docid in enumerate(trec_eval_order(hits))}


def _grades(qid: str, grades: Mapping[str, int]) -> dict[str, int]:
    from ..corpora.qrels import check_grade

    return {docid: check_grade(grade, f"query '{qid}', passage '{docid}'") for docid, grade in grades.items()}
