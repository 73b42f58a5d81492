"""Touch points of ``pyserini.encode``: our encoder by name, clear input errors, and output that is whole or absent."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files.atomic import whole_file
from ..store.index_record import FILE_NAME as RECORD
from .command import pyserini_command

if TYPE_CHECKING:
    from ..pyserini_api.encoders import DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder

PyseriniFunction = Callable[..., Any]
_JSONL_FILES = ("filename",)
_FAISS_FILES = ("index_name", "id_file_name")  # renamed in reverse: the index makes a folder look finished
_IDS = ("id", "_id", "docid")


def document_encoder(model_name: str, **options: Any) -> DiffRetrieverDocumentEncoder:
    """The entry for our word in Pyserini's map of document encoders."""
    from ..pyserini_api.encoders import DiffRetrieverDocumentEncoder

    arguments: Any = None
    if pyserini_command() == "pyserini.encode":
        arguments = getattr(sys.modules["__main__"], "args", None)
    if arguments is not None and not arguments.encoder.multimodal:  # its fields are refused by our encoder
        _check_fields(arguments)
    encoder = DiffRetrieverDocumentEncoder(model_name, **options)
    if arguments is not None and arguments.output.to_faiss:
        _check_dense(encoder, arguments.encoder.dimension)
    return encoder


def _check_fields(arguments: Any) -> None:
    """Raise InputError where ``pyserini.encode`` would fail on a missing field only after loading the model."""
    read, encoded = arguments.input.fields, arguments.encoder.fields
    missing = [field for field in dict.fromkeys(("text", *encoded)) if field not in read]
    if missing:
        reader = "encoder --fields names" if missing[0] in encoded else "pyserini.encode always needs"
        raise InputError(
            f"input --fields {' '.join(read)} has no field {missing[0]!r}, which {reader}: name the fields of the "
            "corpus in both, for instance `input --fields title text ... encoder --fields title text`."
        )


def query_encoder(encoder_dir: str, **options: Any) -> DiffRetrieverQueryEncoder:
    """The entry for our word in Pyserini's map of query encoders."""
    from ..pyserini_api.encoders import DiffRetrieverQueryEncoder

    return DiffRetrieverQueryEncoder(encoder_dir, **options)


def _encoding() -> bool:
    """Whether this process has a document encoder of ours; other runs are not changed."""
    encoders = sys.modules.get("diffretriever_pyserini.pyserini_api.encoders")
    return encoders is not None and encoders.any_document_encoder()


def _maker_of(vectors: object) -> DiffRetrieverDocumentEncoder | None:
    """The document encoder of ours that made ``vectors``."""
    encoders = sys.modules.get("diffretriever_pyserini.pyserini_api.encoders")
    return encoders.maker_of(vectors) if encoders else None


def load_collection(original: PyseriniFunction) -> PyseriniFunction:
    """Read a JSONL corpus in sorted file order and check every line, where our encoder is used."""

    def load(self: Any, collection_path: str) -> dict[str, list[str | None]]:
        if not _encoding() or any("path" in field for field in self.fields):
            return original(self, collection_path)
        return read_collection(self, Path(collection_path))

    return load


def read_collection(iterator: Any, path: Path) -> dict[str, list[str | None]]:
    """The columns of a corpus: one list per field, and ``id``; ``iterator`` has the fields, id field and delimiter.

    Raises
    ------
    InputError
        For an unreadable file, a broken line, an id that is missing, repeated or not allowed in a run file, or a field
        that is missing or not a string; the message names file and line.
    """
    from tqdm.auto import tqdm

    from ..files.jsonl import checked_id, read_objects

    files = sorted(path.iterdir()) if path.is_dir() else [path]
    # Pyserini's own two exceptions, recognised by the file name.
    strict = not any("mbeir" in str(file) for file in files)
    strip = not any("bright" in str(file) for file in files)
    columns: dict[str, list[str | None]] = {field: [] for field in (*iterator.fields, "id")}
    seen: dict[str, str] = {}
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder inside the corpus folder, which may hold only JSONL files.")
        for number, record in tqdm(read_objects(file), unit=" passages", desc=file.name, disable=None):
            where = f"{file}, line {number}"
            names = (iterator.docid_field,) if iterator.docid_field else _IDS
            docid = checked_id(next((record[name] for name in names if name in record), None), where, "passage")
            if docid in seen:
                raise InputError(f"{where}: passage id {docid!r} was seen before in {seen[docid]}; ids must be unique.")
            seen[docid] = where
            values = _fields(iterator, record, where, strict, strip)
            columns["id"].append(docid)
            for field, value in zip(iterator.fields, values, strict=True):
                columns[field].append(value)
    if not seen:
        raise InputError(f"{path}: this corpus has no passages.")
    return columns


