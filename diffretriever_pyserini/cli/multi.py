"""``diffretriever multi``: look at a multi-vector index, add passages to it, delete some, give their room back."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

_HELP = "Show or change a multi-vector index: add a store's passages, delete by docid, compact."
_DETAILS = """\
A change replaces multi.json last: after a kill the index is as before. Deleted passages are found no more at once;
their room comes back with `compact`. The dense and lexical sides beside INDEX/multi are not changed: after a change
build them again, or search the multi-vector side by itself (--multi-index).

examples:
  diffretriever multi info --index INDEX/multi
  diffretriever multi add --index INDEX/multi --store more-store
  diffretriever multi delete --index INDEX/multi --docids gone.txt     # one docid a line
  diffretriever multi compact --index INDEX/multi
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    parser = commands.add_parser(
        "multi", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("info", "add", "delete", "compact"))
    parser.add_argument("--index", type=Path, required=True, metavar="INDEX/multi", help="folder with multi.json")
    parser.add_argument("--store", type=Path, help="for add: the store of the new passages")
    parser.add_argument("--docids", type=Path, metavar="FILE", help="for delete: one docid a line")
    parser.add_argument("--json", action="store_true", help="print what the index holds as JSON")
    parser.add_argument("--quiet", action="store_true", help="no bar, no summary")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from diffretriever_pyserini.collections.jsonl import read_lines
    from diffretriever_pyserini.errors import InputError
    from diffretriever_pyserini.multivector.change import add_passages, compact, delete_passages
    from diffretriever_pyserini.multivector.manifest import read_manifest

    for action, name in (("add", "store"), ("delete", "docids")):
        given = getattr(arguments, name) is not None
        if given != (arguments.action == action):
            raise InputError(f"--{name} belongs to `multi {action}`" + ("." if given else ", which needs it."))
    if arguments.docids is not None and not arguments.docids.is_file():
        raise InputError(
            f"--docids {arguments.docids}: no such file; it lists the passages to delete, one docid a line."
        )
    if arguments.action == "add":
        manifest = add_passages(arguments.index, arguments.store, arguments.quiet)
    elif arguments.action == "delete":
        manifest = delete_passages(arguments.index, (line.strip() for _, line in read_lines(arguments.docids)))
    elif arguments.action == "compact":
        manifest = compact(arguments.index, arguments.quiet)
    else:
        manifest = read_manifest(arguments.index)
    if arguments.json:
        print(json.dumps(asdict(manifest) | {"passages": manifest.passages}, indent=2))
    elif not arguments.quiet:
        parts = f"{len(manifest.segments)} segment{'s' * (len(manifest.segments) > 1)}"
        deleted = f", {manifest.deleted_count:,} deleted" if manifest.deleted_count else ""
        print(f"{arguments.index}: {manifest.passages:,} passages in {parts}{deleted}")
        print(
            f"  {manifest.k_passage} vectors of {manifest.dimension} components by {manifest.encoder}, "
            f"{manifest.stride + manifest.candidate_bytes:,} bytes a passage"
        )
        if "top10_in_top100" in manifest.recall:
            share, queries = manifest.recall["top10_in_top100"], manifest.recall["queries"]
            print(f"  of the exact top 10, {share:.1%} were in its top 100 when it was built (queries: {queries})")
        if manifest.changed and (arguments.index.parent / "index.json").is_file():
            print("  the sides beside it are as they were built: hybrid searches mix old and new")
