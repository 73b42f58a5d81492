"""The scores of an experiment beside the published ones, as JSON and as a page in Markdown."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ..corpora.qrels import Qrels
from ..evaluation.metrics import evaluate
from ..evaluation.report import markdown_table
from ..evaluation.runs import read_run
from .commands import evaluate_commands, pyserini_commands
from .plan import Plan
from .records import Row

OK, DIFFERS, MEASURED = "ok", "differs", "measured"
HEADER = ("collection", "mode", "measure", "published", "measured", "difference", "")
_ROUNDING = 1e-9
_PACKAGES = ("diffretriever-pyserini", "pyserini", "torch", "transformers")


@dataclass(frozen=True)
class Result:
    """A row with its measured score; ``status`` is ok, differs, or measured where nothing is published."""

    row: Row
    measure: str
    measured: float
    tolerance: float
    source: str

    @property
    def status(self) -> str:
        """Whether the score is the published one, within the tolerance."""
        if self.row.published is None:
            return MEASURED
        return OK if abs(self.measured - self.row.published) <= self.tolerance + _ROUNDING else DIFFERS

    def cells(self) -> list[str]:
        """The row of a table."""
        published = self.row.published
        known = ["", ""] if published is None else [f"{published:.4f}", f"{self.measured - published:+.4f}"]
        mode = f"hybrid ({' + '.join(self.row.mode.split(','))})" if "," in self.row.mode else self.row.mode
        return [self.row.collection, mode, self.measure, known[0], f"{self.measured:.4f}", known[1], self.status]


@dataclass(frozen=True)
class Results:
    """All rows of a plan, and the steps that led to them (command and seconds by name)."""

    plan: Plan
    rows: tuple[Result, ...]
    steps: Mapping[str, Any]
    date: str

    @property
    def differing(self) -> int:
        """How many scores differ from the published ones."""
        return sum(result.status == DIFFERS for result in self.rows)

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        counts = {status: sum(one.status == status for one in self.rows) for status in (OK, DIFFERS, MEASURED)}
        compared = counts[OK] + counts[DIFFERS]
        first = f"{counts[OK]} of {compared} scores are the published ones, within the tolerance."
        return first + (f" {counts[MEASURED]} have no published score." if counts[MEASURED] else "")

    def table(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Header and rows of the table of scores."""
        return HEADER, [result.cells() for result in self.rows]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        rows = [
            {
                "collection": one.row.collection,
                "mode": one.row.mode,
                "measure": one.measure,
                "published": one.row.published,
                "measured": one.measured,
                "tolerance": one.tolerance,
                "source": one.source,
                "status": one.status,
            }
            for one in self.rows
        ]
        facts = {"experiment": self.plan.experiment.name, "date": self.date, "versions": versions()}
        return facts | {"device": self.plan.options.device, "rows": rows, "steps": dict(self.steps)}

    def page(self) -> str:
        """The page: table, commands of each step, sources and versions."""
        experiment = self.plan.experiment
        sources = dict.fromkeys(one.source for one in self.rows if one.source and one.row.published is not None)
        packages = ", ".join(f"{name} {number}" for name, number in versions().items())
        lines = [
            f"# Reproducing {experiment.name}",
            f"{experiment.description}.",
            "## Results",
            markdown_table(*self.table()),
            self.sentence,
            *(["## Sources\n\n" + "\n".join(f"- {source}" for source in sources)] if sources else []),
            f"## Commands\n\n`diffretriever reproduce run {experiment.name}` runs all of them:",
            *(_fence(step["command"], f"{step['seconds']:,.1f} s") for step in self.steps.values()),
            "To measure the runs:",
            _fence("\n".join(evaluate_commands(self.plan))),
        ]
        if pyserini := pyserini_commands(self.plan):
            lines += ["Pyserini searches the same indexes, and measures the same runs:", _fence("\n".join(pyserini))]
        lines += [
            "## Reproduction log",
            f"- {self.date}: {self.sentence} Python {platform.python_version()}, {packages}, device "
            f"{self.plan.options.device}.",
        ]
        return "\n\n".join(lines) + "\n"


def measured(plan: Plan, qrels: Mapping[str, Qrels], steps: Mapping[str, Any]) -> Results:
    """Measure the runs of ``plan`` against ``qrels`` (by collection); a mean is that of its members."""
    rows = plan.rows
    wanted: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name in plan.collection(row.collection).mean_of or (row.collection,):
            wanted.setdefault((name, row.mode), []).append(plan.measure_of(row, name))
    scores: dict[tuple[str, str, str], float] = {}
    for (name, mode), measures in wanted.items():
        means = evaluate(read_run(plan.run(name, mode)), qrels[name], measures).means
        scores |= {(name, mode, measure): value for measure, value in means.items()}
    results = []
    for row in rows:
        members = plan.collection(row.collection).mean_of or (row.collection,)
        value = statistics.fmean(scores[name, row.mode, plan.measure_of(row, name)] for name in members)
        tolerance = plan.experiment.tolerance if row.tolerance is None else row.tolerance
        source = plan.experiment.source if row.source is None else row.source
        results.append(Result(row, plan.measure_of(row), round(value, 6), tolerance, source))
    return Results(plan, tuple(results), steps, datetime.now(UTC).date().isoformat())


def versions() -> dict[str, str]:
    """Installed versions of what decides a score."""
    return {name: version(name) for name in _PACKAGES}


def _fence(text: str, note: str = "") -> str:
    return f"```bash\n{text}{f'  # {note}' if note else ''}\n```"
