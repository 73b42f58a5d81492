"""Relevance judgements: BEIR's three columns or TREC's four, plain, .gz or .zst; BEIR folders; ``irds:NAME``."""

import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import SupportsIndex

from ..errors import InputError
from ..files.atomic import whole_file
from ..files.folders import restore
from ..files.jsonl import read_columns
from .beir import beir_file
from .irds import irds_judgements, irds_name

Qrels = dict[str, dict[str, int]]
"""Query id → docid → relevance grade."""

GRADES = 1_000_000
"""The highest grade: trec_eval counts the passages per grade, and grades from 2**31 make all its measures wrong."""

_HEADINGS = ("query-id", "qid", "query_id")


def read_qrels(source: str | Path, split: str = "test") -> Qrels:
    """Read relevance judgements: BEIR's three columns (with or without header) or TREC's four (qid 0 docid grade).

    A source is a file, a folder in BEIR layout with qrels/``split``.tsv, or ``irds:NAME``.

    Raises
    ------
    InputError
        For a line of another layout, a grade that is out of range or not a whole number, a pair judged twice with
        different grades, or a folder or data set without judgements.
    """
    qrels = Qrels()
    for where, qid, docid, grade in judgements(source, split):
        if qrels.setdefault(qid, {}).setdefault(docid, grade) != grade:
            raise InputError(
                f"{where}: query '{qid}' and passage '{docid}' have another grade on an earlier line; keep one of them."
            )
    if not qrels:
        raise InputError(f"{source}: no judgements in this file.")
    return qrels


def judgements(source: str | Path, split: str = "test") -> Iterator[tuple[str, str, str, int]]:
    """Yield (file and line, query id, docid, grade) for each line of judgements; raises as `read_qrels`."""
    if (name := irds_name(source)) is not None:
        for where, qid, docid, value in irds_judgements(name):
            yield where, qid, docid, check_grade(value, where)
        return
    path = Path(source).expanduser()
    restore(path)
    if path.is_dir():
        path = beir_file(path, f"qrels/{split}.tsv")
    columns = 0
    for number, (where, parts) in enumerate(read_columns(path)):
        if number == 0 and parts[0].lower() in _HEADINGS:
            columns = len(parts)  # an id with a blank in three columns looks like four
            continue
        columns = columns or len(parts)
        if len(parts) not in (3, 4) or len(parts) != columns:
            layout = "query-id, corpus-id, score (BEIR) or qid, 0, docid, grade (TREC)"
            raise InputError(f"{where}: {len(parts)} columns, expected {layout} throughout the file.")
        qid, docid, grade = parts[0], parts[-2], parts[-1]
        try:
            value = int(grade)
        except ValueError as error:
            raise InputError(f"{where}: the grade {grade!r} is not a whole number.") from error
        yield where, qid, docid, check_grade(value, where)


def check_grade(grade: SupportsIndex, where: str) -> int:
    """``grade`` as an int; raises InputError unless it is a whole number between -1,000,000 and 1,000,000."""
    try:
        value = operator.index(grade)
    except TypeError as error:
        raise InputError(f"{where}: the grade {grade!r} is not a whole number.") from error
    if abs(value) > GRADES:
        raise InputError(f"{where}: the grade {value} is out of range: from {-GRADES:,} to {GRADES:,}.")
    return value


def judged_queries(queries: dict[str, str], qrels: Qrels, source: Path) -> dict[str, str]:
    """Keep the queries that have at least one passage with a positive grade, in the order of `queries`.

    Raises
    ------
    InputError
        When a judged query has no text, or no query has a relevant passage.
    """
    relevant = {qid for qid, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    unknown = sorted(relevant - queries.keys())
    if unknown:
        raise InputError(
            f"{source}: query '{unknown[0]}' (and {len(unknown) - 1} more) is judged but has no text. Add its text or "
            "remove its judgements."
        )
    judged = {qid: text for qid, text in queries.items() if qid in relevant}
    if not judged:
        raise InputError(f"{source}: no query has a passage with a positive grade, so nothing can be measured.")
    return judged


def write_qrels(path: str | Path, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements in TREC's four columns, atomically."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for qid, grades in qrels.items():
            file.writelines(f"{qid} 0 {docid} {grade}\n" for docid, grade in grades.items())
