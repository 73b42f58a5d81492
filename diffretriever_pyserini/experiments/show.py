"""What an experiment is before it runs: published scores, commands, hours and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..evaluation.report import text_table
from .commands import evaluate_commands, our_command, pyserini_commands
from .cost import DEVICE, SHARE, costs
from .plan import Plan


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything as plain values."""
    experiment = plan.experiment
    rows = [
        asdict(row)
        | {
            "measure": plan.measure_of(row),
            "tolerance": experiment.tolerance if row.tolerance is None else row.tolerance,
            "source": experiment.source if row.source is None else row.source,
        }
        for row in plan.rows
    ]
    return {
        "experiment": experiment.name,
        "description": experiment.description,
        "rows": rows,
        "commands": our_commands(plan),
        "pyserini": pyserini_commands(plan),
        "written": written_files(plan),
        "costs": [asdict(one) for one in costs(plan)],
    }


def as_text(plan: Plan, size: Callable[[float], str]) -> str:
    """The same for people; ``size`` writes bytes."""
    values = as_json(plan)
    rows = []
    for row in values["rows"]:
        published = "" if row["published"] is None else f"{row['published']:.4f}"
        rows.append([row["collection"], row["mode"], row["measure"], published, f"{row['tolerance']:g}"])
    sources = dict.fromkeys(row["source"] for row in values["rows"] if row["published"] is not None and row["source"])
    lines = [f"{values['experiment']}: {values['description']}."]
    lines += [text_table(["collection", "mode", "measure", "published", "tolerance"], rows)]
    if sources:
        lines.append("Sources:\n" + "\n".join(f"  {source}" for source in sources))
    lines.append("Commands:\n" + "\n".join(f"  {command}" for command in values["commands"]))
    if values["pyserini"]:
        lines.append("Pyserini's, on the same indexes:\n" + "\n".join(f"  {one}" for one in values["pyserini"]))
    if values["written"]:
        lines.append(f"`diffretriever reproduce run` writes {', '.join(values['written'])}; the commands need them.")
    if names := _other_names(plan):
        lines.append("Other names of the texts:\n" + "\n".join(f"  {name}" for name in names))
    if estimates := costs(plan):
        header = ["corpus", "passages", "tokens each", f"{DEVICE} hours", "store", "indexes"]
        table = [
            [
                one.corpus,
                f"{one.passages:,}",
                f"{one.tokens:.0f}",
                _hours(one.hours),
                size(one.store),
                size(one.indexes),
            ]
            for one in estimates
        ]
        lines.append(text_table(header, table))
        lines.append(f"Calculated, not measured: at {SHARE:.0%} of the peak, and with one token per word.")
    return "\n\n".join(lines)


def our_commands(plan: Plan) -> list[str]:
    """The commands of all steps, then those that measure the runs."""
    return [*(our_command(plan, step) for step in plan.steps), *evaluate_commands(plan)]


def written_files(plan: Plan) -> list[str]:
    """The files and folders that the shown commands read and only ``reproduce run`` writes, where they do not exist."""
    commands = " ".join([*our_commands(plan), *pyserini_commands(plan)])
    files = {path: str(path) for path in [Path(plan.encoder)] if plan.config}
    for name in dict.fromkeys(step.collection for step in plan.steps):
        files |= {path: str(path.relative_to(plan.output)) for path in (plan.topics_file(name), plan.qrels_file(name))}
    corpora = [plan.bm25(step.corpus) / "corpus" for step in plan.steps if step.kind == "bm25-index"]
    files |= {path: str(path.relative_to(plan.output)) for path in corpora}
    return [str(path) for path, shown in files.items() if shown in commands and not path.exists()]


def _other_names(plan: Plan) -> list[str]:
    lines = []
    for name in dict.fromkeys(step.collection for step in plan.steps):
        one = plan.collection(name)
        known = {"ir_datasets": one.irds, "hub": one.hub, "index of Pyserini": one.pyserini_index}
        if one.folder is None and any(known.values()):
            lines.append(f"{name}: " + ", ".join(f"{where} {value}" for where, value in known.items() if value))
    return lines


def _hours(hours: float) -> str:
    return f"{hours:.1f}" if hours >= 0.1 else f"{hours:.3f}"
