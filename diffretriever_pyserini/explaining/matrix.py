"""The interaction matrix for readers: positions that say the same are one row, or one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from .records import Interaction


@dataclass(frozen=True, slots=True)
class Cell:
    """Passage positions ``name`` against those of a row.

    ``value`` is the mean over the row's positions of their largest inner product, None where a vector is zero; ``best``
    says whether one of them has its best passage position here.
    """

    name: str
    value: float | None
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Query positions ``name``: what they add to the score, and their cells; ``empty`` where their vectors are zero."""

    name: str
    adds: float
    empty: bool
    cells: tuple[Cell, ...]


def merged(vectors: Interaction) -> list[Row]:
    """The rows of the matrix of ``vectors``."""
    return [_row(vectors, group) for group in vectors.alike_query]


def _row(vectors: Interaction, rows: Sequence[int]) -> Row:
    empty = vectors.empty_query[rows[0]]
    cells = []
    for columns in vectors.alike_passage:
        largest = [max(vectors.cells[i][j] for j in columns) for i in rows]
        value = None if empty or vectors.empty_passage[columns[0]] else sum(largest) / len(largest)
        cells.append(Cell(_name("p", columns), value, any(vectors.best[i] in columns for i in rows)))
    return Row(_name("q", rows), sum(vectors.gains[i] for i in rows), empty, tuple(cells))


def _name(side: str, positions: Sequence[int]) -> str:
    """``q1–q3, q5``; positions count from 1."""
    runs = [[i + 1 for _, i in run] for _, run in groupby(enumerate(positions), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{side}{run[0]}" + (f"–{side}{run[-1]}" if len(run) > 1 else "") for run in runs)
