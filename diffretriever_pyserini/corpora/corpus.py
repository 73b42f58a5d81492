"""A corpus of any size as one stream of rows: folders, files and data sets from the hub, in a fixed order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.atomic import whole_file
from ..files.folders import restore
from ..files.jsonl import compression_of, regular
from ..model.hub import is_hub_id
from .formats import Passage, RawRow, line_rows, parse_row, record_rows
from .irds import check_irds, irds_name, irds_rows

__all__ = ["Corpus", "Passage", "RawRow", "parse_row", "write_corpus"]

_LINES = {".jsonl": "jsonl", ".json": "jsonl", ".tsv": "tsv"}
_BINARY = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow"}
_KINDS = ".jsonl, .json or .tsv (plain, .gz or .zst), .parquet, .arrow, .feather or .ipc"
_DATASETS_METADATA = frozenset(("dataset_info.json", "state.json"))  # `datasets` writes them next to its Arrow files
# MS MARCO's queries and judgements are in the same folder as its collection.tsv, in the same layouts.
_QUERIES_OR_QRELS = re.compile(r"(?<![a-z])(queries|query|qrels|topics)(?![a-z])")


@dataclass(frozen=True, slots=True)
class _Source:
    name: str  # what to open: a path or a data set
    kind: str  # "jsonl", "tsv", "parquet", "arrow", "hub" or "irds"
    label: str  # its name in the corpus's identity: the file name, or the data set
    size: int  # bytes; 0 for a data set


class Corpus:
    """Passages from one or more sources, read as a stream in constant memory.

    Parameters
    ----------
    sources
        Files, folders and data sets from the hub, read in this order. A folder's files are read in order of their
        names: Pyserini's JSONL folders, BEIR folders (only the corpus is read), and any mixture of JSONL, TSV (plain,
        .gz or .zst), Parquet and Arrow files. A data set is ``owner/name``, ``owner/name:split`` or
        ``owner/name:config:split``, streamed through ``datasets``, or ``irds:NAME``, read by ir_datasets. Nothing is
        fetched before `rows`.
    split
        The split of a data set that does not name one.

    Attributes
    ----------
    folders : those of ``sources`` that are folders.

    Raises
    ------
    InputError
        When a source is missing, a folder is empty or holds a file of another kind, or a file is listed twice.

    Examples
    --------
    >>> from diffretriever_pyserini import Corpus
    >>> from pathlib import Path
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> [passage.docid for passage in Corpus("corpus.jsonl").passages()]
    ['p1', 'p2']
    """

    def __init__(self, sources: str | Path | Sequence[str | Path], split: str = "train") -> None:
        names = [sources] if isinstance(sources, str | Path) else list(sources)
        self._sources = tuple(source for name in names for source in _resolve(str(name), split))
        self.folders = [path for path in (Path(name).expanduser() for name in names) if path.is_dir()]
        if not self._sources:
            raise InputError("No corpus is named; give files, folders or data sets (owner/name, irds:NAME).")
        _refuse_repeated(self._sources)

    def __repr__(self) -> str:
        return f"Corpus({_files_in_words(self.files)!r})"

    @property
    def files(self) -> tuple[str, ...]:
        """What is read, in order: paths, and data sets with their splits."""
        return tuple(source.name for source in self._sources)

    @property
    def locations(self) -> tuple[str, ...]:
        """:attr:`files` with absolute paths: the corpus for a process in any directory."""
        files = {*_LINES.values(), *_BINARY.values()}
        return tuple(
            str(Path(source.name).absolute()) if source.kind in files else source.name for source in self._sources
        )

    def rows(self, start: int = 0) -> Iterator[RawRow]:
        """Yield the rows that are not blank, in order over all files, after the first ``start``.

        Skipping parses nothing, and skips whole row groups of a Parquet file. A line of more than 64 MiB and a record
        with text in another encoding are rows too; `parse_row` raises for them.

        Raises
        ------
        InputError
            When a file cannot be read or is damaged (the message names it and the last good line or row), or when the
            corpus has no rows or fewer than ``start``.
        """
        stream = self._stream(start)
        first = next(stream, None)
        if first is None and not start:
            raise InputError(f"{_files_in_words(self.files)}: no passages in this corpus.")
        if first is not None:
            yield first
        yield from stream

    def _stream(self, start: int) -> Iterator[RawRow]:
        to_skip = start
        for source in self._sources:
            if source.kind in _LINES.values():
                to_skip = yield from line_rows(Path(source.name), source.kind, to_skip)
            elif source.kind == "irds":
                to_skip = yield from irds_rows(source.name.partition(":")[2], to_skip)
            else:
                to_skip = yield from record_rows(source.name, source.kind, to_skip)
        if to_skip:
            raise InputError(
                f"{_files_in_words(self.files)}: ends after {start - to_skip:,} rows, but {start:,} should be skipped. "
                "Give the corpus of the earlier run."
            )

    def passages(self) -> Iterator[Passage]:
        """Yield the passages one by one; only their ids are held in memory.

        Raises
        ------
        InputError
            As `rows` and `parse_row`, and for an id that occurs twice; the message names file and line.
        """
        seen: set[str] = set()
        for row in self.rows():
            passage = parse_row(row)
            if passage.docid in seen:
                raise InputError(f"{row.where}: passage id '{passage.docid}' occurs twice; ids must be unique.")
            seen.add(passage.docid)
            yield passage

    def find(self, docids: Iterable[str]) -> tuple[dict[str, Passage], list[str]]:
        """Passages by id, and error messages of the rows before them that could not be read.

        Reading ends when all ``docids`` are found; of several rows with the same id, the first counts.
        """
        from tqdm.auto import tqdm

        missing = set(docids)
        patterns = [docid.encode() for docid in missing]
        passages: dict[str, Passage] = {}
        errors: list[str] = []
        with tqdm(desc="Looking for the text", unit=" rows", delay=2, disable=None) as bar:
            for row in self.rows() if missing else ():
                bar.update()
                if not _may_contain(row, patterns):
                    continue
                try:
                    passage = parse_row(row)
                except InputError as error:
                    errors.append(str(error))
                    continue
                if passage.docid in missing:
                    passages[passage.docid] = passage
                    missing.remove(passage.docid)
                    if not missing:
                        break
        return passages, errors

    def identity(self) -> str:
        """A hex digest over the names of the files (not of their folders) and their sizes when the corpus was opened.

        For a data set, it is over its name, config and split.
        """
        sizes = [[source.label, source.size] for source in self._sources]
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def write_corpus(path: str | Path, passages: Iterable[Passage]) -> int:
    """Write Pyserini's JSON lines (:attr:`Passage.record`), atomically. Returns the number of passages."""
    count = 0
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for passage in passages:
            count += 1
            file.write(json.dumps(passage.record) + "\n")
    return count


