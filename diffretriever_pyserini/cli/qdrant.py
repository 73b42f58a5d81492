"""``diffretriever qdrant``: what a collection holds, and deleting passages from it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..serving.options import QdrantSearch
from ..settings import add_options, from_arguments
from .unused import note_unused

_HELP = "Delete passages from a collection of Qdrant, or show what it holds."
_EXAMPLES = """\
examples:
  diffretriever qdrant info --qdrant http://localhost:6333 --collection passages
  diffretriever qdrant delete --qdrant http://localhost:6333 --collection passages --docids docids.txt
  diffretriever qdrant delete --qdrant my-folder --collection passages --docids docids.txt --json

FILE has one docid per line. Deleting what is not there is no error; the command says which ids these are.
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add this command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "qdrant", help=_HELP, description=_HELP, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("info", "delete"), help="what to do")
    add_collection(parser, required=True)
    parser.add_argument("--docids", type=Path, metavar="FILE", help="ids of the passages to delete")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(function=_run)
    return parser


def add_collection(parser: Any, required: bool) -> None:
    """Add the options that name an existing collection."""
    parser.add_argument(
        "--qdrant", required=required, metavar="URL-or-DIR", help="server, or folder of `export qdrant --path`"
    )
    parser.add_argument("--collection", required=required, metavar="NAME", help="collection of `export qdrant`")


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of searching a collection instead of an index."""
    group = parser.add_argument_group("collection of Qdrant, instead of an index")
    add_collection(group, required=False)
    add_options(group, QdrantSearch)


def collection_folder(arguments: argparse.Namespace) -> Path | None:
    """The folder that ``--qdrant`` names; None without one, and for a server."""
    return None if arguments.qdrant is None or "://" in arguments.qdrant else Path(arguments.qdrant)


def collection_of(arguments: argparse.Namespace) -> Any:
    """Open the collection that ``--qdrant`` and ``--collection`` name, or return None where neither is given.

    Raises
    ------
    InputError
        When only one of them is given, or an index or a cluster, too.
    """
    from ..errors import InputError

    if arguments.qdrant is None:
        if arguments.collection is not None or arguments.scan:
            raise InputError("--collection and --scan belong to --qdrant URL-or-DIR: add it.")
        return None
    if arguments.collection is None:
        raise InputError("--qdrant needs --collection NAME.")
    others = ("index", "dense_index", "lexical_index", "multi_index", "text_index", "ray", "nprobe")
    if given := [name for name in others if getattr(arguments, name) is not None]:
        raise InputError(f"--{given[0].replace('_', '-')} has no meaning with --qdrant: leave one of them out.")
    from ..indexes.options import MultiOptions
    from ..serving.searching import open_collection

    index = open_collection(
        arguments.qdrant,
        arguments.collection,
        arguments.encoder,
        mode=arguments.mode,
        effort=from_arguments(QdrantSearch, arguments, ef=arguments.ef_search),
        multi_options=from_arguments(MultiOptions, arguments),
        **{name: getattr(arguments, name) for name in ("device", "dtype", "k_query", "max_length")},
    )
    note_unused(arguments, index.folder, of_vectors=("dense", "multi"))
    if index.unfinished is not None:
        print(
            f"{index.folder.name}: an upload is not finished ({index.unfinished}); the rest is not searched.",
            file=sys.stderr,
        )
    return index


def _run(arguments: argparse.Namespace) -> None:
    from ..errors import InputError

    if (arguments.docids is not None) != (arguments.action == "delete"):
        raise InputError("--docids FILE belongs to `diffretriever qdrant delete`, which needs it.")
    facts = _info(arguments) if arguments.action == "info" else _delete(arguments)
    if arguments.json:
        print(json.dumps(facts, indent=2))


def _info(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..serving.changes import collection_facts

    facts = collection_facts(arguments.qdrant, arguments.collection)
    if not arguments.json:
        layout = facts["layout"]
        kept = f"{layout['k']} x {layout['dimension']} {layout['datatype']}" if layout["k"] else "pooled vectors only"
        state = "complete" if facts["complete"] else "not complete"
        print(f"{facts['collection']}: {facts['points']:,} passages, {state}")
        print(f"  encoder {facts['encoder']}, fingerprint {facts['fingerprint']}, {kept} per passage")
        if facts["unfinished"]:
            print(f"  an upload is not finished: {facts['unfinished']}")
    return facts


def _delete(arguments: argparse.Namespace) -> dict[str, Any]:
    from ..errors import InputError
    from ..files.jsonl import read_columns
    from ..serving.changes import delete_passages
    from .format import counted

    docids = []
    for where, columns in read_columns(arguments.docids):
        if len(columns) != 1:
            raise InputError(f"{where}: {len(columns)} columns instead of one docid per line.")
        docids += columns
    deleted, missing = delete_passages(arguments.qdrant, arguments.collection, docids)
    if not arguments.json:
        print(f"{counted(deleted, 'passage')} deleted from {arguments.collection}")
        if missing:
            print(f"  not in the collection: {counted(len(missing), 'id')}, for instance {missing[0]}")
    return {"deleted": deleted, "missing": missing}
