"""An explanation for a terminal or a pipe, and the sentences and figures that the HTML page uses too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..evaluation.report import UNLIMITED, captured, plain_table, text_console
from ..scoring.fusion import Contribution
from . import matrix
from .records import Explanation, Interaction, MaskPosition, Proposal, RankedEntry, Term, TextView
from .words import marked, shortened, visible, whole_words

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_TEXT = 400  # characters of a text that are shown
_INDENT = 3

LEGEND = (
    "Each token has its weight, log(1 + relu(logit)), and its probability if that is at least 0.1 %. A star marks a "
    "token of the text; only these become lexical terms, unless the terms are the whole vocabulary."
)
FUSION_HEADER = ("signal", "rank", "score", "scaled from", "scaled", "weight", "adds")
WORDS_HEADER = ("word", "query × passage", "adds")


def to_text(explanations: Sequence[Explanation], console: Console | None = None) -> str:
    """``explanations`` of the same query as ``console`` shows them.

    Without a console nothing is wrapped: each sentence is one line.
    """
    console = text_console() if console is None else console
    blocks = (block for one in explanations for block in _blocks(one, console, one is explanations[0]))
    return captured(console, *blocks)


def _blocks(one: Explanation, console: Console, first: bool) -> Iterator[RenderableType]:
    if not first:
        yield ""
    yield _head(one)
    yield _heading("1. The result")
    yield _sentence(verdict(one.result))
    yield from _table(FUSION_HEADER, fusion_rows(one.result), console)
    yield from map(_sentence, [*total(one.result), *missing(one.result)])
    yield _heading("2. Which terms matched")
    yield from _terms(one, console)
    yield _heading("3. Which vectors matched")
    for name, vectors in (("from the text", one.vectors), ("from the index", one.indexed_vectors)):
        if vectors is not None and (name == "from the text" or one.vectors is None):
            yield _sentence(f"inner products {name}; * marks the best of a row")
            yield from _table(*_matrix(vectors), console)
    yield from map(_sentence, vector_scores(one) or ["the vectors are not known"])
    views = [("query", one.query if first else None), ("passage", one.passage)]
    proposing = [(name, view) for name, view in views if view is not None and view.positions]
    if proposing:
        yield _heading("4. What the model proposes")
        if first:
            yield _sentence(LEGEND)
        yield from (_view(name, view) for name, view in proposing)


def _heading(title: str) -> Text:
    from rich.text import Text

    return Text(f"\n{title}", style="bold")


def _sentence(text: str | Text) -> RenderableType:
    from rich.padding import Padding
    from rich.text import Text

    return Padding.indent(Text(visible(text), overflow="fold") if isinstance(text, str) else text, _INDENT)


def _grid(rows: Sequence[tuple[str, str | Text]]) -> RenderableType:
    """Labels with their texts beside them, wrapped."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(label, Text(visible(text)) if isinstance(text, str) else text)
    return grid


def _head(one: Explanation) -> RenderableType:
    read = "text not known" if one.passage is None else amount_read(one.passage)
    rows: list[tuple[str, str | Text]] = [
        ("Query", f"{shortened(one.query.text, _TEXT)} ({amount_read(one.query)})".lstrip()),
        ("Passage", f"{one.docid} ({read})"),
        *(("Note", note) for note in one.notes),
    ]
    return _grid(rows)


def _view(name: str, view: TextView) -> RenderableType:
    from rich.padding import Padding

    rows: list[tuple[str, str | Text]] = []
    for number, position in enumerate(view.positions, start=1):
        rows.append((f"{name[0]}{number}", _proposals(position)))
        if position.own:
            own = ", ".join(f"{token(one)} {one.weight:.2f}" for one in position.own)
            rows.append(("", f"of the text's words: {own}"))
    return Padding.indent(_grid(rows), _INDENT)


def _proposals(position: MaskPosition) -> Text:
    from rich.text import Text

    text = Text("" if position.kept else "(after the end of the answer, so it does not count) ")
    for number, one in enumerate(position.proposals):
        text.append(", " if number else "")
        text.append(token(one) + marks(one), style="bold cyan" if one.own else "")
        text.append(f" {figures(one)}")
    return text


