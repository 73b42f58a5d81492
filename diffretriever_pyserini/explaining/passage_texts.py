"""Texts of single passages: from a corpus, or from the texts of an index that has some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..corpora.corpus import Corpus
from ..errors import InputError
from ..files.atomic import read_json
from ..files.folders import restore_folder
from ..indexes.job import INDEX
from ..indexes.options import TEXT
from ..searching.texts import TextSearcher
from ..store.spec import SPEC, read_spec


def texts_of(corpus: Corpus, docids: Sequence[str]) -> dict[str, str]:
    """Texts of ``docids``; reading ends when all are found. Of several rows with one id the first counts.

    Raises
    ------
    InputError
        When a passage is missing, or the corpus cannot be read. Broken rows are skipped; the message counts them.
    """
    passages, broken = corpus.find(docids)
    if len(passages) == len(set(docids)):
        return {docid: passage.contents for docid, passage in passages.items()}
    missing = next(docid for docid in docids if docid not in passages)
    more = f" ({len(broken)} rows could not be read, the first: {broken[0]})" if broken else ""
    raise InputError(
        f"passage {missing!r} is not in {', '.join(corpus.files)}{more}: give the corpus that was encoded with "
        "--corpus, or the text itself with --text."
    )


def find_texts(
    index: str | Path | None, sources: Sequence[str] | None, docids: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Texts of ``docids`` from ``sources``, else from the index or the corpus of a store; and remarks on them.

    An index of ``diffretriever index`` records a digest of its corpus but no file names; ``sources`` are compared with
    the digest.

    Raises
    ------
    InputError
        As :func:`texts_of`, but only for ``sources``.
    """
    folder = None if index is None else Path(index).expanduser()
    if folder is not None:
        restore_folder(folder, INDEX)
    if sources is not None:
        corpus = Corpus(sources)
        return texts_of(corpus, docids), _remarks(folder, corpus)
    if folder is not None and (folder / TEXT).is_dir():
        texts = TextSearcher(folder / TEXT)
        passages = texts.passages(docids)
        texts.close()
        return {docid: passage.contents for docid, passage in passages.items()}, []
    if folder is None or not (folder / SPEC).is_file():
        return {}, []
    spec = read_spec(folder)
    try:
        corpus = Corpus(spec.files)
        if corpus.identity() == spec.corpus:
            return texts_of(corpus, docids), []
    except InputError as error:
        return {}, [f"The corpus of the store cannot be read: {error}"]
    return {}, [f"{', '.join(spec.files)}: no longer the corpus of the store (file sizes differ)."]


def _remarks(folder: Path | None, corpus: Corpus) -> list[str]:
    """A remark where ``corpus`` is not the corpus that the index records."""
    recorded = None
    if folder is not None and (folder / SPEC).is_file():
        recorded = read_spec(folder).corpus
    elif folder is not None and (folder / INDEX).is_file():
        recorded = read_json(folder / INDEX).get("corpus")
    if recorded in (None, corpus.identity()):
        return []
    return [
        f"{', '.join(corpus.files)} is not exactly the corpus that was encoded (file names or sizes differ), so the "
        "text may differ."
    ]
