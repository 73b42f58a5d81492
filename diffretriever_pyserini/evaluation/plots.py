"""A plot of the differences between runs: one bar per query, sorted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DiffRetrieverError, InputError
from ..files.atomic import whole_file
from .comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTS_REMEDY = "run `pip install 'diffretriever-pyserini[plots]'`"
_GAIN, _LOSS = "#2a7f62", "#b5483a"  # colour is not the only cue: losses are below the line
_MAX_NAME = 34  # characters of a run's name


def plot_deltas(path: str | Path, comparisons: Sequence[Comparison], baseline: str) -> None:
    """Draw sorted per-query deltas, with one row of panels per run and one column per measure.

    The suffix of ``path`` decides the file type (.png, .pdf, .svg).

    Raises
    ------
    InputError
        When the file type is unknown.
    DiffRetrieverError
        When matplotlib is not installed, or the file cannot be written.
    """
    runs = list(dict.fromkeys(comparison.run for comparison in comparisons))
    measures = list(dict.fromkeys(comparison.measure for comparison in comparisons))
    size = (max(6.0, 4.2 * len(measures)), 3.0 * len(runs) + 0.6)
    figure = new_figure(size, str(path))
    axes = figure.subplots(len(runs), len(measures), squeeze=False, sharey="col")
    for comparison in comparisons:
        measure = comparison.measure
        axis = axes[runs.index(comparison.run)][measures.index(measure)]
        _panel(axis, comparison)
        deltas = [delta for other in comparisons if other.measure == measure for delta in other.deltas.values()]
        bound = 1.08 * (max(map(abs, deltas)) or 1.0)
        axis.set_ylim(-bound, bound)
    figure.suptitle(f"per query, against the baseline {_short(baseline)}")
    save_figure(path, figure, dpi=130)


def new_figure(size: tuple[float, float], name: str) -> Figure:
    """Return an empty figure of ``size`` in inches; DiffRetrieverError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which needs a display and changes a notebook's state
    except ImportError as error:
        raise DiffRetrieverError(f"{name}: a plot needs matplotlib; {PLOTS_REMEDY}.") from error
    return Figure(figsize=size, layout="constrained")


def save_figure(path: str | Path, figure: Figure, dpi: int) -> None:
    """Write ``figure``, whole or not at all; the suffix of ``path`` decides the file type (.png, .pdf, .svg).

    Raises
    ------
    InputError
        When the file type is unknown.
    DiffRetrieverError
        When the file cannot be written.
    """
    kind = Path(path).suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise InputError(f"{path}: a plot cannot be written as {kind or 'a file without suffix'!r}; name a .png file.")
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=dpi, format=kind)


def _panel(axis, comparison: Comparison) -> None:  # type: ignore[no-untyped-def]
    deltas = sorted(comparison.deltas.values(), reverse=True)
    edges = [0.5 + rank for rank in range(len(deltas) + 1)]
    # All bars of one colour are one shape, so thousands of queries are drawn quickly.
    axis.stairs([max(delta, 0) for delta in deltas], edges, fill=True, color=_GAIN)
    axis.stairs([min(delta, 0) for delta in deltas], edges, fill=True, color=_LOSS)
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axhline(comparison.difference, color="black", linewidth=1.0, linestyle="--")
    axis.set_xlim(0.5, len(deltas) + 0.5)
    axis.set_title(_short(comparison.run), fontsize="medium")
    axis.set_xlabel(f"queries, sorted ({comparison.won} won, {comparison.tied} tied, {comparison.lost} lost)")
    axis.set_ylabel(f"difference in {comparison.measure}")
    mean = f"mean {comparison.difference:+.4f}"
    axis.annotate(mean, (0.98, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize="small")


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"…{name[1 - _MAX_NAME :]}"
