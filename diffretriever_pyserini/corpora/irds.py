"""Collections of the library ir_datasets: ``irds:NAME`` is a corpus, topics or judgements."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, reason
from .formats import RawRow, Rows

_PREFIX = "irds:"
_LOGGED = ("[starting]", "[finished]", "[error]", "download error", "download failed")
_SHOWN = 5  # names that an error proposes


def irds_name(source: str | Path) -> str | None:
    """``NAME`` where ``source`` is ``irds:NAME``; None for others, and for a file or folder with just this path."""
    text = str(source)
    return text.removeprefix(_PREFIX) if text.startswith(_PREFIX) and not Path(text).exists() else None


def check_irds(name: str, part: str) -> Any:
    """The data set ``name`` of ir_datasets, which has ``part`` (docs, queries or qrels); nothing is downloaded yet.

    Raises
    ------
    InputError
        When the library is not installed, or has no such data set, or the data set has no such part.
    """
    try:
        import ir_datasets
    except ImportError as error:
        raise InputError(
            f"{_PREFIX}{name} needs ir_datasets: pip install 'diffretriever-pyserini[irds]' ({reason(error)})."
        ) from error
    names = list(ir_datasets.registry)
    try:
        dataset = ir_datasets.load(name)
    except KeyError as error:
        near = difflib.get_close_matches(name, names, _SHOWN)
        hint = f"did you mean {', '.join(near)}?" if near else "https://ir-datasets.com lists them."
        raise InputError(f"{_PREFIX}{name}: ir_datasets has no data set {name!r}; {hint}") from error
    if not dataset.has(part):
        inner = [one for one in names if one.startswith(f"{name}/") and ir_datasets.load(one).has(part)]
        hint = f"; these have: {', '.join(inner[:_SHOWN])}" if inner else ""
        raise InputError(f"{_PREFIX}{name}: this data set has no {part}{hint}.")
    return dataset


def irds_rows(name: str, start: int) -> Rows:
    """The documents after the first ``start`` as rows of a corpus; raises as `check_irds`, or if they cannot be read.

    The text is what ir_datasets takes for it (``default_text``), and the title is split off where it begins with one.
    """
    number = 0
    for number, document in enumerate(_records(name, "docs"), start=1):
        if number > start:
            where = f"{_PREFIX}{name}, row {number}"
            text, title = _text(document, where), getattr(document, "title", None)
            if not (isinstance(title, str) and title and text.startswith(title) and text[len(title) :][:1].isspace()):
                title = ""
            record = {"docid": document.doc_id, "title": title, "text": text[len(title) :].strip()}
            yield RawRow("record", where, record)
    return max(0, start - number)


def irds_queries(name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (row, id, text) of every query; raises as `irds_rows`."""
    for number, query in enumerate(_records(name, "queries"), start=1):
        where = f"{_PREFIX}{name}, query {number}"
        yield where, query.query_id, _text(query, where)


def irds_judgements(name: str) -> Iterator[tuple[str, str, str, int]]:
    """Yield (row, query id, docid, grade) of every judgement; raises as `irds_rows`."""
    for number, one in enumerate(_records(name, "qrels"), start=1):
        where = f"{_PREFIX}{name}, judgement {number}"
        if not hasattr(one, "relevance"):
            raise InputError(f"{where}: these judgements have no grades ({', '.join(one._fields)}).")
        yield where, one.query_id, one.doc_id, one.relevance


def _text(record: Any, where: str) -> str:
    if not hasattr(record, "default_text"):
        raise InputError(f"{where}: ir_datasets says of no field that it is the text ({', '.join(record._fields)}).")
    return (record.default_text() or "").strip()


def _records(name: str, part: str) -> Iterator[Any]:
    """What ir_datasets reads, which it may have to download first."""
    dataset = check_irds(name, part)
    logger = logging.getLogger("ir_datasets")
    logger.addFilter(_is_news)
    try:
        yield from getattr(dataset, f"{part}_iter")()
    except Exception as error:  # whatever a reader, the connection or the disk raises
        from ir_datasets.util import home_path

        raise InputError(
            f"{_PREFIX}{name}: its {part} cannot be read ({reason(error)}). ir_datasets keeps what it downloads in "
            f"{home_path()} (IR_DATASETS_HOME); without a connection, copy {home_path() / name.partition('/')[0]} from "
            "a machine that has read them."
        ) from error
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of ir_datasets' log says more than its bars and our error, for example a licence."""
    return not record.getMessage().lower().startswith(_LOGGED)
