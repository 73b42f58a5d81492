"""`diffretriever models`: the prebuilt configs."""

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HELP = "list the prebuilt models that --encoder takes by name"
GROUPS = {
    "masked LM": "Masked language models: K masks, one pass",
    "fine-tuned": "Diffusion models, fine-tuned: K masks, one pass",
    "zero-shot": "Diffusion models, zero-shot: K masks, one pass",
    "baseline": "Baselines, other read-outs: PromptReps, DiffEmbed, RepLLaMA, E5",
}
_SHOWN = ("k_query", "k_passage", "adapter", "backbone", "description")


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models", help=_HELP, description=f"{_HELP}; a checkpoint folder, a hub id or a YAML file work as well"
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    import shutil

    from ..model.prebuilt import DEFAULT_NAME, list_prebuilt

    models = list_prebuilt()
    if arguments.json:
        print(json.dumps({"default": DEFAULT_NAME, "models": [described(*item) for item in models.items()]}, indent=1))
        return
    groups: dict[str, list[tuple[str, str, list[str]]]] = {title: [] for title in GROUPS.values()}
    groups[GROUPS[group_of(models[DEFAULT_NAME])]] = [("diffretriever", "", [f"short for {DEFAULT_NAME}, the default"])]
    for name, values in models.items():
        k = "/".join(str(values.get(key, 1)) for key in ("k_query", "k_passage"))
        weights = str(values.get("adapter") or values.get("backbone"))
        if Path(weights).is_dir():
            weights = "comes with this package"
        row = (name, k, [str(values.get("description", "")), f"weights: {weights}"])
        groups[GROUPS[group_of(values)]].append(row)
    print(listed(groups, shutil.get_terminal_size((100, 24)).columns))


def group_of(values: Mapping[str, Any]) -> str:
    """The key in ``GROUPS`` of a prebuilt config."""
    if values.get("readout", "mask") != "mask":
        return "baseline"
    if values.get("family") == "masked_lm":
        return "masked LM"
    return "fine-tuned" if values.get("adapter") else "zero-shot"


def described(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` prints of one config; settings that it leaves to the checkpoint are null."""
    kind = {"group": group_of(values), "family": values.get("family"), "readout": values.get("readout", "mask")}
    return {"name": name} | kind | {key: values.get(key) for key in _SHOWN}


def listed(groups: Mapping[str, Sequence[tuple[str, str, Sequence[str]]]], width: int) -> str:
    """The groups by title: a line of name and K per row, its sentences below, wrapped at ``width`` (at least 60)."""
    name_width = max(len(name) for rows in groups.values() for name, _, _ in rows)
    lines = [f"{'name':{name_width}}  K query/passage"]
    for title, rows in groups.items():
        lines += ["", *textwrap.wrap(title, max(width, 60))]
        for name, k, sentences in rows:
            lines.append(f"{name:{name_width}}  {k}".rstrip())
            for sentence in sentences:
                wrapped = textwrap.wrap(sentence, max(width, 60) - 4, break_on_hyphens=False, break_long_words=False)
                lines += [f"    {line}" for line in wrapped]
    return "\n".join(lines)
