"""Texts of single passages out of a corpus, which an index does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..corpora.corpus import Corpus, RawRow, parse_row
from ..errors import InputError
from ..files.atomic import read_json
from ..indexes.build import INDEX
from ..store.spec import SPEC, read_spec


def texts_of(corpus: Corpus, docids: Sequence[str]) -> dict[str, str]:
    """Texts of ``docids``; reading ends when all are found. The first of several rows with one id is taken.

    Raises
    ------
    InputError
        When one is not there, or the corpus cannot be read. Rows that are broken are passed over, but counted where an
        id is missing.
    """
    from tqdm import tqdm

    wanted = set(docids)
    found: dict[str, str] = {}
    broken: list[str] = []
    patterns = [docid.encode() for docid in wanted]
    with tqdm(desc="Looking for the text", unit=" rows", delay=2, disable=None) as bar:
        for row in corpus.rows():
            bar.update()
            if not _may_be(row, patterns):
                continue
            try:
                passage = parse_row(row)
            except InputError as error:
                broken.append(str(error))
                continue
            if passage.docid in wanted:
                found.setdefault(passage.docid, passage.text)
                if len(found) == len(wanted):
                    return found
    missing = next(docid for docid in docids if docid not in found)
    more = f" ({len(broken)} rows could not be read, the first: {broken[0]})" if broken else ""
    raise InputError(
        f"passage {missing!r} is not in {', '.join(corpus.files)}{more}: name the corpus that was encoded with "
        "--corpus, or give the text itself with --text."
    )


def _may_be(row: RawRow, patterns: Sequence[bytes]) -> bool:
    """Whether a row is worth parsing: a line without the id's bytes holds it only where JSON escapes characters."""
    line = row.payload
    return not isinstance(line, bytes) or b"\\" in line or any(pattern in line for pattern in patterns)


def find_texts(
    index: str | Path | None, sources: Sequence[str] | None, docids: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Texts of ``docids`` from ``sources``, or from the files that a store says it was made of; and remarks on them.

    An index of ``diffretriever index`` records a digest of its corpus and no names, so ``sources`` are held against it.

    Raises
    ------
    InputError
        As :func:`texts_of`, but never for files that nobody named.
    """
    folder = None if index is None else Path(index).expanduser()
    if sources is not None:
        corpus = Corpus(sources)
        return texts_of(corpus, docids), _remarks(folder, corpus)
    if folder is None or not (folder / SPEC).is_file():
        return {}, []
    spec = read_spec(folder)
    try:
        corpus = Corpus(spec.files)
        if corpus.identity() == spec.corpus:
            return texts_of(corpus, docids), []
    except InputError as error:
        return {}, [f"The corpus that the store was made of cannot be read from here: {error}"]
    return {}, [f"{', '.join(spec.files)}: no longer the corpus that the store was made of (sizes differ)."]


def _remarks(folder: Path | None, corpus: Corpus) -> list[str]:
    """Whether ``corpus`` is what the index was made of, as far as it says so."""
    recorded = None
    if folder is not None and (folder / SPEC).is_file():
        recorded = read_spec(folder).corpus
    elif folder is not None and (folder / INDEX).is_file():
        recorded = read_json(folder / INDEX).get("corpus")
    if recorded in (None, corpus.identity()):
        return []
    return [
        f"{', '.join(corpus.files)} is not exactly the corpus that was encoded (other names or sizes of files), so the "
        "text may be another one."
    ]
