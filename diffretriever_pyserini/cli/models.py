"""`diffretriever models`: the prebuilt configs."""

import argparse
from typing import Any

_HELP = "list the prebuilt models that --encoder takes by name"


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models", help=_HELP, description=f"{_HELP}; a checkpoint folder, a hub id or a YAML file work as well"
    )
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from diffretriever_pyserini.evaluation.report import text_table
    from diffretriever_pyserini.prebuilt import list_prebuilt

    rows = []
    for name, values in list_prebuilt().items():
        masks = "/".join(str(values.get(key, "?")) for key in ("k_query", "k_passage"))
        rows.append(
            [
                name,
                masks,
                str(values.get("adapter") or values.get("backbone") or ""),
                str(values.get("description", "")),
            ]
        )
    print(text_table(["name", "K query/passage", "weights", "description"], rows, left=True))
