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


def beir_file(folder: Path, name: str) -> Path:
    """The file ``name`` of a folder in BEIR layout, or ``name``.gz; InputError where there is neither."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    splits = sorted({path.name.partition(".tsv")[0] for path in folder.glob("qrels/*.tsv*")})
    if splits and name.startswith("qrels/"):
        raise InputError(f"{folder}: no {name} or {name}.gz; the splits of this folder are {', '.join(splits)}.")
    raise InputError(
        f"{folder}: no {name} or {name}.gz; a folder in BEIR layout has corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv."
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
    return BeirFolder(folder, *(beir_file(folder, name) for name in names))
