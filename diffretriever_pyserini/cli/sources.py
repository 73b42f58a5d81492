"""Options of all commands that read topics or judgements."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError

TOPICS = """\
Topics: TSV (query id, tab, query), or JSON lines with qid/_id/id and title/query/text, .gz too; a folder in BEIR layout
(its --split); irds:NAME of ir_datasets; or a name that Pyserini knows, such as dl19-passage.
"""


def add_topics(parser: argparse.ArgumentParser, group: Any = None) -> None:
    """Add ``--topics`` (to ``group``, where it is one of several, or else required) and the split of a BEIR folder."""
    topics = (group or parser).add_argument(
        "--topics", metavar="SOURCE", help="topic file, BEIR folder, irds:NAME or a name of Pyserini's"
    )
    topics.required = group is None
    add_split(parser)


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add ``--split``."""
    parser.add_argument("--split", metavar="SPLIT", help="split of a BEIR folder (default: test)")


def split_of(arguments: argparse.Namespace, *sources: str | None) -> str:
    """The split to read; InputError if one is given, but none of ``sources`` is a folder."""
    if arguments.split is not None and not any(source and Path(source).expanduser().is_dir() for source in sources):
        raise InputError(
            "--split belongs to a folder in BEIR layout, and none is given: leave it out, or give the folder."
        )
    return arguments.split or "test"
