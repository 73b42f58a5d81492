"""`diffretriever evaluate`: measures of run files."""

import argparse
import json
from pathlib import Path
from typing import Any

_HELP = "measure run files against judgements"
_EXAMPLES = """examples:
  diffretriever evaluate --qrels qrels/test.tsv --run run.dense.txt run.hybrid.txt
  diffretriever evaluate --qrels qrels.txt --run run.txt --measures nDCG@10 "RR(rel=2)@10" AP
  diffretriever evaluate --qrels qrels.txt --run run.txt --per-query queries.tsv --json
Queries without results count 0; queries without a relevant passage do not count.
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    from diffretriever_pyserini.evaluation.metrics import DEFAULT_MEASURES

    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help=_HELP,
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--qrels", type=Path, required=True, metavar="FILE", help="BEIR or TREC judgements, plain or .gz"
    )
    parser.add_argument("--run", type=Path, required=True, nargs="+", metavar="FILE", help="TREC run files")
    parser.add_argument(
        "--measures", nargs="+", default=list(DEFAULT_MEASURES), metavar="M", help="default: %(default)s"
    )
    parser.add_argument("--per-query", type=Path, metavar="FILE", help="write run, query, measure, value (TSV) there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from diffretriever_pyserini.collections.beir import read_qrels
    from diffretriever_pyserini.evaluation.metrics import evaluate
    from diffretriever_pyserini.evaluation.report import measures_table
    from diffretriever_pyserini.evaluation.runs import read_run

    qrels = read_qrels(arguments.qrels)
    found = {str(path): evaluate(read_run(path), qrels, arguments.measures) for path in arguments.run}
    if arguments.per_query:
        with arguments.per_query.open("w", encoding="utf-8") as file:
            for run, evaluation in found.items():
                for measure, values in evaluation.per_query.items():
                    file.writelines(f"{run}\t{qid}\t{measure}\t{value:.6f}\n" for qid, value in values.items())
    if arguments.json:
        print(json.dumps({run: evaluation.means for run, evaluation in found.items()}, indent=2))
        return
    print(measures_table(found, arguments.measures))
    for run, evaluation in found.items():
        for kind, qids in (
            ("without results (counted 0)", evaluation.without_results),
            ("not judged", evaluation.unjudged),
        ):
            if qids:
                print(f"{run}: {len(qids)} queries {kind}, for instance {qids[0]}")