def _matrix(vectors: Interaction) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the interaction matrix."""
    rows = matrix.merged(vectors)
    return ["", "adds", *(cell.name for cell in rows[0].cells)], [
        [row.name, "empty" if row.empty else f"{row.adds:.4f}", *map(_cell, row.cells)] for row in rows
    ]


def _cell(cell: matrix.Cell) -> str:
    return "empty" if cell.value is None else f"{'*' if cell.best else ''}{cell.value:.3f}"


def _terms(one: Explanation, console: Console) -> Iterator[RenderableType]:
    terms = one.terms or one.indexed_terms
    if one.passage is not None:
        yield _sentence(_marked(one, _TEXT))
    if terms is None:
        yield _sentence("the terms are not known")
        return
    rows = [[word.label, word.products, f"{word.share:,}"] for word in whole_words(terms.matched)]
    if rows:
        yield from _table(WORDS_HEADER, rows, console)
    else:
        yield _sentence("the texts have no term in common")
    yield from map(_sentence, [*term_scores(one), *one.frequencies])
    yield _others("only in the query", terms.query_only, "query")
    if terms.passage_only is not None:
        yield _others("only in the passage", terms.passage_only, "passage")


def _marked(one: Explanation, limit: int) -> Text:
    """The passage's text with the matched words between stars."""
    from rich.text import Text

    text = Text(overflow="fold")
    for piece, is_word in marked_text(one, limit):
        text.append(f"*{piece}*" if is_word else piece, style="bold" if is_word else "")
    return text or Text("(empty)")


def _others(label: str, terms: Sequence[Term], side: str) -> RenderableType:
    shown = ", ".join(f"{word.label} ({word.impacts(side)})" for word in whole_words(terms))
    return _sentence(f"{label}: {shown or 'none'}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> Iterator[RenderableType]:
    """A table, or one sentence per row where the console is too narrow for it, so that no figure is cut."""
    from rich.padding import Padding

    table = plain_table(header, rows)
    # Measured without a limit, because a table that is cut to the console's width would seem to fit.
    if console.measure(table, options=console.options.update(width=UNLIMITED)).maximum + _INDENT <= console.width:
        yield Padding.indent(table, _INDENT)
        return
    for row in rows:
        figures = ", ".join(f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True))
        yield _sentence(f"{row[0]}: {figures}")


def marked_text(one: Explanation, limit: int) -> list[tuple[str, bool]]:
    """The passage's text up to ``limit`` characters, in pieces with whether each is a matched word."""
    assert one.passage is not None
    matched = whole_words(one.terms.matched) if one.terms else []
    return marked(one.passage.text, {name for word in matched for name in word.passage}, limit)


def token(proposal: Proposal) -> str:
    """A token with visible blanks."""
    return visible(proposal.shown).replace(" ", "␣")


def marks(proposal: Proposal) -> str:
    """A star for a token of the text, and a mark for special tokens."""
    return ("*" if proposal.own else "") + (" (special)" if proposal.special else "")


def figures(proposal: Proposal) -> str:
    """The weight, and the probability if it is at least 0.1 %."""
    percent = 100 * proposal.probability
    if percent < 0.1:
        return f"{proposal.weight:.2f}"
    return f"{proposal.weight:.2f} {percent:.{1 if percent < 10 else 0}f} %"


def score(value: float | None, signal: str | None = None) -> str:
    """A score for display: lexical scores are whole numbers."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if signal == "lexical" else f"{value:.4f}"


def amount_read(view: TextView) -> str:
    """How much of a text the model read."""
    if view.tokens == 0:
        return "no tokens read: the text is empty"
    return f"{view.tokens:,} {'token' if view.tokens == 1 else 'tokens'} read" + (", the maximum" if view.full else "")


def verdict(result: RankedEntry) -> str:
    """The passage's rank and score, in one sentence."""
    lists = result.contributions
    if result.rank is None:
        which = "It is in no list" if len(lists) > 1 else "It is not in the list"
        lengths = ", ".join(f"{one.signal} ({one.listed:,} listed)" for one in lists)
        return f"{which}: {lengths}. A search with these options does not show it."
    signals = " and ".join(filter(None, (", ".join(one.signal for one in lists[:-1]), lists[-1].signal)))
    if result.fusion is None:
        sentence = f"score {score(result.score, lists[0].signal)} ({signals})"
    elif result.fusion == "rrf":
        sentence = f"fused score {result.score:.6f} ({signals}, reciprocal ranks with k = {result.rrf_k})"
    else:
        sentence = f"fused score {score(result.score)} ({signals}, min-max)"
    sentence = f"Rank {result.rank:,} of {result.listed:,}, {sentence}."
    if result.returned:
        return sentence
    return f"{sentence} A search returns the first {result.hits:,}, so it does not show it."


