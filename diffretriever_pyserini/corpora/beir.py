"""Test collections in BEIR layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, each plain or .gz."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.jsonl import checked_id, read_lines, read_objects, text_field

Qrels = dict[str, dict[str, int]]
"""Query id → docid → relevance grade."""


@dataclass(frozen=True)
class Passage:
    """One passage of a corpus; title may be empty."""

    docid: str
    title: str
    text: str


@dataclass(frozen=True)
class BeirFolder:
    """The three files of one collection, checked to exist when made by `open_beir`."""

    folder: Path
    corpus: Path
    queries: Path
    qrels: Path

    @property
    def name(self) -> str:
        """The folder's own name, for headings."""
        return self.folder.resolve().name


def _existing(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise InputError(f"{folder}: no {name} or {name}.gz; a folder in BEIR layout has both texts and qrels (see docs).")


def open_beir(folder: str | Path, split: str = "test") -> BeirFolder:
    """Find the files of a collection in BEIR layout.

    Raises
    ------
    InputError
        When the folder or one of the three files is missing.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with corpus.jsonl, queries.jsonl and qrels/{split}.tsv.")
    names = ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    return BeirFolder(folder, *(_existing(folder, name) for name in names))


def read_corpus(path: str | Path) -> Iterator[Passage]:
    """Stream the passages of a corpus.jsonl ({"_id", "title", "text"}).

    A missing title is the empty title. A passage without any text stays: it is a document of the collection.

    Raises
    ------
    InputError
        For broken JSON, a missing, blank or repeated id, or a title or text that is no string.
    """
    path, seen = Path(path), set[str]()
    for number, record in read_objects(path):
        where = f"{path}, line {number}"
        docid = checked_id(record.get("_id", record.get("id")), where, "passage")
        if docid in seen:
            raise InputError(f"{where}: passage id '{docid}' occurs twice; ids must be unique.")
        seen.add(docid)
        yield Passage(docid, text_field(record, "title", where), text_field(record, "text", where))
    if not seen:
        raise InputError(f"{path}: no passages in this file.")


def read_queries(path: str | Path) -> dict[str, str]:
    """Read a queries.jsonl ({"_id", "text"}) into query id → text, in the file's order.

    Raises
    ------
    InputError
        For broken JSON, a missing, blank or repeated id, or an empty query.
    """
    path, queries = Path(path), dict[str, str]()
    for number, record in read_objects(path):
        where = f"{path}, line {number}"
        qid = checked_id(record.get("_id", record.get("id")), where, "query")
        if qid in queries:
            raise InputError(f"{where}: query id '{qid}' occurs twice; ids must be unique.")
        text = text_field(record, "text", where).strip()
        if not text:
            raise InputError(f"{where}: query '{qid}' is empty; give it a text or remove the line.")
        queries[qid] = text
    if not queries:
        raise InputError(f"{path}: no queries in this file.")
    return queries


def read_qrels(path: str | Path) -> Qrels:
    """Read relevance judgements: BEIR's three columns (with or without header) or TREC's four (qid 0 docid grade).

    Raises
    ------
    InputError
        For a line of another layout, a grade that is no whole number, or a pair judged twice with different grades.
    """
    path, qrels = Path(path), Qrels()
    columns = 0
    for number, line in read_lines(path):
        where, parts = f"{path}, line {number}", line.split()
        if number == 1 and parts[0].lower() in ("query-id", "qid", "query_id"):
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
        if qrels.setdefault(qid, {}).setdefault(docid, value) != value:
            raise InputError(f"{where}: query '{qid}' and passage '{docid}' were judged before with another grade.")
    if not qrels:
        raise InputError(f"{path}: no judgements in this file.")
    return qrels


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
        raise InputError(f"{source}: query '{unknown[0]}' (and {len(unknown) - 1} more) is judged but has no text.")
    kept = {qid: text for qid, text in queries.items() if qid in relevant}
    if not kept:
        raise InputError(f"{source}: no query has a passage with a positive grade, so nothing can be measured.")
    return kept
