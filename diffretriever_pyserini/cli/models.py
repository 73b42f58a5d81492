"""`diffretriever models`: the prebuilt configs."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
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
    import shutil

    from ..model.prebuilt import DEFAULT_NAME, list_prebuilt

    rows = [("diffretriever", "", [f"short for {DEFAULT_NAME}, the default"])]
    for name, values in list_prebuilt().items():
        masks = "/".join(str(values.get(key, "?")) for key in ("k_query", "k_passage"))
        weights = str(values.get("adapter") or values.get("backbone") or "")
        if Path(weights).is_dir():
            weights = "comes with this package"
        rows.append((name, masks, [str(values.get("description", "")), f"weights: {weights}"]))
    print(listed(rows, shutil.get_terminal_size((100, 24)).columns))


def listed(rows: Sequence[tuple[str, str, Sequence[str]]], width: int) -> str:
    """One line of name and K per row, and its sentences below, wrapped at ``width`` (at least 60)."""
    name_width = max(len(name) for name, _, _ in rows)
    lines = [f"{'name':{name_width}}  K query/passage"]
    for name, masks, sentences in rows:
        lines.append(f"{name:{name_width}}  {masks}".rstrip())
        for sentence in sentences:
            wrapped = textwrap.wrap(sentence, max(width, 60) - 4, break_on_hyphens=False, break_long_words=False)
            lines += [f"    {line}" for line in wrapped]
    return "\n".join(lines)
