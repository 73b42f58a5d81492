"""Differences between runs as a picture: one bar a query, sorted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files.atomic import whole_file
from .comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAIN, _LOSS = "#2a7f62", "#b5483a"  # told apart by their side of the line as well
_TAIL = 34


def plot_deltas(path: str | Path, comparisons: Sequence[Comparison], baseline: str) -> None:
    """Draw sorted per-query deltas, a row of panels for each run and a column for each measure.

    The kind of file follows the name (.png, .pdf, .svg).

    Raises
    ------
    InputError
        When the kind of file is unknown.
    DiffRetrieverError
        When the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot, which would need a display or change a notebook's

    runs = list(dict.fromkeys(one.run for one in comparisons))
    measures = list(dict.fromkeys(one.measure for one in comparisons))
    size = (max(6.0, 4.2 * len(measures)), 3.0 * len(runs) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(runs), len(measures), squeeze=False, sharey="col")
    for one in comparisons:
        axis = axes[runs.index(one.run)][measures.index(one.measure)]
        _panel(axis, one)
        same = [abs(delta) for other in comparisons if other.measure == one.measure for delta in other.deltas.values()]
        bound = 1.08 * (max(same) or 1.0)
        axis.set_ylim(-bound, bound)
    figure.suptitle(f"per query, against the baseline {_short(baseline)}")
    save_figure(path, figure, dpi=130)


def save_figure(path: str | Path, figure: Figure, dpi: int) -> None:
    """Write ``figure``, whole or not at all; the kind of file follows the name (.png, .pdf, .svg).

    Raises
    ------
    InputError
        When the kind of file is unknown.
    DiffRetrieverError
        When the file cannot be written.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: a plot cannot be written as {kind or 'a file without ending'!r}; name a .png file.")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=kind)


def _panel(axis, one: Comparison) -> None:  # type: ignore[no-untyped-def]
    deltas = sorted(one.deltas.values(), reverse=True)
    edges = [0.5 + place for place in range(len(deltas) + 1)]
    # All bars of one colour are one shape: thousands of queries are drawn as fast as ten.
    axis.stairs([max(delta, 0) for delta in deltas], edges, fill=True, color=_GAIN)
    axis.stairs([min(delta, 0) for delta in deltas], edges, fill=True, color=_LOSS)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axhline(one.difference, color="black", linewidth=1.0, linestyle="--")
    axis.set_xlim(0.5, len(deltas) + 0.5)
    axis.set_title(_short(one.run), fontsize="medium")
    axis.set_xlabel(f"queries, sorted ({one.won} won, {one.tied} tied, {one.lost} lost)")
    axis.set_ylabel(f"difference in {one.measure}")
    axis.annotate(
        f"mean {one.difference:+.4f}", (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize="small"
    )


def _short(name: str) -> str:
    return name if len(name) <= _TAIL else f"…{name[1 - _TAIL :]}"
