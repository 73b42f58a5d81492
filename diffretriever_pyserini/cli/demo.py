"""`diffretriever demo`: the main task, end to end, on real text."""

import argparse
from pathlib import Path
from typing import Any

from ..demo.options import DemoOptions
from ..settings import add_options, from_arguments, parser_of

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
    parser.add_argument("--output", type=parser_of(Path), metavar="DIR", help="default: .demo/<name of the collection>")
    add_options(parser, DemoOptions)
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..demo.pipeline import run_demo

    dataset = arguments.dataset
    name = dataset.expanduser().resolve().name if dataset else "python-docs"
    output = arguments.output or Path(".demo") / name
    run_demo(from_arguments(DemoOptions, arguments, output=output), say=lambda line: print(line, flush=True))
