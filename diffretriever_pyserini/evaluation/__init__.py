"""Run files, retrieval measures and the tables that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .comparison import Comparison, compare
    from .metrics import Evaluation, evaluate
    from .runs import read_run, write_run

_HOMES = {
    "Comparison": "comparison",
    "Evaluation": "metrics",
    "compare": "comparison",
    "evaluate": "metrics",
    "read_run": "runs",
    "write_run": "runs",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
