"""``diffretriever multi info``: the contents of a multi-vector index."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

_HELP = "Show the contents of a multi-vector index."
_DETAILS = """\
An index is built once from a store. To change its contents, encode and index again.

example:
  diffretriever multi info --index INDEX/multi
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    parser = commands.add_parser(
        "multi", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("info",), default="info", help="the only action, and the default")
    parser.add_argument("--index", type=Path, required=True, metavar="INDEX/multi", help="folder with multi.json")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..indexes.multivector.manifest import read_manifest, recall_text

    manifest = read_manifest(arguments.index)
    if arguments.json:
        print(json.dumps(asdict(manifest), indent=2))
        return
    refine = f", with vectors in {manifest.refine} for refining" if manifest.refine else ""
    print(f"{arguments.index}: {manifest.passages:,} passages{refine}")
    print(
        f"  {manifest.k_passage} vectors of {manifest.dimension} components by {manifest.encoder}, "
        f"{manifest.stride + manifest.candidate_bytes:,} bytes per passage"
    )
    if manifest.recall:
        print(f"  measured at build time: {recall_text(manifest.recall)}")
