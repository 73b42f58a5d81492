"""Texts of single passages out of a corpus, which an index does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..corpora.corpus import Corpus
from ..errors import InputError
from ..files.atomic import read_json, restore_folder
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
    passages, broken = corpus.find(docids)
    if len(passages) == len(set(docids)):
        return {docid: passage.contents for docid, passage in passages.items()}
    missing = next(docid for docid in docids if docid not in passages)
    more = f" ({len(broken)} rows could not be read, the first: {broken[0]})" if broken else ""
    raise InputError(
        f"passage {missing!r} is not in {', '.join(corpus.files)}{more}: name the corpus that was encoded with "
        "--corpus, or give the text itself with --text."
    )


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
    if folder is not None:
        restore_folder(folder, INDEX)
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
