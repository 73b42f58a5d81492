"""One training row: a query with its positive and negative passages, parsed from one of several layouts.

JSON: Tevatron's ``{"query", "positive_passages": [{"docid", "title", "text"}], "negative_passages": [...]}``, or a
plain pair ``{"query", "positive" | "passage", "title"}``. TSV: query, tab, passage. A passage may carry a teacher's
``"score"``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...corpora.corpus import Passage
from ...errors import InputError
from ...files.jsonl import parse_object, text_field


@dataclass(frozen=True, slots=True)
class ScoredPassage(Passage):
    """A passage of a training row; its id is empty where the row gives none, ``score`` is a teacher's, if any."""

    score: float | None = None


def scored(passage: Passage) -> ScoredPassage:
    """``passage`` without a score."""
    return ScoredPassage(passage.docid, passage.title, passage.text)


@dataclass(frozen=True, slots=True)
class Row:
    """A query, at least one positive, any number of negatives."""

    query: str
    positives: tuple[ScoredPassage, ...]
    negatives: tuple[ScoredPassage, ...]
    query_id: str = ""


def parse_line(line: str, where: str, tabs: bool = False) -> Row:
    """The row in a line of a ``.jsonl`` (or, with ``tabs``, ``.tsv``) file; InputError names ``where``."""
    if tabs:
        query, tab, passage = line.rstrip("\r\n").partition("\t")
        if not tab or "\t" in passage:
            raise InputError(f"{where}: expected two columns, query and passage, separated by one tab.")
        return checked(Row(query.strip(), (ScoredPassage("", "", passage.strip()),), ()), where)
    return parse_record(parse_object(line, where), where)


def parse_record(record: dict[str, Any], where: str) -> Row:
    """The row in a JSON object of Tevatron's layout or a plain pair; InputError names ``where``."""
    query = text_field(record, "query", where).strip()
    query_id = _id(record, "query_id")
    if "positive_passages" in record:
        positives, negatives = (_passages(record, name, where) for name in ("positive_passages", "negative_passages"))
        return checked(Row(query, positives, negatives, query_id), where)
    name = next((name for name in ("positive", "passage", "text") if name in record), None)
    if name is None:
        raise InputError(f"{where}: neither positive_passages nor positive nor passage; the keys are {sorted(record)}.")
    positive = ScoredPassage("", text_field(record, "title", where), text_field(record, name, where))
    return checked(Row(query, (positive,), (), query_id), where)


def _id(record: dict[str, Any], name: str) -> str:
    """The id in a field, which may be the number 0; empty where there is none."""
    value = record.get(name)
    return "" if value is None else str(value)


def _passages(record: dict[str, Any], name: str, where: str) -> tuple[ScoredPassage, ...]:
    values = record.get(name) or []
    if not isinstance(values, list):
        raise InputError(f"{where}: {name} must be a list, found {type(values).__name__}.")
    passages = []
    for value in values:
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, dict):
            raise InputError(f"{where}: a passage in {name} is {type(value).__name__}, not an object with a text.")
        score = value.get("score")
        if score is not None and (
            isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score)
        ):
            raise InputError(f"{where}: the score {score!r} in {name} is not a number.")
        title, text = text_field(value, "title", where), text_field(value, "text", where)
        passages.append(ScoredPassage(_id(value, "docid"), title, text, None if score is None else float(score)))
    return tuple(passages)


def checked(row: Row, where: str) -> Row:
    """``row`` if it is usable. InputError for an empty query, no positive, an empty passage, or one text that is both
    positive and negative."""
    if not row.query:
        raise InputError(f"{where}: the query is empty.")
    if not row.positives:
        raise InputError(f"{where}: no positive passage for query {row.query!r:.60}.")
    for kind, passages in (("positive", row.positives), ("negative", row.negatives)):
        if any(not passage.contents for passage in passages):
            raise InputError(f"{where}: an empty {kind} passage for query {row.query!r:.60}.")
    both = {passage.contents for passage in row.positives} & {passage.contents for passage in row.negatives}
    if both:
        raise InputError(f"{where}: the passage {min(both)!r:.60} is both positive and negative.")
    return row


def to_record(row: Row) -> dict[str, Any]:
    """``row`` as a JSON object in Tevatron's layout."""

    def passage(one: ScoredPassage) -> dict[str, Any]:
        record: dict[str, Any] = {"docid": one.docid, "title": one.title, "text": one.text}
        return record if one.score is None else record | {"score": one.score}

    return {
        "query_id": row.query_id,
        "query": row.query,
        "positive_passages": [passage(one) for one in row.positives],
        "negative_passages": [passage(one) for one in row.negatives],
    }
