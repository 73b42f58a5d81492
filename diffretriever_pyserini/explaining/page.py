"""An explanation as one self-contained HTML page: no script, no external files, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence

from . import text
from .matrix import merged
from .records import Explanation
from .words import shortened, visible, whole_words

_FILTERS = (
    text.amount_read,
    text.figures,
    text.fusion_rows,
    text.marked_text,
    text.marks,
    text.missing,
    text.term_scores,
    text.token,
    text.total,
    text.vector_scores,
    text.verdict,
    merged,
    shortened,
    visible,
    whole_words,
)


def to_html(explanations: Sequence[Explanation]) -> str:
    """``explanations`` of the same query as one page (``page.html.j2`` with ``page.css`` inside)."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {function.__name__: function for function in _FILTERS}
    # One scale for all passages, so that equal colours are equal values.
    vectors = [one for each in explanations for one in (each.vectors, each.indexed_vectors) if one is not None]
    cells = (cell.value for one in vectors for row in merged(one) for cell in row.cells)
    values = [value for value in cells if value is not None] or [0.0]
    template = environment.get_template("page.html.j2")
    page = template.render(
        explanations=explanations,
        legend=text.LEGEND,
        fusion_header=text.FUSION_HEADER,
        words_header=text.WORDS_HEADER,
        low=min(values),
        span=max(max(values) - min(values), 1e-9),
    )
    return page.lstrip()  # blank lines between the macros
