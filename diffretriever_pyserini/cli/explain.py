"""`diffretriever explain`: why a passage has its rank, on the terminal and as an HTML page."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..settings import Count, parser_of

if TYPE_CHECKING:
    from rich.console import Console

    from ..explaining import Explanation

_MIN_WIDTH = 40  # columns
_HELP = "explain why passages have their ranks in the result of a query"
_DETAILS = """\
Explains the passages of --docid, or the first of the result. Shows a passage's rank and how its score adds up, the
words and vectors that matched, and what the model proposes at each mask position, unless its head was trained on the
words of its texts only. The numbers are those of `diffretriever search` with the same options. Where the index holds
no texts (`index --text`), give the corpus (it is read until the passages are found) or the text; else only what the
index holds is explained.

examples:
  diffretriever explain --index INDEX --query "how tall is the tower"
  diffretriever explain --index INDEX --query "how tall is the tower" --docid p2 --corpus corpus.jsonl
  diffretriever explain --index INDEX --query "how tall is the tower" --docid p2 p7 --corpus corpus --html why.html
  diffretriever explain --index INDEX --query "how tall is the tower" --docid p2 --text "The tower is 333 m high."
  diffretriever explain --index INDEX --query "..." --docid p2 --mode dense,multi,lexical --weights multi=2 --json
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    from .search import add_search_options

    parser: argparse.ArgumentParser = commands.add_parser(
        "explain", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--query", required=True, metavar="TEXT", help="text of the query")
    passages = parser.add_mutually_exclusive_group()
    passages.add_argument("--docid", nargs="+", metavar="ID", help="passages to explain")
    passages.add_argument(
        "--first",
        type=parser_of(Count),
        default=3,
        metavar="N",
        help="without --docid: explain the first N passages of the result (default: 3)",
    )
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--corpus", nargs="+", metavar="SOURCE", help="where the texts are, as for `encode`")
    text.add_argument("--text", help="text of the one --docid (title and text with a space between)")
    parser.add_argument("--html", type=parser_of(Path), metavar="FILE", help="also write a self-contained page")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--top",
        type=parser_of(Count),
        default=5,
        metavar="N",
        help="tokens per mask position; twice as many of the terms that only one text has (default: 5)",
    )
    add_search_options(parser, skip=("batch_size", "remove_query"))
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..explaining import explain
    from ..explaining.text import to_text
    from ..files.outputs import refuse_inputs
    from .search import folders_of, index_of, options_of

    options = options_of(arguments)
    _check_page(arguments.html)
    refuse_inputs({"--html": arguments.html}, {"--corpus": arguments.corpus} | folders_of(arguments))
    notes: list[str] = []
    texts = _texts(arguments, notes)
    with index_of(arguments) as index:
        docids = arguments.docid or arguments.first
        explanations = explain(index, arguments.query, docids, texts, arguments.mode, options, arguments.top)
    explanations = [dataclasses.replace(one, notes=(*notes, *one.notes)) for one in explanations]
    if arguments.html is not None and explanations:
        _write(arguments.html, explanations)
    if arguments.json:
        print(json.dumps([_plain(one) for one in explanations], indent=2))
        return
    print(to_text(explanations, _console()) if explanations else "No passage matches.")
    if arguments.html is not None and explanations:
        print(f"\npage: {arguments.html}")


def _console() -> Console:
    """A console as wide as the terminal (or COLUMNS); for a pipe or a file, lines are not wrapped."""
    from ..evaluation.report import UNLIMITED, text_console

    return text_console(sys.stdout, max(_MIN_WIDTH, shutil.get_terminal_size((UNLIMITED, 24)).columns))


def _texts(arguments: argparse.Namespace, notes: list[str]) -> Any:
    """Texts by docid, or a function that returns them for docids; notes on their source go to ``notes``."""
    from ..corpora.corpus import Corpus
    from ..errors import InputError
    from ..explaining.passage_texts import find_texts

    docids = list(dict.fromkeys(arguments.docid or ()))
    if arguments.text is not None:
        if len(docids) != 1:
            named = f"--docid names {len(docids)} passages: use --corpus" if docids else "there is no --docid: name it"
            raise InputError(f"--text is the text of one passage, but {named}.")
        return {docids[0]: arguments.text}

    def find(docids: Sequence[str]) -> dict[str, str]:
        texts, more = find_texts(arguments.index, arguments.corpus, docids)
        notes.extend(more)
        return texts

    # Before the model is loaded, so that a wrong path fails at once.
    if docids:
        return find(docids)
    if arguments.corpus is not None:
        Corpus(arguments.corpus)
    return find


def _check_page(page: Path | None) -> None:
    """Raise InputError for a page that cannot be written, before the search begins."""
    from ..errors import InputError

    if page is None:
        return
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--html {page}: name a file that ends in .html, so that no other file is overwritten.")
    if not page.absolute().parent.is_dir() or page.is_dir():
        raise InputError(f"--html {page}: there is no folder {page.parent} to write it to, or it is a folder itself.")


def _write(page: Path, explanations: list[Explanation]) -> None:
    from ..explaining.page import to_html
    from ..files.atomic import write_whole

    write_whole(page, to_html(explanations))


def _plain(one: Explanation) -> dict[str, Any]:
    """dataclasses.asdict, with the values of properties."""
    values = dataclasses.asdict(one)
    for name in ("terms", "indexed_terms"):
        if (terms := getattr(one, name)) is not None:
            values[name]["score"] = terms.score
    values["result"]["returned"] = one.result.returned
    return values
