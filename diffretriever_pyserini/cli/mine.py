"""`diffretriever mine-negatives`: hard negatives for pairs, or pairs and negatives from a folder of documents."""

import argparse
from pathlib import Path
from typing import Any

_HELP = "find hard negatives for training, also from documents without any queries"
_DETAILS = """writes into --output:
  train.jsonl          rows for `diffretriever train`: query, positive_passages, negative_passages
  corpus/corpus.jsonl  the passages, as Pyserini's commands read them
  mined.json           counts and settings

examples:
  diffretriever mine-negatives --documents my-texts --output mined
  diffretriever mine-negatives --pairs pairs.jsonl --corpus corpus.jsonl --output mined
  diffretriever mine-negatives --pairs beir --corpus beir --method model --encoder diffretriever --output mined

Never taken as a negative: a query's own positives and passages of the same text. With --encoder, also what that model
scores above --max-ratio times the positive's score: such a passage is more likely an unjudged positive.
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
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pairs", nargs="+", metavar="SOURCE", help="queries with positives (.jsonl, .tsv, BEIR folder)"
    )
    source.add_argument("--documents", type=Path, metavar="DIR", help="folder of .txt, .md and .rst files, no queries")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--corpus", type=Path, metavar="PATH", help="corpus.jsonl or BEIR folder to take negatives from"
    )
    parser.add_argument("--split", default="train", help="qrels of a BEIR folder (default: %(default)s)")
    parser.add_argument("--method", choices=("bm25", "model"), default="bm25", help="default: %(default)s")
    parser.add_argument("--encoder", metavar="NAME", help="model that searches (--method model) and filters")
    parser.add_argument("--device", default="cpu", help="for the encoder (default: %(default)s)")
    parser.add_argument("--negatives", type=int, default=15, metavar="N", help="a query (default: %(default)s)")
    parser.add_argument("--depth", type=int, default=100, metavar="N", help="candidates a query (default: %(default)s)")
    parser.add_argument(
        "--skip", type=int, default=0, metavar="N", help="best candidates not used (default: %(default)s)"
    )
    parser.add_argument("--max-ratio", type=float, default=0.95, metavar="R", help="default: %(default)s")
    parser.add_argument("--words", type=int, default=100, metavar="N", help="a passage of --documents (default: 100)")
    parser.add_argument("--on-error", choices=("stop", "skip"), default="stop", help="at a bad row (default: stop)")
    parser.add_argument("--seed", type=int, default=42, help="of the sentences that become queries (default: 42)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="for Lucene (default: %(default)s)")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    import dataclasses

    from ..model.encoder_names import parse_encoder_name
    from ..training.mining.mine import MineOptions, mine

    if arguments.encoder:
        arguments.encoder = parse_encoder_name(arguments.encoder).target

    names = {field.name for field in dataclasses.fields(MineOptions)}
    values = {name: value for name, value in vars(arguments).items() if name in names}
    mine(MineOptions(**values | {"pairs": tuple(arguments.pairs or ())}))
    print(f"Rows: {arguments.output / 'train.jsonl'}; passages: {arguments.output / 'corpus' / 'corpus.jsonl'}")
