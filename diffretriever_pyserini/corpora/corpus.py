"""A corpus of any size as one stream of rows: folders, files and data sets of the hub, in a fixed order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.atomic import restore, whole_file
from ..files.jsonl import compression_of, regular
from ..model.hub import is_hub_id
from .formats import Passage, RawRow, line_rows, parse_row, record_rows

__all__ = ["Corpus", "Passage", "RawRow", "parse_row", "write_corpus"]

_LINES = {".jsonl": "jsonl", ".json": "jsonl", ".tsv": "tsv"}
_BINARY = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
_KINDS = ".jsonl, .json or .tsv (plain, .gz or .zst), .parquet, .arrow, .feather or .ipc"
_BESIDE = frozenset(("dataset_info.json", "state.json"))  # what `datasets` writes beside its Arrow files
# MS MARCO's queries and judgements lie beside its collection.tsv, in the same layouts.
_OTHERWISE = re.compile(r"(?<![a-z])(queries|query|qrels|topics)(?![a-z])")


@dataclass(frozen=True, slots=True)
class _Source:
    name: str  # what is opened: a path or a data set
    kind: str  # "jsonl", "tsv", "parquet", "arrow" or "hub"
    label: str  # what identifies it: the file's own name, or the data set
    size: int  # bytes; 0 for a data set


class Corpus:
    """Passages of one or several sources, read as a stream in constant memory.

    Parameters
    ----------
    sources
        Files, folders and data sets of the hub, read in this order. A folder's files are read in the order of their
        names: Pyserini's JSONL folders, BEIR folders (of which only the corpus is read), and any mixture of JSONL,
        TSV (plain, .gz or .zst), Parquet and Arrow files. A data set is ``owner/name``, ``owner/name:split`` or
        ``owner/name:config:split``, streamed through ``datasets``; it is first asked for in `rows`.
    split
        The split of a data set that names none.

    Attributes
    ----------
    folders : those of ``sources`` that are folders, of which every file counts.

    Raises
    ------
    InputError
        When a source is missing, a folder is empty or holds a file of another kind, or a file is listed twice.
    """

    def __init__(self, sources: str | Path | Sequence[str | Path], split: str = "train") -> None:
        given = [sources] if isinstance(sources, str | Path) else list(sources)
        self._sources = tuple(one for source in given for one in _resolved(str(source), split))
        self.folders = [path for path in (Path(source).expanduser() for source in given) if path.is_dir()]
        if not self._sources:
            raise InputError("No corpus is named: give files, folders or ids of data sets (owner/name).")
        _refuse_repeated(self._sources)

    def __repr__(self) -> str:
        return f"Corpus({_listed(self.files)})"

    @property
    def files(self) -> tuple[str, ...]:
        """What is read, in order: paths, and data sets with their split."""
        return tuple(source.name for source in self._sources)

    def rows(self, start: int = 0) -> Iterator[RawRow]:
        """Yield the rows that are not blank, in order over all files, after the first ``start``.

        Skipping parses nothing, and passes over whole row groups of a Parquet file. A line of more than 64 MiB and a
        record with text in another encoding are rows too: `parse_row` raises for them.

        Raises
        ------
        InputError
            When a file cannot be read or is damaged (naming it and the last good line or row), the corpus has no rows
            at all, or it has fewer than ``start``.
        """
        stream = self._stream(start)
        first = next(stream, None)
        if first is None and not start:
            raise InputError(f"{_listed(self.files)}: no passages in this corpus.")
        if first is not None:
            yield first
        yield from stream

    def _stream(self, start: int) -> Iterator[RawRow]:
        left = start
        for source in self._sources:
            if source.kind in _LINES.values():
                left = yield from line_rows(Path(source.name), source.kind, left)
            else:
                left = yield from record_rows(source.name, source.kind, left)
        if left:
            ends = f"ends after {start - left:,} rows, where {start:,} were to be skipped"
            raise InputError(f"{_listed(self.files)}: {ends}; is this another corpus than before?")

    def passages(self) -> Iterator[Passage]:
        """Yield the passages one by one; only their ids are held in memory.

        Raises
        ------
        InputError
            As `rows` and `parse_row`, and for an id that occurs twice, with file and line.
        """
        seen: set[str] = set()
        for row in self.rows():
            passage = parse_row(row)
            if passage.docid in seen:
                raise InputError(f"{row.where}: passage id '{passage.docid}' occurs twice; ids must be unique.")
            seen.add(passage.docid)
            yield passage

    def find(self, docids: Iterable[str]) -> tuple[dict[str, Passage], list[str]]:
        """Passages by id, and complaints about the rows before them that could not be read.

        Reading ends when all of ``docids`` are there; the first of several rows with one id is taken.
        """
        from tqdm import tqdm

        wanted = set(docids)
        patterns = [docid.encode() for docid in wanted]
        passages: dict[str, Passage] = {}
        broken: list[str] = []
        with tqdm(desc="Looking for the text", unit=" rows", delay=2, disable=None) as bar:
            for row in self.rows() if wanted else ():
                bar.update()
                if not _may_be(row, patterns):
                    continue
                try:
                    passage = parse_row(row)
                except InputError as error:
                    broken.append(str(error))
                    continue
                if passage.docid in wanted:
                    passages.setdefault(passage.docid, passage)
                    if len(passages) == len(wanted):
                        break
        return passages, broken

    def identity(self) -> str:
        """A hex digest over the names of the files (not of their folders) and their sizes when the corpus was opened.

        A data set counts by its name, config and split.
        """
        listed = [[source.label, source.size] for source in self._sources]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def write_corpus(path: str | Path, passages: Iterable[Passage]) -> int:
    """Write Pyserini's JSON lines, whole or not at all: ``contents`` is for BM25, title and text for models.

    Returns the number of passages.
    """
    count = 0
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for one in passages:
            count += 1
            record = {"id": one.docid, "title": one.title, "text": one.text, "contents": one.contents}
            file.write(json.dumps(record) + "\n")
    return count


def _may_be(row: RawRow, patterns: Sequence[bytes]) -> bool:
    """Whether a row is worth parsing: a line without the id's bytes holds it only where JSON escapes characters."""
    line = row.payload
    return not isinstance(line, bytes) or b"\\" in line or any(pattern in line for pattern in patterns)


