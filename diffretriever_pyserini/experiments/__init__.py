"""Experiments by name: published scores, the commands that should give them again, and the comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .plan import Plan
    from .reading import list_experiments, read_experiment
    from .records import Collection, Experiment, Row
    from .run import reproduce

_HOMES = {
    "Collection": "records",
    "Experiment": "records",
    "Plan": "plan",
    "Row": "records",
    "list_experiments": "reading",
    "read_experiment": "reading",
    "reproduce": "run",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
