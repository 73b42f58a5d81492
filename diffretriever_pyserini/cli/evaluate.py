"""`diffretriever evaluate`: measures of run files, and comparisons with a baseline."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..settings import parser_of
from .sources import add_split, split_of

_HELP = "measure run files against judgements"
_EXAMPLES = """examples:
  diffretriever evaluate --qrels qrels/test.tsv --run run.dense.txt run.hybrid.txt
  diffretriever evaluate --qrels qrels.txt --run run.txt --measures nDCG@10 "RR(rel=2)@10" AP
  diffretriever evaluate --qrels dl19-passage --run run.txt --measures ndcg_cut_10 recip_rank map recall_1000
  diffretriever evaluate --qrels data/nfcorpus --split dev --run run.txt
  diffretriever evaluate --qrels qrels.txt --run run.txt --per-query queries.tsv --json
  diffretriever evaluate --qrels qrels.txt --run baseline.txt --compare a.txt b.txt --topics topics.tsv --plot d.png
Judgements: TREC's four columns or BEIR's three, .gz too; a folder in BEIR layout (its --split); irds:NAME of
ir_datasets; or a name that Pyserini knows, such as dl19-passage. Measures: ir_measures' names or trec_eval's, any case.
Queries without results count 0; queries without a relevant passage do not count.
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    from ..evaluation.metrics import DEFAULT_MEASURES
    from . import compare

    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help=_HELP,
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--qrels",
        required=True,
        metavar="SOURCE",
        help="judgements: file, BEIR folder, irds:NAME or a name of Pyserini's",
    )
    add_split(parser)
    parser.add_argument("--run", type=Path, required=True, nargs="+", metavar="FILE", help="TREC run files")
    parser.add_argument(
        "--measures",
        nargs="+",
        default=list(DEFAULT_MEASURES),
        metavar="M",
        help=f"default: {' '.join(DEFAULT_MEASURES)}",
    )
    parser.add_argument(
        "--per-query", type=parser_of(Path), metavar="FILE", help="write run, query, measure, value here (TSV)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    compare.add_to(parser)
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..evaluation.metrics import evaluate
    from ..evaluation.report import measures_table
    from ..evaluation.runs import read_run
    from ..files.outputs import refuse_inputs
    from ..plugin.names import read_qrels
    from .compare import check

    check(arguments)
    refuse_inputs(
        {"--per-query": arguments.per_query, "--deltas": arguments.deltas, "--plot": arguments.plot},
        {name: getattr(arguments, name.removeprefix("--")) for name in ("--qrels", "--run", "--compare", "--topics")},
    )
    qrels = read_qrels(arguments.qrels, split_of(arguments, arguments.qrels, arguments.topics))
    paths = [*arguments.run, *(arguments.compare or ())]
    evaluations = {str(path): evaluate(read_run(path), qrels, arguments.measures) for path in paths}
    if arguments.per_query:
        _write_per_query(arguments.per_query, evaluations)
    comparison = _compare(arguments, evaluations) if arguments.compare else None
    means = {run: evaluation.means for run, evaluation in evaluations.items()}
    if arguments.json:
        print(json.dumps({"runs": means, **comparison[1]} if comparison else means, indent=2))
    else:
        print(measures_table(evaluations, list(dict.fromkeys(arguments.measures))))
    for run, evaluation in evaluations.items():
        for note in evaluation.notes:
            print(f"{run}: {note}", file=sys.stderr if arguments.json else sys.stdout)
    if comparison and not arguments.json:
        print(f"\n{comparison[0]}")


def _compare(arguments: argparse.Namespace, evaluations: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Compare all runs with the first, write the requested files, and return the result as text and as JSON values."""
    from ..evaluation.comparison import compare
    from ..evaluation.plots import plot_deltas
    from ..plugin.names import read_topics
    from .compare import as_json, as_text, notes, write_deltas

    topics = read_topics(arguments.topics, arguments.split or "test") if arguments.topics else None
    baseline = next(iter(evaluations))
    others = {run: evaluation for run, evaluation in evaluations.items() if run != baseline}
    comparisons = compare(evaluations[baseline], others, seed=arguments.seed)
    if arguments.deltas:
        write_deltas(arguments.deltas, comparisons, evaluations, baseline)
    if arguments.plot:
        plot_deltas(arguments.plot, comparisons, baseline)
    remarks = notes(evaluations, baseline)
    plain = {"baseline": baseline, "comparisons": as_json(comparisons), "notes": remarks}
    return "\n".join([as_text(comparisons, baseline, topics), *(["", *remarks] if remarks else [])]), plain


def _write_per_query(path: Path, evaluations: dict[str, Any]) -> None:
    from ..files.atomic import whole_file

    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for run, evaluation in evaluations.items():
            for measure, values in evaluation.per_query.items():
                file.writelines(f"{run}\t{qid}\t{measure}\t{value:.6f}\n" for qid, value in values.items())