def total(result: RankedEntry) -> list[str]:
    """How the fused score is the sum of what the lists add; nothing for a single list or a passage in none."""
    if result.fusion is None or result.score is None:
        return []
    if result.fusion == "rrf":
        listed = [one for one in result.contributions if one.rank is not None]
        parts = [f"{one.weight:.4f} / ({result.rrf_k} + {one.rank:,}) ({one.signal})" for one in listed]
        return [f"{result.score:.6f} = {' + '.join(parts)}"]
    parts = [f"{one.weight:.4f} × {one.scaled:.4f} ({one.signal})" for one in result.contributions]
    return [f"{result.score:.4f} = {' + '.join(parts)}"]


def fusion_rows(result: RankedEntry) -> list[list[str]]:
    """A row of :data:`FUSION_HEADER` for each list."""
    return [_fusion_row(one, result.fusion) for one in result.contributions]


def _fusion_row(one: Contribution, fusion: str | None) -> list[str]:
    return [
        one.signal,
        f"{one.rank:,} of {one.listed:,}" if one.rank else f"none of {one.listed:,}",
        score(one.score, one.signal),
        "–" if one.low is None else f"{score(one.low, one.signal)} to {score(one.high, one.signal)}",
        "–" if one.scaled is None else f"{one.scaled:.4f}",
        f"{one.weight:.4f}",
        score(one.adds, one.signal) if fusion is None else f"{one.adds:.{6 if fusion == 'rrf' else 4}f}",
    ]


def missing(result: RankedEntry) -> list[str]:
    """For each list that lacks the passage, the reason why it adds nothing."""
    return [f"{one.signal}: {_reason(one)}, so it adds 0" for one in result.contributions if one.rank is None]


def _reason(one: Contribution) -> str:
    if one.signal == "lexical" and one.low == 0:
        return "not in the list: its score is 0"
    return f"not among the {one.listed:,} of the list"


def vector_scores(explanation: Explanation) -> list[str]:
    """The vectors' scores, from the text and from the index."""
    lines = []
    if explanation.vectors is not None:
        lines.append(f"MaxSim from the text: {explanation.vectors.score:.4f}")
    if explanation.indexed_vectors is not None:
        cosine = explanation.similarity
        similarity = "" if cosine is None else f" (mean cosine with those of the text {cosine:.4f})"
        lines.append(f"MaxSim with the index's vectors: {explanation.indexed_vectors.score:.4f}{similarity}")
    if explanation.vectors is not None:
        lines.append(f"pooled vectors from the text: {explanation.vectors.pooled:.4f}")
    if explanation.dense is not None:
        lines.append(f"pooled vector of the dense index: {explanation.dense:.4f}")
    return lines + _unused(explanation.result, "dense", "multi") if lines else []


def term_scores(explanation: Explanation) -> list[str]:
    """The lexical scores, from the text and from the index."""
    pairs = (("from the text", explanation.terms), ("with the index's impacts", explanation.indexed_terms))
    lines = [f"lexical score {name}: {terms.score:,}" for name, terms in pairs if terms is not None]
    return lines + _unused(explanation.result, "lexical") if lines else []


def _unused(result: RankedEntry, *signals: str) -> list[str]:
    """A sentence where the search uses none of ``signals``."""
    searched = [one.signal for one in result.contributions]
    return [] if set(searched) & set(signals) else [f"this search ({', '.join(searched)}) does not use these scores"]
