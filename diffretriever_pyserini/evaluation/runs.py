"""TREC run files: `qid Q0 docid rank score tag`, one hit per line."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..files.atomic import whole_file
from ..files.jsonl import read_columns
from ..scoring.ranking import DECIMALS, ranked

Run = dict[str, dict[str, float]]
"""Query id → docid → score."""


def read_run(path: str | Path) -> Run:
    """Read a TREC run; queries without a line are absent.

    Raises
    ------
    InputError
        For a line without six columns, a score that is not a finite number, or a passage listed twice for one query.
    """
    path, run = Path(path), Run()
    for where, parts in read_columns(path):
        if len(parts) != 6:
            layout = "qid Q0 docid rank score tag"
            raise InputError(f"{where}: {len(parts)} columns instead of the six of a TREC run ({layout}).")
        qid, _, docid, _, score, _ = parts
        try:
            value = float(score)
        except ValueError as error:
            raise InputError(f"{where}: the score {score!r} is not a number.") from error
        if not math.isfinite(value):
            raise InputError(f"{where}: the score {score} is not finite; the model or index that made it is broken.")
        hits = run.setdefault(qid, {})
        if docid in hits:
            raise InputError(f"{where}: passage '{docid}' is listed twice for query '{qid}'.")
        hits[docid] = value
    return run


@contextmanager
def run_writer(
    path: str | Path, tag: str = "diffretriever", decimals: int = DECIMALS
) -> Iterator[Callable[[str, Iterable[tuple[str, float]]], None]]:
    """Yield a function that writes one query's hits, best first; the file appears when the block ends without an error.

    Raises
    ------
    InputError
        When the tag, a query id or a docid is empty or has blanks, which would break the columns.
    DiffRetrieverError
        When the file cannot be written, or another process is writing it.
    """
    _check_column("the tag", tag)

    def write(qid: str, hits: Iterable[tuple[str, float]]) -> None:
        _check_column("query id", qid)
        for rank, (docid, score) in enumerate(hits, start=1):
            _check_column(f"query '{qid}', passage", docid)
            file.write(f"{qid} Q0 {docid} {rank} {score:.{decimals}f} {tag}\n")

    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield write


def _check_column(what: str, text: str) -> None:
    if text.split() != [text]:
        raise InputError(f"{what} {text!r} is empty or has blanks, which the columns of a TREC run do not allow.")


def write_run(
    path: str | Path, run: Mapping[str, Mapping[str, float]], tag: str = "diffretriever", decimals: int = 6
) -> None:
    """Write a TREC run in the order of :mod:`..scoring.ranking`, whole or not at all; see :func:`run_writer`."""
    with run_writer(path, tag, decimals) as write:
        for qid, hits in run.items():
            write(qid, ranked(hits, decimals))
