"""Sentences and figures that the terminal and the page share, and texts made safe to show."""

from __future__ import annotations

import re
import unicodedata

from ..scoring.fusion import Contribution
from .explanation import Explanation, Proposal, Standing, TextView

# Controls that would move a terminal's cursor or turn the direction of what follows, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_BLANKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")


def visible(text: str) -> str:
    """``text`` on one line, with what would garble a terminal or a page written as ``\\u202e``."""
    line = _BLANKS.sub(" ", text)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def shortened(text: str, limit: int) -> str:
    """:func:`visible`, at most ``limit`` characters and how many there are."""
    if len(text) <= limit:
        return visible(text)
    return f"{visible(text[:limit].rstrip())} … ({len(text):,} characters in all)"


def columns(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def token(proposal: Proposal) -> str:
    """A token with blanks to be seen; the stem behind it, where the model counts by stems."""
    shown = visible(proposal.shown).replace(" ", "␣")
    return f"{shown} [{visible(proposal.stem)}]" if proposal.stem else shown


def chance(proposal: Proposal) -> str:
    """`` 42 %`` behind a blank that does not break; nothing below 0.1 %."""
    probability = proposal.probability
    if probability < 0.001:
        return ""
    return f"\xa0{100 * probability:.1f}\xa0%" if probability < 0.1 else f"\xa0{100 * probability:.0f}\xa0%"


def score(value: float | None, side: str | None = None) -> str:
    """A score as a person reads it: lexical ones are whole numbers."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if side == "lexical" else f"{value:.4f}"


LEGEND = (
    "Each token has its weight, log(1 + relu(logit)), and its probability where that is at least 0.1\xa0%. A star: it "
    "stands for a word of the text, and only these make lexical terms (all do, for a model that counts the whole "
    "vocabulary). In brackets the stem, for a model in which all words of one stem are one term: a star then stands on "
    "every form of a word, and the one form whose weight counts is listed among the text's words."
)


def read(view: TextView) -> str:
    """How much of a text the model read."""
    if view.tokens == 0:
        return "nothing to read: the text is empty"
    return f"{view.tokens:,} tokens read" + (", the most that fit" if view.full else "")


def how(standing: Standing) -> str:
    """``multi and lexical, min-max``."""
    *others, last = (part.signal for part in standing.parts)
    sides = f"{', '.join(others)} and {last}" if others else last
    kinds = {"minmax": ", min-max", "rrf": f", reciprocal ranks with k = {standing.rrf_k}"}
    return sides + kinds.get(standing.fusion or "", "")


def verdict(standing: Standing) -> str:
    """Where the passage stands, in one sentence."""
    if standing.rank is None:
        lists = ", ".join(f"{part.signal} ({part.listed:,} listed)" for part in standing.parts)
        which = "It is in no list" if len(standing.parts) > 1 else "It is not in the list"
        return f"{which}: {lists}. A search with these options does not show it."
    what = "fused score" if standing.fusion else "score"
    side = None if standing.fusion else standing.parts[0].signal
    digits = f"{standing.score:.6f}" if standing.fusion == "rrf" else score(standing.score, side)
    place = f"Rank {standing.rank:,} of {standing.listed:,}, {what} {digits} ({how(standing)})."
    if standing.returned:
        return place
    return f"{place} A search returns the first {standing.hits:,}, so it does not show it."


def missing(part: Contribution) -> str:
    """Why a passage is not in a list."""
    if part.signal == "lexical" and part.low == 0:
        return "not in the list: its score is 0"
    return f"not among the {part.listed:,} of the list"


def vector_scores(found: Explanation) -> list[str]:
    """The vectors' scores, from the text and out of the index."""
    lines = []
    if found.vectors is not None:
        lines.append(f"MaxSim from the text: {found.vectors.score:.4f}")
    if found.indexed_vectors is not None:
        alike = "" if found.similarity is None else f" (mean cosine with those of the text {found.similarity:.4f})"
        lines.append(f"MaxSim with the index's vectors: {found.indexed_vectors.score:.4f}{alike}")
    if found.vectors is not None:
        lines.append(f"pooled vectors from the text: {found.vectors.pooled:.4f}")
    if found.dense is not None:
        lines.append(f"pooled vector of the dense index: {found.dense:.4f}")
    return lines


def term_scores(found: Explanation) -> list[str]:
    """The lexical scores, from the text and out of the index."""
    pairs = (("from the text", found.terms), ("with the index's impacts", found.indexed_terms))
    return [f"lexical score {name}: {terms.score:,}" for name, terms in pairs if terms is not None]
