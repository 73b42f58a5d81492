"""Topics: TSV, JSON lines in Pyserini's or BEIR's keys, each plain or .gz, Pyserini's one-object JSON, BEIR folders."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import InputError
from ..files.atomic import write_whole
from ..files.folders import restore
from ..files.jsonl import checked_id, read_lines, read_objects, refuse_deep, text_field
from .beir import beir_file
from .irds import irds_name, irds_queries
from .qrels import judged_queries, read_qrels

_ID_KEYS = ("qid", "_id", "id")
_TEXT_KEYS = ("title", "query", "text")
_BEIR_TEXT_KEYS = ("text", "title", "query")  # in BEIR, the title is an empty string or metadata
_LAYOUTS = (
    "use .tsv (query id, tab, query), .jsonl ({'qid', 'title'}, or BEIR's {'_id', 'text'}), plain or .gz, "
    "or .json ({query id: {'title'}}), a folder in BEIR layout, or irds:NAME"
)


def read_topics(source: str | Path, split: str = "test") -> dict[str, str]:
    """Read topics into query id → query (stripped), in the file's order. Equal texts under two ids are kept.

    A source is a file; a folder in BEIR layout, of whose queries those are kept that qrels/``split``.tsv judges; or
    ``irds:NAME``. In JSON lines the query is the first of ``title``, ``query`` and ``text`` that is not empty; in
    BEIR's layout (``_id``) ``text`` comes first.

    Raises
    ------
    InputError
        For an unknown layout, broken JSON, a missing or repeated id, an empty query, a folder without a file that it
        should have, or a data set that cannot be read.
    """
    if (name := irds_name(source)) is not None:
        return checked_topics(irds_queries(name), source)
    path = Path(source).expanduser()
    restore(path)
    if not path.is_dir():
        return checked_topics(_rows(path), path)
    judged = beir_file(path, f"qrels/{split}.tsv")
    topics, qrels = read_topics(beir_file(path, "queries.jsonl")), read_qrels(judged)
    judged_queries(topics, qrels, judged)  # raises for a query that counts but has no text
    return {qid: text for qid, text in topics.items() if qid in qrels}


def checked_topics(rows: Iterable[tuple[str, object, str]], source: str | Path) -> dict[str, str]:
    """Query id → query of (where, id, text) rows of ``source``; raises as `read_topics`."""
    topics = dict[str, str]()
    for where, identifier, text in rows:
        qid = checked_id(identifier, where, "query")
        if qid in topics:
            raise InputError(f"{where}: query id '{qid}' occurs twice; ids must be unique.")
        if not text.strip():
            raise InputError(f"{where}: query '{qid}' is empty; give it a text or remove the line.")
        topics[qid] = text.strip()
    if not topics:
        raise InputError(f"{source}: there are no queries.")
    return topics


def topic_ids(path: str | Path) -> list[str]:
    """The query ids of a topic file, unchecked; raises InputError if it is not a topic file."""
    return [str(identifier) for _, identifier, _ in _rows(Path(path)) if identifier not in (None, "")]


def _rows(path: Path) -> Iterator[tuple[str, object, str]]:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1].lower() if suffixes else ""
    restore(path)
    if not path.is_file():
        raise InputError(f"{path}: no such topic file; {_LAYOUTS}.")
    if kind in (".tsv", ".txt"):
        return _tsv_rows(path)
    if kind == ".jsonl":
        return _jsonl_rows(path)
    if kind == ".json":
        return _json_rows(path)
    raise InputError(f"{path}: unknown kind of topic file; {_LAYOUTS}.")


def _tsv_rows(path: Path) -> Iterator[tuple[str, object, str]]:
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        qid, tab, text = line.partition("\t")
        if not tab:
            raise InputError(f"{where}: no tab between query id and query; {_LAYOUTS}.")
        yield where, qid.strip(), text


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The non-blank lines with their numbers; a lone CR ends a line too, as in Pyserini's readers."""
    lone_crs = 0  # seen in earlier lines
    for number, line in read_lines(path):
        for i, part in enumerate(line.split("\r")):
            if part.strip():
                yield number + lone_crs + i, part
        lone_crs += line.count("\r")


def _jsonl_rows(path: Path) -> Iterator[tuple[str, object, str]]:
    for number, record in read_objects(path):
        where = f"{path}, line {number}"
        for what, keys in (("id", _ID_KEYS), ("query", _TEXT_KEYS)):
            if not record.keys() & set(keys):
                raise InputError(f"{where}: no {what} ({', '.join(keys)}); {_LAYOUTS}.")
        identifier = next((record[key] for key in _ID_KEYS if record.get(key) is not None), None)
        texts = (text_field(record, key, where) for key in (_BEIR_TEXT_KEYS if "_id" in record else _TEXT_KEYS))
        yield where, identifier, next((text for text in texts if text.strip()), "")


def _json_rows(path: Path) -> Iterator[tuple[str, object, str]]:
    lines = list[str]()
    for number, line in read_lines(path):
        lines += [""] * (number - 1 - len(lines)) + [line]  # keep blank lines, so that messages name the right line
    text = "\n".join(lines)
    refuse_deep(text, str(path))
    try:
        topics = json.loads(text, object_pairs_hook=tuple)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: broken JSON ({error.msg}); {_LAYOUTS}.") from error
    if not isinstance(topics, tuple):
        raise InputError(f"{path}: expected a JSON object, found {type(topics).__name__}; {_LAYOUTS}.")
    for qid, fields in topics:  # objects are tuples of pairs, so that repeated ids are kept
        where = f"{path}, query '{qid}'"
        record = dict(fields) if isinstance(fields, tuple) else {}
        if "title" not in record:
            raise InputError(f"{where}: no 'title'; {_LAYOUTS}.")
        yield where, qid, text_field(record, "title", where)


def write_topics(path: str | Path, topics: Mapping[str, str]) -> None:
    """Write topics as the .json that Pyserini reads in Python: {query id: {"title": query}}.

    Its other readers use Java, which turns the id "007" into 7 or fails at a tab.
    """
    record = {qid: {"title": text} for qid, text in topics.items()}
    write_whole(path, json.dumps(record, indent=0) + "\n")
