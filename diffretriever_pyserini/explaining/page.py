"""An explanation as one HTML page that stands alone: no script, nothing from outside, every text escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from . import wording
from .explanation import Explanation, Meeting, Overlap, Place, Proposal, Standing, Term, TextView
from .style import CSS
from .wording import shortened, visible

_TEXT = 20_000  # characters of a text that are shown
_SCROLLS = 1000  # characters that a narrow page shows without scrolling


def to_html(found: Sequence[Explanation]) -> str:
    """All of ``found``, about the same query, as one page."""
    first = found[0]
    title = f"{', '.join(visible(one.docid) for one in found)} for “{shortened(first.query.text, 80)}”"
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n",
            "<h1>Why a passage has its place in the result of a query</h1>\n",
            f"<p>Query</p>{_said(first.query.text)}\n",
            f'<p class="soft">Index {_text(first.index)}, encoder {_text(first.encoder)}.</p>\n',
            _contents(found),
            "<h2>What the model proposes for the query</h2>\n",
            f'<p class="soft">{escape(wording.LEGEND)}</p>\n',
            _view(first.query, "q"),
            *(part for number, one in enumerate(found, start=1) for part in _passage(number, one)),
            "</main>\n</body>\n</html>\n",
        )
    )


def _passage(number: int, one: Explanation) -> Iterator[str]:
    yield f'<article id="p{number}">\n<h2>Passage {_text(one.docid)}</h2>\n'
    if one.passage is not None:
        yield _said(one.passage.text)
    yield f'<p class="verdict">{escape(wording.verdict(one.standing))}</p>\n'
    for note in one.notes:
        yield f'<p class="note">{_text(note)}</p>\n'
    if one.passage is not None:
        yield "<h3>What the model proposes for the passage</h3>\n" + _view(one.passage, "p")
    yield "<h3>Which vector met which</h3>\n"
    for name, meeting in (("from the text", one.vectors), ("out of the index", one.indexed_vectors)):
        if meeting is not None:
            folded = name != "from the text" and one.vectors is not None
            table = _matrix(meeting, name)
            yield f"<details><summary>The same {name}</summary>\n{table}</details>\n" if folded else table
    yield _lines(wording.vector_scores(one) or ["Nothing is known of the vectors."])
    yield "<h3>Which terms matched</h3>\n"
    terms = one.terms or one.indexed_terms
    yield "<p>Nothing is known of the terms.</p>\n" if terms is None else _terms(terms)
    yield _lines(wording.term_scores(one))
    yield "<h3>How it was put together</h3>\n" + _fusion(one.standing)
    yield "</article>\n"


def _contents(found: Sequence[Explanation]) -> str:
    if len(found) == 1:
        return ""
    items = "".join(
        f'<li><a href="#p{number}">{_text(one.docid)}</a>: {escape(wording.verdict(one.standing))}</li>\n'
        for number, one in enumerate(found, start=1)
    )
    return f'<nav aria-label="Passages"><ul>\n{items}</ul></nav>\n'


def _text(text: str) -> str:
    """Text from outside within a sentence: escaped, and in its own direction."""
    return f"<bdi>{escape(visible(text))}</bdi>"


def _said(text: str) -> str:
    shown = escape(shortened(text, _TEXT)) or "(empty)"
    scrolls = ' tabindex="0" role="region" aria-label="Text"' if len(text) > _SCROLLS else ""
    return f'<div class="said" dir="auto"{scrolls}>{shown}</div>\n'


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line[:1].upper() + line[1:])}.</p>\n" for line in (one.rstrip(".") for one in lines))


def _scroll(label: str, table: str) -> str:
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">\n{table}</div>\n'


def _view(view: TextView, side: str) -> str:
    rows = "".join(_place(f"{side}{number}", place) for number, place in enumerate(view.places, start=1))
    return (
        f"<details open><summary>{escape(wording.read(view))}</summary>\n"
        '<table class="places"><thead><tr><th scope="col">place</th>'
        f'<th scope="col">strongest of all</th><th scope="col">strongest of its own words</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></details>\n"
    )


def _place(name: str, place: Place) -> str:
    cut = "" if place.kept else '<p class="soft">After the end of the answer: does not count.</p>'
    return (
        f'<tr><th scope="row">{name}</th><td>{cut}{_tokens(place.proposals)}</td>'
        f"<td>{_tokens(place.own) if place.own else ''}</td></tr>\n"
    )


def _tokens(proposals: Sequence[Proposal]) -> str:
    return f'<ul class="tokens">{"".join(map(_token, proposals))}</ul>'


def _token(one: Proposal) -> str:
    marks = ("*" if one.own else "") + (" (special)" if one.special else "")
    figures = f"{one.weight:.2f}{wording.chance(one)}"
    own = ' class="own"' if one.own else ""
    return f"<li{own}>{_text(wording.token(one))}{marks} <small>{figures}</small></li>"


def _matrix(meeting: Meeting, name: str) -> str:
    head = "".join(f'<th scope="col">p{j + 1}</th>' for j in range(len(meeting.empty_passage)))
    values = [value for row in meeting.cells for value in row]
    low, span = min(values), max(max(values) - min(values), 1e-9)
    rows = "".join(_row(meeting, i, [(value - low) / span for value in row]) for i, row in enumerate(meeting.cells))
    width = len(meeting.empty_passage)
    how = f"Inner products {name}: the stronger the colour, the larger; the best of a row is framed and has a star."
    table = (
        f'<table class="matrix"><thead><tr><th scope="col">query</th><th scope="col">adds</th>{head}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n"
        f'<tfoot><tr><th scope="row">sum</th><td>{meeting.score:.4f}</td><td colspan="{width}"></td></tr></tfoot>'
        "</table>\n"
    )
    return f'<p class="soft">{escape(how)}</p>\n' + _scroll(f"Inner products {name}", table)


def _row(meeting: Meeting, i: int, tints: Sequence[float]) -> str:
    cells = []
    for j, (value, tint) in enumerate(zip(meeting.cells[i], tints, strict=True)):
        if meeting.empty_query[i] or meeting.empty_passage[j]:
            cells.append('<td class="none">empty</td>')
        elif meeting.best[i] == j:
            cells.append(f'<td class="win" style="--v:{tint:.2f}">{value:.3f}&nbsp;*</td>')
        else:
            cells.append(f'<td style="--v:{tint:.2f}">{value:.3f}</td>')
    return f'<tr><th scope="row">q{i + 1}</th><td>{meeting.gains[i]:.4f}</td>{"".join(cells)}</tr>\n'


def _terms(terms: Overlap) -> str:
    parts = []
    if terms.matched:
        most = max(term.share for term in terms.matched)
        rows = "".join(
            f'<tr><th scope="row" class="term">{_text(term.shown)}</th><td>{term.query:,}</td><td>{term.passage:,}</td>'
            f"<td>{term.share:,}{_bar(term.share / most)}</td></tr>\n"
            for term in terms.matched
        )
        table = (
            '<table><thead><tr><th scope="col">term</th><th scope="col">query</th><th scope="col">passage</th>'
            f'<th scope="col">query × passage</th></tr></thead>\n<tbody>\n{rows}</tbody>\n<tfoot><tr>'
            f'<th scope="row">sum</th><td></td><td></td><td>{terms.score:,}</td></tr></tfoot></table>\n'
        )
        parts.append(_scroll("Terms that matched", table))
    else:
        parts.append("<p>No term is on both sides.</p>\n")
    parts.append(_others("Only the query has", terms.query_only, "query"))
    if terms.passage_only is not None:
        parts.append(_others("Only the passage has", terms.passage_only, "passage"))
    return "".join(parts)


def _others(label: str, terms: Sequence[Term], side: str) -> str:
    if not terms:
        return f'<p class="soft">{label} no other term.</p>\n'
    items = "".join(f"<li>{_text(term.shown)} <small>{getattr(term, side):,}</small></li>" for term in terms)
    return f'<p class="soft">{label}, strongest first:</p><ul class="tokens">{items}</ul>\n'


def _fusion(standing: Standing) -> str:
    rows = []
    for part in standing.parts:
        side, digits = part.signal, 6 if standing.fusion == "rrf" else 4
        rank = f"{part.rank:,} of {part.listed:,}" if part.rank else wording.missing(part)
        span = "–" if part.low is None else f"{wording.score(part.low, side)} to {wording.score(part.high, side)}"
        share = "–" if part.scaled is None else f"{part.scaled:.4f}{_bar(part.scaled)}"
        adds = f"{part.adds:.{digits}f}" if standing.fusion else wording.score(part.adds, side)
        cells = (rank, wording.score(part.score, side), span, share, f"{part.weight:.4f}", adds)
        rows.append(f'<tr><th scope="row">{side}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n')
    names = ("side", "rank", "score", "scaled from", "share", "weight", "adds")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table>\n"
    return _scroll("Lists and weights", table) + f"<p>{escape(wording.verdict(standing))}</p>\n"


def _bar(share: float) -> str:
    """A bar beside a number that says the same."""
    return f'<span class="bar" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></span>'
