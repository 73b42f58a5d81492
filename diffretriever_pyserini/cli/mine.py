"""`diffretriever mine-negatives`: hard negatives for pairs, or pairs and negatives from a folder of documents."""

import argparse
from typing import Any

from ..settings import add_options, from_arguments
from ..training.mining.options import MineOptions

_HELP = "find hard negatives for training, also from documents without any queries"
_DETAILS = """writes into --output:
  train.jsonl          rows for `diffretriever train`: query, positive_passages, negative_passages
  corpus/corpus.jsonl  the passages, as Pyserini's commands read them
  mined.json           counts and settings

examples:
  diffretriever mine-negatives --documents my-texts --output mined
  diffretriever mine-negatives --pairs pairs.jsonl --corpus corpus.jsonl --output mined
  diffretriever mine-negatives --pairs beir --corpus beir --method model --encoder diffretriever --output mined

A query's own positives, and passages with the same text, are never used as negatives. With --encoder, neither are
passages that the model scores above --max-ratio times the positive's score: these are probably unjudged positives.
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "mine-negatives",
        help=_HELP,
        description=_HELP,
        epilog=_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, MineOptions)
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..model.encoder_names import parse_encoder_name
    from ..training.mining.mine import mine

    if arguments.encoder:
        arguments.encoder = parse_encoder_name(arguments.encoder).target
    mine(from_arguments(MineOptions, arguments))
    print(f"Rows: {arguments.output / 'train.jsonl'}; passages: {arguments.output / 'corpus' / 'corpus.jsonl'}")
