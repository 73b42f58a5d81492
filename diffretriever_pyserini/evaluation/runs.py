"""TREC run files: `qid Q0 docid rank score tag`, one hit a line."""

import math
from collections.abc import Mapping
from pathlib import Path

from diffretriever_pyserini.collections.jsonl import read_lines
from diffretriever_pyserini.errors import InputError

Run = dict[str, dict[str, float]]
"""Query id → docid → score."""


def read_run(path: str | Path) -> Run:
    """Read a TREC run; queries without a line are simply absent.

    Raises
    ------
    InputError
        For a line without six columns, a score that is no finite number, or a passage listed twice for one query.
    """
    path, run = Path(path), Run()
    for number, line in read_lines(path):
        where, parts = f"{path}, line {number}", line.split()
        if len(parts) != 6:
            layout = "qid Q0 docid rank score tag"
            raise InputError(f"{where}: {len(parts)} columns instead of the six of a TREC run ({layout}).")
        qid, _, docid, _, score, _ = parts
        try:
            value = float(score)
        except ValueError as error:
            raise InputError(f"{where}: the score {score!r} is not a number.") from error
        if not math.isfinite(value):
            raise InputError(f"{where}: the score {score} is not finite; the model or index behind it is broken.")
        hits = run.setdefault(qid, {})
        if docid in hits:
            raise InputError(f"{where}: passage '{docid}' is listed twice for query '{qid}'.")
        hits[docid] = value
    return run


def ranked(hits: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return (docid, score) by falling score; equal scores by docid, so that the order never depends on chance."""
    return sorted(hits.items(), key=lambda hit: (-hit[1], hit[0]))


def write_run(path: str | Path, run: Mapping[str, Mapping[str, float]], tag: str = "diffretriever") -> None:
    """Write a TREC run, best hit first, whole or not at all (a temporary file is moved into place)."""
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        for qid, hits in run.items():
            for rank, (docid, score) in enumerate(ranked(hits), start=1):
                file.write(f"{qid} Q0 {docid} {rank} {score:.6f} {tag}\n")
    unfinished.replace(path)
