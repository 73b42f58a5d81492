"""Retrieval measures by ir-measures (trec_eval's definitions), counted over every judged query."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10")
_MEASURE = re.compile(r"(?P<name>\w+)(\(rel=(?P<rel>\d+)\))?(@(?P<cutoff>\d+))?")


@dataclass(frozen=True)
class Evaluation:
    """Measures of one run: per query (measure → query id → value) and what the run left out."""

    per_query: dict[str, dict[str, float]]
    without_results: list[str]
    unjudged: list[str]

    @property
    def means(self) -> dict[str, float]:
        """Mean of each measure over all judged queries; a query without results counts 0."""
        return {name: statistics.fmean(values.values()) for name, values in self.per_query.items()}


def evaluate(
    run: Mapping[str, Mapping[str, float]],
    qrels: Mapping[str, Mapping[str, int]],
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> Evaluation:
    """Measure a run against judgements.

    Only queries with at least one positive grade count, as there is nothing to find for the others. Any positive
    grade is relevant for recall and reciprocal rank; nDCG takes the grade as its gain.

    Raises
    ------
    InputError
        For an unknown measure, or judgements without any relevant passage.
    """
    import ir_measures

    parsed = {name: _measure(name) for name in measures}
    judged = {qid: dict(grades) for qid, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    if not judged:
        raise InputError("the judgements hold no relevant passage, so nothing can be measured.")
    hits = {qid: dict(run.get(qid, {})) for qid in judged}
    names = {str(measure): name for name, measure in parsed.items()}
    per_query: dict[str, dict[str, float]] = {name: dict.fromkeys(judged, 0.0) for name in measures}
    filled = {qid: found for qid, found in hits.items() if found}
    if filled:
        for metric in ir_measures.iter_calc(list(parsed.values()), judged, filled):
            per_query[names[str(metric.measure)]][metric.query_id] = float(metric.value)
    return Evaluation(
        per_query,
        without_results=[qid for qid, found in hits.items() if not found],
        unjudged=[qid for qid in run if qid not in judged],
    )


def _measure(text: str) -> Any:
    """Return the ir-measures object of a name such as nDCG@10 or RR(rel=2)@10.

    Their own parser needs `ast.Num`, which Python 3.14 no longer has.
    """
    from ir_measures.measures import registry

    match = _MEASURE.fullmatch(text.strip())
    if not match or match["name"] not in registry:
        raise InputError(f"unknown measure '{text}'; write for instance nDCG@10, R@100, RR@10, AP, RR(rel=2)@10.")
    measure = registry[match["name"]]
    if match["rel"]:
        measure = measure(rel=int(match["rel"]))
    return measure @ int(match["cutoff"]) if match["cutoff"] else measure
