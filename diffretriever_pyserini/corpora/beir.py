"""Test collections in BEIR layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, each plain or .gz."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.folders import restore


@dataclass(frozen=True)
class BeirFolder:
    """The three files of one collection; `open_beir` has checked that they exist."""

    folder: Path
    corpus: Path
    queries: Path
    qrels: Path

    @property
    def name(self) -> str:
        """The folder's own name, for headings."""
        return self.folder.resolve().name


def is_beir(folder: Path) -> bool:
    """Whether ``folder`` holds the corpus of a collection in BEIR layout."""
    return any((folder / name).is_file() for name in ("corpus.jsonl", "corpus.jsonl.gz"))


def _existing(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{folder}: no {name} or {name}.gz; a folder in BEIR layout has corpus.jsonl, queries.jsonl and qrels/."
    )


def open_beir(folder: str | Path, split: str = "test") -> BeirFolder:
    """Find the files of a collection in BEIR layout.

    Raises
    ------
    InputError
        When the folder or one of the three files is missing.
    """
    folder = Path(folder).expanduser()
    restore(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with corpus.jsonl, queries.jsonl and qrels/{split}.tsv.")
    names = ("corpus.jsonl", "queries.jsonl", f"qrels/{split}.tsv")
    return BeirFolder(folder, *(_existing(folder, name) for name in names))
