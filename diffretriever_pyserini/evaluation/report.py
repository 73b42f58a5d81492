"""Tables of measures for a terminal, a pipe or a Markdown page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from .metrics import Evaluation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED = 1 << 16  # columns of output that is not for a terminal, so that nothing is wrapped or cut


def text_console(file: IO[str] | None = None, width: int = UNLIMITED) -> Console:
    """A console for ``file`` that prints text literally (no markup, no emoji), with colours only on a terminal.

    Without a file, the console has no colours, and its output can be captured.
    """
    from rich.console import Console

    return Console(
        file=io.StringIO() if file is None else file,
        width=width,
        color_system=None if file is None else "auto",
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


def captured(console: Console, *blocks: object) -> str:
    """``blocks`` as ``console`` prints them, without trailing blanks."""
    with console.capture() as capture:
        for block in blocks:
            console.print(block)
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).rstrip()


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with one line of dashes: the first column left-aligned, the others right-aligned, no cell wrapped."""
    from rich.box import Box
    from rich.table import Table
    from rich.text import Text

    nothing = "    \n"
    rule = Box(nothing * 2 + " -  \n" + nothing * 5, ascii=True)
    table = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """:func:`plain_table` as text, as wide as it needs to be."""
    return captured(text_console(), plain_table(header, rows))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with right-aligned figures."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def measures_table(evaluations: Mapping[str, Evaluation], measures: Sequence[str], name: str = "run") -> str:
    """One line per run and one column per measure, with four decimals."""
    rows = [
        [label, *(f"{evaluation.means[measure]:.4f}" for measure in measures)]
        for label, evaluation in evaluations.items()
    ]
    return text_table([name, *measures], rows)
