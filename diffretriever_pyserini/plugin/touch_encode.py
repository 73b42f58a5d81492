"""Touch points of ``pyserini.encode``: our encoder by name, honest input errors, and output that is whole or absent."""

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

Host = Callable[..., Any]
_JSONL_FILES = ("filename",)
_FAISS_FILES = ("index_name", "id_file_name")  # ended from the last to the first: an index makes a folder look finished
_IDS = ("id", "_id", "docid")


def document_encoder(model_name: str, **options: Any) -> DiffRetrieverDocumentEncoder:
    """What the host's map of document encoders holds under our word."""
    from ..pyserini_api.encoders import DiffRetrieverDocumentEncoder

    arguments: Any = None
    if pyserini_command() == "pyserini.encode":
        arguments = getattr(sys.modules["__main__"], "args", None)
    if arguments is not None and not arguments.encoder.multimodal:  # which our encoder refuses itself
        _check_fields(arguments)
    encoder = DiffRetrieverDocumentEncoder(model_name, **options)
    if arguments is not None and arguments.output.to_faiss:
        _check_dense(encoder, arguments.encoder.dimension)
    return encoder


def _check_fields(arguments: Any) -> None:
    """InputError where ``pyserini.encode`` will look for a field that it does not read, after loading the model."""
    read, wanted = arguments.input.fields, arguments.encoder.fields
    missing = [field for field in dict.fromkeys(("text", *wanted)) if field not in read]
    if missing:
        raise InputError(
            f"input --fields {' '.join(read)} has no field {missing[0]!r}, which the encoder is given"
            f"{'' if missing[0] in wanted else ' by pyserini.encode whatever it asks for'}: name the fields of the "
            "corpus with both, for instance `input --fields title text ... encoder --fields title text`."
        )


def query_encoder(encoder_dir: str, **options: Any) -> DiffRetrieverQueryEncoder:
    """What the host's map of query encoders holds under our word."""
    from ..pyserini_api.encoders import DiffRetrieverQueryEncoder

    return DiffRetrieverQueryEncoder(encoder_dir, **options)


def _encoding() -> bool:
    """Whether a document encoder of ours was made in this process and lives; the host's own runs stay untouched."""
    encoders = sys.modules.get("diffretriever_pyserini.pyserini_api.encoders")
    return encoders is not None and encoders.any_document_encoder()


def _maker_of(vectors: object) -> DiffRetrieverDocumentEncoder | None:
    """Which document encoder of ours made ``vectors``."""
    encoders = sys.modules.get("diffretriever_pyserini.pyserini_api.encoders")
    return encoders.maker_of(vectors) if encoders else None


def load_collection(original: Host) -> Host:
    """Read a JSONL corpus in sorted file order, checking every line, where our encoder will encode it."""

    def load(self: Any, collection_path: str) -> dict[str, list[str | None]]:
        if not _encoding() or any("path" in field for field in self.fields):
            return original(self, collection_path)
        return read_collection(self, Path(collection_path))

    return load


def read_collection(iterator: Any, path: Path) -> dict[str, list[str | None]]:
    """The columns of a corpus: one list a field, and ``id``; ``iterator`` knows fields, id field and delimiter.

    Raises
    ------
    InputError
        For an unreadable file, a broken line, an id that is missing, repeated or cannot stand in a run file, or a field
        that is missing or no string; the message names file and line.
    """
    from tqdm import tqdm

    from ..files.jsonl import checked_id, read_objects

    files = sorted(path.iterdir()) if path.is_dir() else [path]
    # The host's own two exceptions, told by the name.
    strict = not any("mbeir" in str(file) for file in files)
    strip = not any("bright" in str(file) for file in files)
    columns: dict[str, list[str | None]] = {field: [] for field in (*iterator.fields, "id")}
    seen: dict[str, str] = {}
    for file in files:
        if file.is_dir():
            raise InputError(f"{file}: a folder inside the corpus folder; only JSONL files may lie there.")
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
        raise InputError(f"{path}: no passages in this corpus.")
    return columns