def _fields(iterator: Any, record: dict[str, Any], where: str, strict: bool, strip: bool) -> list[str | None]:
    """The fields of one passage by Pyserini's own rules, after checking that these can work."""
    names = list(iterator.fields)
    missing = [name for name in names if name not in record]
    for name in (*names, "contents"):
        if record.get(name) is not None and not isinstance(record[name], str):
            raise InputError(f"{where}: field {name!r} must be a string, found {type(record[name]).__name__}.")
    if missing and not isinstance(record.get("contents"), str) and (strict or len(missing) == len(names)):
        raise InputError(
            f"{where}: the passage has no field {missing[0]!r}, which --fields names; add it (it may be empty), "
            f"or name only fields that it has: {', '.join(map(repr, record)) or 'none'}."
        )
    values = iterator._parse_fields_from_info(record, strict=strict, strip_trailing_space=strip)
    if len(values) != len(names):
        raise InputError(
            f"{where}: 'contents' splits into {len(values)} parts at the delimiter {iterator.delimiter!r}, "
            f"but --fields names {len(names)} ({', '.join(names)})."
        )
    return values


def begin_jsonl(original: PyseriniFunction) -> PyseriniFunction:
    """Open ``embeddings.jsonl`` next to its folder until it is complete: Anserini indexes every file in the folder."""
    return _begin(original, _JSONL_FILES, _beside)


def begin_faiss(original: PyseriniFunction) -> PyseriniFunction:
    """Open the index's files under temporary names until they are complete."""
    return _begin(original, _FAISS_FILES, lambda folder, final: None)


def _beside(folder: Path, final: str) -> Path | None:
    """A path for an unfinished file next to ``folder``; None (inside it) where it could not be renamed into it."""
    parent = folder.parent
    if parent.stat().st_dev != folder.stat().st_dev or not os.access(parent, os.W_OK):
        return None
    return parent / f"{folder.name}.{final}.partial"


def _begin(
    original: PyseriniFunction, attributes: tuple[str, ...], partial: Callable[[Path, str], Path | None]
) -> PyseriniFunction:
    def enter(self: Any) -> Any:
        if _encoding() and all(isinstance(getattr(self, name, None), str) for name in attributes):
            folder = Path(os.path.realpath(self.dir_path))
            self._diffretriever_made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:  # an error while opening one file closes the others
                for name in attributes:
                    final = getattr(self, name)
                    stack.callback(setattr, self, name, final)
                    setattr(self, name, str(stack.enter_context(whole_file(folder / final, partial(folder, final)))))
                self._diffretriever_files = stack.pop_all()
        return original(self)

    return enter


def end_jsonl(original: PyseriniFunction) -> PyseriniFunction:
    """Rename the file to its final name, or remove it after a failure."""

    def leave(self: Any, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> Any:
        succeeded = False
        try:
            result = original(self, exc_type, exc_val, exc_tb)
            succeeded = exc_type is None
        finally:
            _settle(self, succeeded)
        return result

    return leave


def end_faiss(original: PyseriniFunction) -> PyseriniFunction:
    """Write the index and the record of its encoder, or remove everything after a failure."""

    def leave(self: Any, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> Any:
        if exc_type is not None and "_diffretriever_files" in self.__dict__:
            self.id_file.close()
            return _settle(self, False)
        succeeded = False
        try:
            result = original(self, exc_type, exc_val, exc_tb)
            encoder = self.__dict__.pop("_diffretriever_encoder", None)
            if encoder is not None:
                encoder.record(self.index.ntotal).write(self.dir_path)
            else:  # the record of an earlier index in this folder does not apply
                Path(self.dir_path, RECORD).unlink(missing_ok=True)
            succeeded = True
        finally:
            _settle(self, succeeded)
        return result

    return leave


def _check_dense(encoder: DiffRetrieverDocumentEncoder, dimension: int) -> None:
    """Raise InputError where a FAISS index of ``dimension`` cannot hold the vectors of ``encoder``."""
    if encoder.name.lexical:
        raise InputError(
            f"--encoder {encoder.name} gives term weights, and --to-faiss needs vectors: leave out --to-faiss (and "
            "index with Lucene), or drop -lexical from the encoder's name."
        )
    if encoder.dimension != dimension:
        raise InputError(
            f"--encoder {encoder.name} makes vectors of dimension {encoder.dimension}, but --dimension is {dimension}: "
            f"pass --dimension {encoder.dimension}."
        )


def write_faiss(original: PyseriniFunction) -> PyseriniFunction:
    """Add a batch to the index after checking its dimension."""

    def write(self: Any, batch_info: dict[str, Any], fields: Any = None) -> Any:
        encoder = _maker_of(batch_info.get("vector"))
        if encoder is not None:
            _check_dense(encoder, self.dimension)
            _ = encoder.provenance  # computed now: the checkpoint may be replaced during a long run
            self._diffretriever_encoder = encoder
        return original(self, batch_info, fields)

    return write


def _settle(writer: Any, succeeded: bool) -> None:
    """Rename the files to their final names, or remove them, and the folder if it was made for them."""
    files = writer.__dict__.pop("_diffretriever_files", None)
    if files is not None and succeeded:
        files.close()
    elif files is not None:
        files.__exit__(RuntimeError, RuntimeError("given up"), None)  # on an error, whole_file removes its file
    if writer.__dict__.pop("_diffretriever_made", False) and not succeeded:
        with contextlib.suppress(OSError):  # the folder has other files by now
            Path(writer.dir_path).rmdir()
