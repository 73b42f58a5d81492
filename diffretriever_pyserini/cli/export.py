"""``diffretriever export qdrant``: upload a store into a collection of Qdrant."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..serving.options import ExportOptions
from ..settings import add_options, from_arguments

_HELP = "Upload a store into a collection of Qdrant: pooled vectors, all K vectors, term weights and texts."
_EXAMPLES = """\
After a kill or an error, run the command again: it continues. Another store of the same encoder is added to the
collection; a passage replaces the one that has its docid. A server's key is read from the variable QDRANT_API_KEY.

examples:
  diffretriever export qdrant --store STORE --collection passages --path my-folder
  diffretriever export qdrant --store STORE --collection passages --url http://localhost:6333
  diffretriever export qdrant --store STORE --collection passages --url http://localhost:6333 --texts corpus.jsonl
  diffretriever export qdrant --store STORE --collection small --url http://localhost:6333 --quantization int8 \\
      --datatype float16
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add this command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export", help=_HELP, description=_HELP, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=("qdrant",), help="where to: Qdrant, so far the only one")
    parser.add_argument("--store", type=Path, required=True, help="folder that `diffretriever encode` wrote")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--url", help="address of a Qdrant server, http:// or https://")
    target.add_argument("--path", type=Path, metavar="DIR", help="folder of collections in this process, no server")
    parser.add_argument("--collection", required=True, metavar="NAME", help="new, or one of an earlier export")
    add_options(parser, ExportOptions)
    parser.add_argument("--quiet", action="store_true", help="no bar, no summary")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(function=_run, continues=True)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..errors import InputError
    from ..files.outputs import refuse_inputs
    from ..indexes.progress import terminal_bars
    from ..serving.changes import export_to_qdrant

    if arguments.url is not None and "://" not in arguments.url:
        raise InputError(
            f"--url {arguments.url} is no address; write http://{arguments.url}, or give a folder with --path."
        )
    folder = None if arguments.path is None else arguments.path / arguments.collection
    refuse_inputs({"--path": folder}, {"--store": arguments.store, "--texts": arguments.texts})
    figures = export_to_qdrant(
        arguments.store,
        arguments.url or arguments.path,
        arguments.collection,
        from_arguments(ExportOptions, arguments),
        terminal_bars(arguments.quiet),
    )
    if arguments.json:
        print(json.dumps(figures, indent=2))
    elif not arguments.quiet:
        continued = f", of which {figures['continued']:,} were there already" if figures["continued"] else ""
        print(f"{figures['passages']:,} passages uploaded{continued}: {figures['collection']}")
        print(f"  {figures['points']:,} in the collection; {figures['passages/s']:,.0f} passages/s")