def _may_contain(row: RawRow, patterns: Sequence[bytes]) -> bool:
    """Whether a row is worth parsing: a line without an id's bytes can hold the id only in JSON escapes."""
    line = row.payload
    return not isinstance(line, bytes) or b"\\" in line or any(pattern in line for pattern in patterns)


def _resolve(source: str, split: str) -> list[_Source]:
    path = Path(source).expanduser()
    restore(path)
    if path.is_dir():
        return _folder_files(path)
    if path.is_file():
        return [_file_source(path)]
    if path.exists():
        raise InputError(f"{source}: not a regular file; a pipe or device cannot be read again when a job resumes.")
    if (name := irds_name(source)) is not None:
        check_irds(name, "docs")
        return [_Source(source, "irds", source, 0)]
    dataset, *rest = source.split(":")
    if is_hub_id(dataset) and len(rest) < 3 and not _kind(Path(dataset)):
        if not all(re.fullmatch(r"[\w.-]+", part) for part in (*rest, split)):
            raise InputError(f"{source}: after the name of the data set, give a split or config:split.")
        name = ":".join((dataset, *rest) if rest else (dataset, split))
        return [_Source(name, "hub", name, 0)]
    raise InputError(
        f"{source}: no such file or folder, and not a data set (owner/name or owner/name:split of the hub, irds:NAME)."
    )


def _kind(path: Path) -> str | None:
    """How to read a file, by its name; None for an unknown kind."""
    plain = path.with_suffix("") if compression_of(path) else path
    return _LINES.get(plain.suffix.lower()) or _BINARY.get(path.suffix.lower())


def _file_source(path: Path) -> _Source:
    kind = _kind(path)
    if kind is None:
        raise InputError(f"{path}: unknown kind of corpus file; give {_KINDS}.")
    return _Source(str(path), kind, path.name, path.stat().st_size)


def _folder_files(folder: Path) -> list[_Source]:
    """The corpus files of a folder; a file that may not belong to the corpus is an error."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error}).") from error
    beir = any(re.fullmatch(r"corpus\.jsonl(\.gz|\.zst)?", name) for name in names)
    saved_by_datasets = any(name.endswith(".arrow") for name in names)
    sources: dict[str, _Source] = {}
    for name in names:
        path = folder / name
        if name.startswith((".", "README")) or (saved_by_datasets and name in _DATASETS_METADATA):
            continue
        if beir and (name == "qrels" or re.fullmatch(r"queries\.jsonl(\.gz|\.zst)?", name)):
            continue
        if path.is_dir():
            raise InputError(
                f"{path}: a folder inside a corpus folder is not read; name it as a source, or move it away."
            )
        if _QUERIES_OR_QRELS.search(name.lower()):
            raise InputError(f"{path}: the name says queries or judgements; name the files of the corpus one by one.")
        source = _file_source(regular(path))
        plain = path.stem if compression_of(path) else name
        if plain in sources:
            raise InputError(
                f"{path}: the folder also has {sources[plain].label}. Name the file to read, or remove the other one."
            )
        sources[plain] = source
    if not sources:
        raise InputError(f"{folder}: no corpus files in this folder; give {_KINDS}.")
    return list(sources.values())


def _refuse_repeated(sources: Sequence[_Source]) -> None:
    seen: dict[object, str] = {}
    for source in sources:
        key: object = source.name
        if source.kind not in ("hub", "irds"):
            status = Path(source.name).stat()
            key = (status.st_dev, status.st_ino)
        if key in seen:
            raise InputError(f"{source.name}: listed twice (also as {seen[key]}); its passages would be read twice.")
        seen[key] = source.name


def _files_in_words(files: Sequence[str]) -> str:
    return files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
