"""Tables of measures, for a terminal, for a pipe and for a Markdown page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING

from .metrics import Evaluation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED = 1 << 16  # columns of output that is not for a terminal: no line is wrapped and nothing is cut


def text_console(file: IO[str] | None = None, width: int = UNLIMITED) -> Console:
    """A console for ``file`` that shows text as it is (no markup, no emoji); colours only where it is a terminal.

    Without a file, a console whose output is captured, without colours.
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
    """What ``console`` makes of ``blocks``, without blanks at the ends of lines."""
    with console.capture() as capture:
        for block in blocks:
            console.print(block)
    return "\n".join(line.rstrip() for line in capture.get().split("\n")).rstrip()


def plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Columns under one line of dashes: the first to the left, the others to the right as figures, no cell wrapped."""
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
    """:func:`plain_table` as text of whatever width it takes."""
    return captured(text_console(), plain_table(header, rows))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with figures aligned to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def measures_table(evaluations: Mapping[str, Evaluation], measures: Sequence[str], name: str = "run") -> str:
    """Show one line a run and one column a measure, four decimals."""
    rows = [[label, *(f"{one.means[measure]:.4f}" for measure in measures)] for label, one in evaluations.items()]
    return text_table([name, *measures], rows)