def _fields(iterator: Any, record: dict[str, Any], where: str, strict: bool, strip: bool) -> list[str | None]:
    """The asked fields of one passage, by the host's own rules, after checking that those can work."""
    asked = list(iterator.fields)
    missing = [field for field in asked if field not in record]
    for field in (*asked, "contents"):
        if record.get(field) is not None and not isinstance(record[field], str):
            kind = type(record[field]).__name__
            raise InputError(f"{where}: field {field!r} must be a string, found {kind}.")
    if missing and not isinstance(record.get("contents"), str) and (strict or len(missing) == len(asked)):
        raise InputError(
            f"{where}: the passage has no field {missing[0]!r}, which --fields asks for; add it (it may be empty), "
            f"or ask only for what is there: {', '.join(map(repr, record)) or 'nothing'}."
        )
    values = iterator._parse_fields_from_info(record, strict=strict, strip_trailing_space=strip)
    if len(values) != len(asked):
        raise InputError(
            f"{where}: 'contents' splits into {len(values)} parts at the delimiter {iterator.delimiter!r}, "
            f"but --fields names {len(asked)} ({', '.join(asked)})."
        )
    return values


def begin_jsonl(original: Host) -> Host:
    """Open ``embeddings.jsonl`` beside its folder until it is complete: Anserini indexes whatever lies inside."""
    return _begin(original, _JSONL_FILES, _beside)


def begin_faiss(original: Host) -> Host:
    """Open the index's files under other names, until they are complete."""
    return _begin(original, _FAISS_FILES, lambda folder, final: None)


def _beside(folder: Path, final: str) -> Path | None:
    """A name for an unfinished file next to ``folder``; None, for one inside it, where a rename cannot reach."""
    parent = folder.parent
    if parent.stat().st_dev != folder.stat().st_dev or not os.access(parent, os.W_OK):
        return None
    return parent / f"{folder.name}.{final}.partial"


def _begin(original: Host, attributes: tuple[str, ...], partial: Callable[[Path, str], Path | None]) -> Host:
    def enter(self: Any) -> Any:
        if _encoding() and all(isinstance(getattr(self, name, None), str) for name in attributes):
            folder = Path(os.path.realpath(self.dir_path))
            self._diffretriever_made = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as stack:  # an error while one is opened closes the others
                for name in attributes:
                    final = getattr(self, name)
                    stack.callback(setattr, self, name, final)
                    setattr(self, name, str(stack.enter_context(whole_file(folder / final, partial(folder, final)))))
                self._diffretriever_files = stack.pop_all()
        return original(self)

    return enter


def end_jsonl(original: Host) -> Host:
    """Give the file its name, or remove it after a failure."""

    def leave(self: Any, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> Any:
        succeeded = False
        try:
            result = original(self, exc_type, exc_val, exc_tb)
            succeeded = exc_type is None
        finally:
            _settle(self, succeeded)
        return result

    return leave


def end_faiss(original: Host) -> Host:
    """Write the index and say who made it, or remove all traces of a failed run."""

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
            else:  # what an earlier index in this folder said does not hold for this one
                Path(self.dir_path, RECORD).unlink(missing_ok=True)
            succeeded = True
        finally:
            _settle(self, succeeded)
        return result

    return leave


def _check_dense(encoder: DiffRetrieverDocumentEncoder, dimension: int) -> None:
    """InputError where a FAISS index of ``dimension`` cannot hold what ``encoder`` makes."""
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


def write_faiss(original: Host) -> Host:
    """Add a batch to the index, after checking that it fits."""

    def write(self: Any, batch_info: dict[str, Any], fields: Any = None) -> Any:
        encoder = _maker_of(batch_info.get("vector"))
        if encoder is not None:
            _check_dense(encoder, self.dimension)
            _ = encoder.provenance  # now: at the end of a long run the checkpoint may have been replaced
            self._diffretriever_encoder = encoder
        return original(self, batch_info, fields)

    return write


def _settle(writer: Any, succeeded: bool) -> None:
    """Give the files their final names, or remove them, and the folder if it was made for them."""
    files = writer.__dict__.pop("_diffretriever_files", None)
    if files is not None and succeeded:
        files.close()
    elif files is not None:
        files.__exit__(RuntimeError, RuntimeError("given up"), None)  # an error makes whole_file remove what is there
    if writer.__dict__.pop("_diffretriever_made", False) and not succeeded:
        with contextlib.suppress(OSError):  # something else came to lie there meanwhile
            Path(writer.dir_path).rmdir()