def _resolved(source: str, split: str) -> list[_Source]:
    path = Path(source).expanduser()
    restore(path)
    if path.is_dir():
        return _inside(path)
    if path.is_file():
        return [_file(path)]
    if path.exists():
        raise InputError(f"{source}: no regular file; a pipe or device cannot be read again when a job is resumed.")
    dataset, *rest = source.split(":")
    if is_hub_id(dataset) and len(rest) < 3 and not _kind(Path(dataset)):
        if not all(re.fullmatch(r"[\w.-]+", part) for part in (*rest, split)):
            raise InputError(f"{source}: after the data set comes the name of a split, or config:split.")
        name = ":".join((dataset, *rest) if rest else (dataset, split))
        return [_Source(name, "hub", name, 0)]
    raise InputError(f"{source}: no such file or folder, and no id of a data set (owner/name or owner/name:split).")


def _kind(path: Path) -> str | None:
    """How to read a file, by its name; None if that is not known."""
    plain = path.with_suffix("") if compression_of(path) else path
    return _LINES.get(plain.suffix.lower()) or _BINARY.get(path.suffix.lower())


def _file(path: Path) -> _Source:
    kind = _kind(path)
    if kind is None:
        raise InputError(f"{path}: unknown kind of corpus file; known are {_KINDS}.")
    return _Source(str(path), kind, path.name, path.stat().st_size)


def _inside(folder: Path) -> list[_Source]:
    """The corpus files of a folder; a file that may or may not be meant is an error."""
    try:
        names = sorted(one.name for one in folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error}).") from error
    beir = any(re.fullmatch(r"corpus\.jsonl(\.gz|\.zst)?", name) for name in names)
    datasets_own = any(name.endswith(".arrow") for name in names)
    found: dict[str, _Source] = {}
    for name in names:
        path = folder / name
        if name.startswith((".", "README")) or (datasets_own and name in _BESIDE):
            continue
        if beir and (name == "qrels" or re.fullmatch(r"queries\.jsonl(\.gz|\.zst)?", name)):
            continue
        if path.is_dir():
            raise InputError(
                f"{path}: a folder inside a corpus folder is not read; name it as a source if it is meant."
            )
        if _OTHERWISE.search(name.lower()):
            raise InputError(f"{path}: queries or judgements, by the name; name the files of the corpus one by one.")
        source = _file(regular(path))
        plain = path.stem if compression_of(path) else name
        if plain in found:
            raise InputError(
                f"{path}: also here as {found[plain].label}; which is meant? Name it, or remove the other."
            )
        found[plain] = source
    if not found:
        raise InputError(f"{folder}: no corpus files in this folder; known are {_KINDS}.")
    return list(found.values())


def _refuse_repeated(sources: Sequence[_Source]) -> None:
    seen: dict[object, str] = {}
    for source in sources:
        key: object = source.name
        if source.kind != "hub":
            status = Path(source.name).stat()
            key = (status.st_dev, status.st_ino)
        if key in seen:
            raise InputError(f"{source.name}: listed twice (also as {seen[key]}); its passages would be read twice.")
        seen[key] = source.name


def _listed(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
