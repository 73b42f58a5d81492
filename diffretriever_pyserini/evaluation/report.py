"""Tables of measures, for a terminal and for a Markdown page."""

from collections.abc import Mapping, Sequence

from .metrics import Evaluation


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: bool = False) -> str:
    """Align columns with blanks: the first to the left, the others to the right as figures (or to the left too)."""
    align = str.ljust if left else str.rjust
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(align(cell, width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with figures aligned to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def measures_table(evaluations: Mapping[str, Evaluation], measures: Sequence[str], name: str = "run") -> str:
    """Show one line a run and one column a measure, four decimals."""
    rows = [[label, *(f"{found.means[measure]:.4f}" for measure in measures)] for label, found in evaluations.items()]
    return text_table([name, *measures], rows)
