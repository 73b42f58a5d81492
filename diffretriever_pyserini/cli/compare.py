"""The output of `diffretriever evaluate --compare`, in addition to the measures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files.atomic import whole_file
from ..settings import CountFrom0, parser_of

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison
    from ..evaluation.metrics import Evaluation

_WIDTH = 70


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options of a comparison to `evaluate`."""
    group = parser.add_argument_group(
        "comparison", "the first --run is the baseline; all other runs are compared with it"
    )
    group.add_argument("--compare", type=Path, nargs="+", metavar="FILE", help="more TREC runs")
    group.add_argument("--topics", metavar="SOURCE", help="topics, to show the texts of queries")
    group.add_argument(
        "--deltas", type=parser_of(Path), metavar="FILE", help="write the differences per query here (TSV)"
    )
    group.add_argument(
        "--plot", type=parser_of(Path), metavar="FILE", help="draw the sorted differences (.png, .pdf, .svg)"
    )
    group.add_argument(
        "--seed", type=parser_of(CountFrom0), default=0, metavar="N", help="for the randomisation test (default: 0)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Raise InputError for options that need a comparison, and for a run that is named twice."""
    if arguments.compare is None:
        for option in ("topics", "deltas", "plot"):
            if getattr(arguments, option) is not None:
                raise InputError(f"--{option} belongs to a comparison: add --compare RUN.")
        return
    runs = [str(path) for path in (*arguments.run, *arguments.compare)]
    repeated = next((run for run in runs if runs.count(run) > 1), None)
    if repeated is not None:
        raise InputError(f"{repeated} is named twice; a run is not compared with itself.")


def as_json(comparisons: Sequence[Comparison], count: int = 5) -> list[dict[str, Any]]:
    """The comparisons as JSON values; ``p_holm`` is corrected over all runs of the measure."""
    return [
        {
            "run": one.run,
            "measure": one.measure,
            "difference": one.difference,
            "won": one.won,
            "tied": one.tied,
            "lost": one.lost,
            "t_test": {"p": one.p_t, "p_holm": one.p_t_holm},
            "randomisation": {"p": one.p_random, "p_holm": one.p_random_holm},
            **{name: dict(deltas) for name, deltas in zip(("gains", "losses"), one.extremes(count), strict=True)},
        }
        for one in comparisons
    ]


def as_text(
    comparisons: Sequence[Comparison], baseline: str, topics: Mapping[str, str] | None = None, count: int = 5
) -> str:
    """Table of differences, then the queries with the largest gains and losses in the first measure."""
    from ..evaluation.report import text_table

    several = len({one.run for one in comparisons}) > 1
    first = comparisons[0]
    correction = ", and Holm's are corrected for all runs of the table" if several else ""
    lines = [f"Against {baseline}, {len(first.deltas)} judged queries; p-values are two-sided{correction}:"]
    header = ["run", "measure", "difference", "won", "tied", "lost", "t-test", "randomisation"]
    if several:
        header[7:] = ["t+Holm", "randomisation", "rand.+Holm"]
    rows = []
    for one in comparisons:
        figures = [one.p_t, one.p_t_holm, one.p_random, one.p_random_holm] if several else [one.p_t, one.p_random]
        counts = [str(number) for number in (one.won, one.tied, one.lost)]
        rows.append([one.run, one.measure, f"{one.difference:+.4f}", *counts, *map(_p, figures)])
    lines += [text_table(header, rows)]
    for one in comparisons:
        if one.measure == first.measure:
            lines += _extremes(one, topics or {}, count)
    return "\n".join(lines)


def _extremes(one: Comparison, topics: Mapping[str, str], count: int) -> list[str]:
    lines = []
    for name, deltas in zip(("gains", "losses"), one.extremes(count), strict=True):
        if deltas:
            lines += ["", f"{one.run}: largest {name} in {one.measure}"]
            lines += [f"  {delta:+.4f}  {qid}  {_cut(topics.get(qid, ''))}".rstrip() for qid, delta in deltas]
    return lines


def notes(evaluations: Mapping[str, Evaluation], baseline: str) -> list[str]:
    """A note for each run that has results for other queries than the baseline."""
    base = set(evaluations[baseline].without_results)
    remarks = []
    for run, evaluation in evaluations.items():
        only_run, only_base = base - set(evaluation.without_results), set(evaluation.without_results) - base
        if only_run or only_base:
            remarks.append(
                f"Note: {run} and {baseline} have results for different queries: {len(only_run)} only in the former, "
                f"{len(only_base)} only in the latter. All judged queries count; one without results counts 0."
            )
    return remarks


def write_deltas(
    path: Path, comparisons: Sequence[Comparison], evaluations: Mapping[str, Evaluation], baseline: str
) -> None:
    """Write run, query, measure, both values and the difference as TSV with a header line."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("run\tquery\tmeasure\tbaseline\tvalue\tdelta\n")
        for one in comparisons:
            before = evaluations[baseline].per_query[one.measure]
            after = evaluations[one.run].per_query[one.measure]
            file.writelines(
                f"{one.run}\t{qid}\t{one.measure}\t{before[qid]:.6f}\t{after[qid]:.6f}\t{delta:+.6f}\n"
                for qid, delta in one.deltas.items()
            )


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
