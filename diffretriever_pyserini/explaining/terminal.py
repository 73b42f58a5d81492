"""An explanation for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import wording
from .explanation import Explanation, Meeting, Place, Proposal, Standing, Term, TextView
from .wording import columns, visible

_TEXT = 400  # characters of a text that are shown
_TERM = 24
_LEAST = 40


def to_text(found: Sequence[Explanation], width: int = 100) -> str:
    """All of ``found``, about the same query, in lines of at most ``width`` columns where words allow it."""
    width = max(width, _LEAST)
    lines: list[str] = []
    for one in found:
        lines += [*_about(one, width, one is found[0]), ""]
    return "\n".join(lines).rstrip()


def _about(one: Explanation, width: int, first: bool) -> Iterator[str]:
    text = "(text not known)" if one.passage is None else wording.shortened(one.passage.text, _TEXT) or "(empty)"
    query = wording.shortened(one.query.text, _TEXT) or "(empty)"
    for label, said in (
        ("Query", query),
        ("Passage", f"{visible(one.docid)}: {text}"),
        ("Result", wording.verdict(one.standing)),
    ):
        yield from _wrapped(said, width, f"{label:<9}", " " * 9)
    for note in one.notes:
        yield from _wrapped(note, width, "Note     ", " " * 9)
    yield from ("", "1. What the model proposes")
    if first:
        yield from _wrapped(wording.LEGEND, width, "   ", "   ")
        yield from _view("query", one.query, width)
    if one.passage is not None:
        yield from _view("passage", one.passage, width)
    yield from ("", "2. Which vector met which")
    for name, meeting in (("from the text", one.vectors), ("out of the index", one.indexed_vectors)):
        if meeting is not None and (name == "from the text" or one.vectors is None):
            yield from _wrapped(f"inner products {name}; * is the best of a row", width, "   ", "   ")
            yield from _matrix(meeting, width)
    for line in wording.vector_scores(one) or ["nothing is known of the vectors"]:
        yield from _wrapped(line, width, "   ", "     ")
    yield from ("", "3. Which terms matched")
    yield from _terms(one, width)
    yield from ("", "4. How it was put together")
    yield from _fusion(one.standing, width)


def _view(name: str, view: TextView, width: int) -> Iterator[str]:
    yield from _wrapped(f"{name}: {wording.read(view)}", width, "   ", "     ")
    for number, place in enumerate(view.places, start=1):
        yield from _place(name[0], number, place, width)


def _place(side: str, number: int, place: Place, width: int) -> Iterator[str]:
    label = f"   {side}{number}".ljust(8)
    cut = "" if place.kept else "(after the end of the answer: does not count) "
    shown = ", ".join(f"{_token(one)}\xa0{one.weight:.2f}{wording.chance(one)}" for one in place.proposals)
    yield from _wrapped(cut + shown, width, label, " " * 8)
    if place.own:
        own = ", ".join(f"{wording.token(one)}\xa0{one.weight:.2f}" for one in place.own)
        yield from _wrapped(f"of the text's words: {own}", width, " " * 8, " " * 10)


def _token(one: Proposal) -> str:
    return wording.token(one) + ("*" if one.own else "") + (" (special)" if one.special else "")


def _matrix(meeting: Meeting, width: int) -> Iterator[str]:
    """Blocks of as many columns as fit."""
    count = len(meeting.empty_passage)
    step = max(1, (width - 8) // 8)
    for begin in range(0, count, step):
        inside = range(begin, min(begin + step, count))
        yield "       " + "".join(f"{f'p{j + 1}':>7} " for j in inside).rstrip()
        for i, row in enumerate(meeting.cells):
            cells = (_cell(meeting, i, j, row[j]) for j in inside)
            yield f"   {f'q{i + 1}':<4}" + "".join(cells).rstrip()
    adds = ", ".join(
        f"q{i + 1} " + ("is empty" if empty else "adds nothing" if best is None else f"→ p{best + 1} {gain:.4f}")
        for i, (empty, best, gain) in enumerate(zip(meeting.empty_query, meeting.best, meeting.gains, strict=True))
    )
    yield from _wrapped(f"{adds}; sum {meeting.score:.4f}", width, "   ", "   ")


def _cell(meeting: Meeting, i: int, j: int, value: float) -> str:
    if meeting.empty_query[i] or meeting.empty_passage[j]:
        return f"{'empty':>7} "
    return f"{value:7.3f}{'*' if meeting.best[i] == j else ' '}"


def _terms(one: Explanation, width: int) -> Iterator[str]:
    terms = one.terms or one.indexed_terms
    if terms is None:
        yield "   nothing is known of the terms"
        return
    if terms.matched:
        rows = [[_short(t), f"{t.query:,}", f"{t.passage:,}", f"{t.share:,}"] for t in terms.matched]
        yield from _table(["term", "query", "passage", "query x passage"], rows, width)
    else:
        yield from _wrapped("no term is on both sides", width, "   ", "   ")
    for line in wording.term_scores(one):
        yield from _wrapped(line, width, "   ", "     ")
    yield from _others("only the query", terms.query_only, "query", width)
    if terms.passage_only is not None:
        yield from _others("only the passage", terms.passage_only, "passage", width)


def _others(label: str, terms: Sequence[Term], side: str, width: int) -> Iterator[str]:
    shown = ", ".join(f"{_short(term)} {getattr(term, side)}" for term in terms) or "nothing more"
    yield from _wrapped(shown, width, f"   {label}: ", "     ")


def _short(term: Term) -> str:
    shown = visible(term.shown)
    return shown if len(shown) <= _TERM else f"{shown[: _TERM - 1]}…"


def _fusion(standing: Standing, width: int) -> Iterator[str]:
    header = ["side", "rank", "score", "scaled from", "share", "weight", "adds"]
    digits = 6 if standing.fusion == "rrf" else 4
    rows = []
    for part in standing.parts:
        rank = f"{part.rank:,} of {part.listed:,}" if part.rank else f"none of {part.listed:,}"
        span = "–" if part.low is None or part.high is None else _span(part.low, part.high, part.signal)
        share = "–" if part.scaled is None else f"{part.scaled:.4f}"
        adds = wording.score(part.adds, part.signal) if standing.fusion is None else f"{part.adds:.{digits}f}"
        score = wording.score(part.score, part.signal)
        rows.append([part.signal, rank, score, span, share, f"{part.weight:.4f}", adds])
    yield from _table(header, rows, width)
    for part in standing.parts:
        if part.rank is None:
            yield from _wrapped(f"{part.signal}: {wording.missing(part)}, so it adds 0", width, "   ", "   ")
    yield from _wrapped(wording.verdict(standing), width, "   ", "   ")


def _span(low: float, high: float, side: str) -> str:
    return f"{wording.score(low, side)} to {wording.score(high, side)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Aligned columns, or one sentence a row where they do not fit."""
    widths = [max(columns(row[at]) for row in (header, *rows)) for at in range(len(header))]
    if sum(widths) + 2 * len(widths) + 1 > width:
        for row in rows:
            said = ", ".join(f"{name} {cell}" for name, cell in zip(header[1:], row[1:], strict=True))
            yield from _wrapped(f"{row[0]}: {said}", width, "   ", "     ")
        return
    for row in (header, *rows):
        padded = [
            row[0] + " " * (widths[0] - columns(row[0])),
            *(" " * (room - columns(cell)) + cell for cell, room in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "   " + "  ".join(padded).rstrip()


def _wrapped(text: str, width: int, first: str, then: str) -> list[str]:
    """Lines of at most ``width`` columns; textwrap counts characters, of which some take two columns and some none."""
    lines, line, room = [], first, 0
    for word in filter(None, visible(text).split(" ")):
        for piece in _pieces(word, width - max(len(first), len(then))):
            needed = columns(piece) + (1 if room else 0)
            if room and columns(line) + needed > width:
                lines.append(line)
                line, room, needed = then, 0, columns(piece)
            line += (" " if room else "") + piece
            room += needed
    return [*lines, line.rstrip()]


def _pieces(word: str, most: int) -> Iterator[str]:
    """``word``, cut where it is wider than a line."""
    piece = ""
    for char in word:
        if piece and columns(piece) + columns(char) > most:
            yield piece
            piece = ""
        piece += char
    yield piece
