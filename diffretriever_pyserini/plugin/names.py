"""Topics and judgements by every name: files, folders, ``irds:NAME``, and the names that Pyserini's commands know.

Pyserini's names are read by its own functions, which download a file when it is first used.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..corpora import qrels as judgement_files
from ..corpora import topics as topic_files
from ..corpora.irds import irds_name
from ..errors import InputError
from ..files.folders import restore
from ..runtime import java
from .lists import WORDS, PyseriniList, pyserini_list

_NAME = re.compile(r"\w[\w.-]*")
_FILES = frozenset((".tsv", ".txt", ".json", ".jsonl", ".gz", ".zst", ".trec", ".xml", ".qrels"))


def read_topics(source: str | Path, split: str = "test") -> dict[str, str]:
    """Read topics into query id → query.

    Parameters
    ----------
    source : a file (.tsv, .jsonl, .json), a folder in BEIR layout, ``irds:NAME`` for a data set of ir_datasets, or a
        name that Pyserini knows (``dl19-passage``). If a file or folder has this name, that is read.
    split : of a BEIR folder; the queries that qrels/``split``.tsv judges are kept.

    Raises
    ------
    InputError
        For an unknown source, a line that cannot be read, a repeated id, an empty query, and a file that cannot be
        downloaded; the message says where it would be kept.

    Examples
    --------
    >>> from diffretriever_pyserini import read_topics
    >>> from pathlib import Path
    >>> _ = Path("topics.tsv").write_text("007\\twhere is Paris\\n")
    >>> read_topics("topics.tsv")
    {'007': 'where is Paris'}
    """
    if (name := _pyserini_name(source)) is None:
        return topic_files.read_topics(source, split)
    with _pyserini(name, "topics") as listed:
        read = listed.topics(name)
        topics = {str(qid): read.get(qid).get("title") for qid in read.keySet().toArray()}
    if None in topics.values():
        raise InputError(f"{name}: these topics have no titles, so there is nothing to encode.")
    order = int if all(map(str.isdecimal, topics)) else str  # as in Pyserini's runs
    rows = ((f"{name}, query {qid!r}", qid, topics[qid]) for qid in sorted(topics, key=order))
    return topic_files.checked_topics(rows, name)


def read_qrels(source: str | Path, split: str = "test") -> dict[str, dict[str, int]]:
    """Read judgements into query id → docid → grade.

    Parameters
    ----------
    source : a file (TREC's four columns or BEIR's three), a folder in BEIR layout, ``irds:NAME`` for a data set of
        ir_datasets, or a name that Pyserini knows (``dl19-passage``). If a file or folder has this name, that is read.
    split : of a BEIR folder: qrels/``split``.tsv is read.

    Raises
    ------
    InputError
        For an unknown source, a line that cannot be read, a pair with two grades, and a file that cannot be downloaded;
        the message says where it would be kept.

    Examples
    --------
    >>> from diffretriever_pyserini import evaluate, read_qrels
    >>> from pathlib import Path
    >>> _ = Path("qrels.txt").write_text("q1 0 p2 1\\n")
    >>> evaluate({"q1": {"p1": 0.9, "p2": 0.8}}, read_qrels("qrels.txt"), ["recip_rank"]).means
    {'recip_rank': 0.5}
    """
    if (name := _pyserini_name(source)) is None:
        return judgement_files.read_qrels(source, split)
    with _pyserini(name, "qrels") as listed:
        path = listed.qrels(name)
    return judgement_files.read_qrels(path)


def _pyserini_name(source: str | Path) -> str | None:
    """``source`` if it may be a name of Pyserini; None for what exists, or is written like a path or a file."""
    path, text = Path(source).expanduser(), str(source)
    restore(path)
    if path.exists() or irds_name(source) is not None:
        return None
    return text if _NAME.fullmatch(text) and path.suffix.lower() not in _FILES else None


@contextmanager
def _pyserini(name: str, kind: str) -> Iterator[PyseriniList]:
    """Pyserini's list of ``kind`` (topics or qrels), which has ``name``.

    An error in the block is an InputError that says what is missing.
    """
    java.check_process()
    java.prepare()
    listed = pyserini_list(kind, name)
    if name not in listed.names:
        raise InputError(
            f"{name}: no such file or folder, and no {WORDS[kind]} that Pyserini knows{_near(name, listed.names)}"
        )
    try:
        with java.calls, _output_as_messages():
            yield listed
    except Exception as error:  # Java's, and Pyserini's own where Java returned nothing
        raise InputError(f"{name}: {_missing(*listed.kept(name), WORDS[kind], error)}") from error


def _near(name: str, known: Collection[str]) -> str:
    """The known name with which ``name`` begins, or else the most similar one, as a question."""
    heads = [one for one in known if name.startswith(one)]
    near = [max(heads, key=len)] if heads else difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else "; check the spelling."


def _missing(path: Path, url: str, what: str, error: Exception) -> str:
    """What is missing, where it would be kept, and where it comes from."""
    if path.is_file() and path.stat().st_size:
        return f"Pyserini cannot read these {what} ({java.said(error)}). Remove {path}, and they are downloaded again."
    return (
        f"Pyserini downloads these {what} when they are first used, and could not ({java.said(error)}). Without a "
        f"connection, fetch {url} on another machine and save it as {path} (PYSERINI_CACHE names another folder)."
    )


@contextmanager
def _output_as_messages() -> Iterator[None]:
    """Send standard output to standard error: Anserini announces a download there, where ``--json`` prints."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
