"""`diffretriever demo`: the main job, end to end, on real text."""

import argparse
from pathlib import Path
from typing import Any

from ..runtime.threads import processors

_HELP = "encode, index, search and measure a whole collection with Pyserini's own commands"
_EXAMPLES = """examples:
  diffretriever demo                                  the documentation inside this Python
  diffretriever demo --dataset data/nfcorpus          a folder with corpus.jsonl, queries.jsonl, qrels/test.tsv (or .gz)
  diffretriever demo --dataset data/big --limit 5000  a smaller pool of it, judged passages first
  diffretriever demo --encoder my-checkpoint          a checkpoint folder, hub id, prebuilt name or YAML file
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help=_HELP,
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", type=Path, metavar="DIR", help="collection in BEIR layout")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: .demo/<name of the collection>")
    parser.add_argument("--encoder", default="diffretriever", metavar="NAME", help="model (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=min(4, processors()), help="for Lucene (here: %(default)s)")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="encode at most N passages (of the documentation inside this Python: 1000 unless told otherwise)",
    )
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..demo.pipeline import DemoOptions, run_demo

    dataset = arguments.dataset
    name = dataset.expanduser().resolve().name if dataset else "python-docs"
    run_demo(
        DemoOptions(
            output=arguments.output or Path(".demo") / name,
            dataset=dataset,
            encoder=arguments.encoder,
            device=arguments.device,
            threads=arguments.threads,
            limit=arguments.limit,
        ),
        say=lambda line: print(line, flush=True),
    )
