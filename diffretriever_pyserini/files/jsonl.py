"""Strict streaming readers of line files (plain, .gz or .zst); every error names the file and the line."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from ..errors import InputError

LINE_LIMIT = 64 << 20
"""Bytes of the longest line that is read; a longer one means a file without line ends, or a damaged one."""

_LONGEST_ID = 32_766  # bytes of a term that Lucene stores
_DEPTH = 200
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|[][{}]')  # strings first: brackets inside them do not nest
_NOT_IN_IDS = re.compile(r"[\s\x00\ud800-\udfff]")
# At the start of an id, pyjnius drops the one and reads swapped bytes after the other.
_BYTE_ORDER = ("\ufeff", "\ufffe")
_REMOVE_MARK = "remove it (files that were joined leave one in the middle)"
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


def compression_of(path: Path) -> str | None:
    """``gzip`` or ``zstd`` where the name ends in .gz or .zst, None for a plain file."""
    return _COMPRESSION.get(path.suffix.lower())


def regular(path: Path) -> Path:
    """Return ``path``, a file of a folder; InputError for a broken link, and for a pipe or device, which may hang."""
    if path.is_file():
        return path
    broken = path.is_symlink() and not path.exists()
    problem = f"a broken link to {path.readlink()}" if broken else "no regular file"
    raise InputError(f"{path}: {problem}; correct it, remove it, or name the files one by one.")


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading lines of bytes, decompressed if its name ends in .gz or .zst."""
    from .folders import restore

    restore(path)
    compression = compression_of(path)
    if compression is None:
        return path.open("rb", buffering=1 << 20)
    if path.stat().st_size == 0:
        raise EOFError("the file is empty")
    if compression == "gzip":
        return cast(IO[bytes], gzip.open(path, "rb"))
    import pyarrow

    # A damaged block loses everything in its buffer, so the buffer is small.
    return io.BufferedReader(cast(Any, pyarrow.CompressedInputStream(str(path), "zstd")), 1 << 17)


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in blocks, decompressed if its name ends in .gz or .zst.

    Raises
    ------
    InputError
        When the file cannot be read, or is a damaged gzip or zstd file.
    """
    try:
        with open_bytes(path) as file:
            while block := file.read(1 << 20):
                yield block
    except (EOFError, OSError, zlib.error) as error:
        raise _read_error(path, error) from error


def _read_error(path: Path, error: Exception, after: str = "") -> InputError:
    if isinstance(error, OSError) and error.errno is not None:
        return InputError(f"{path}: cannot be read ({error.strerror or error}).")
    kind = compression_of(path) or "unreadable"
    return InputError(f"{path}{after}: damaged {kind} file ({error}); fetch it again.")


def read_raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line with its line end) for every line that is not blank, in constant memory.

    Of a line of more than `LINE_LIMIT` bytes only the first ``LINE_LIMIT + 1`` come; the caller must check the length.

    Raises
    ------
    InputError
        When the file cannot be read, or is a damaged gzip or zstd file; the message names the last line that was read.
    """
    number, limit = 0, LINE_LIMIT
    try:
        with open_bytes(path) as file:
            readline = file.readline
            while line := readline(limit + 1):
                number += 1
                if len(line) > limit:
                    rest = line
                    while rest and not rest.endswith(b"\n"):
                        rest = readline(1 << 20)
                    yield number, line
                    continue
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line and not line.isspace():
                    yield number, line
    except (EOFError, OSError, zlib.error) as error:
        raise _read_error(path, error, f", after line {number}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its line end); blank lines are skipped.

    Raises
    ------
    InputError
        When the file cannot be read, is a damaged gzip or zstd file, or holds a line that `decoded` refuses.
    """
    for number, line in read_raw_lines(path):
        text = decoded(line, f"{path}, line {number}")
        if text.strip():
            yield number, text


def decoded(line: bytes, where: str) -> str:
    """Return the text of a line, without its line end.

    Raises
    ------
    InputError
        When the line is not UTF-8, or longer than `LINE_LIMIT` bytes.
    """
    if len(line) > LINE_LIMIT:
        raise InputError(too_long(where))
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not valid UTF-8 (byte {error.start + 1}: {error.reason}); convert the file."
        ) from error


def too_long(where: str) -> str:
    """Return the error message for a line of more than `LINE_LIMIT` bytes."""
    return (
        f"{where}: longer than {LINE_LIMIT:,} bytes; is a line end missing, or is this one object for a whole corpus?"
    )


def read_columns(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (file and line, words between blanks) for each line of a table of ids and numbers.

    Raises
    ------
    InputError
        For what `read_lines` refuses, for a line with a NUL, which C libraries take for the end of an id, and for a
        line that begins with a byte order mark.
    """
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        if "\x00" in line:
            raise InputError(f"{where}: holds a NUL character; the file is damaged, or not in UTF-8.")
        if line.startswith(_BYTE_ORDER):
            raise InputError(f"{where}: begins with a byte order mark; {_REMOVE_MARK}.")
        yield where, line.split()


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, JSON object) for a JSON-lines file.

    Raises
    ------
    InputError
        When a line is not JSON (for instance cut in half) or not an object.
    """
    for number, line in read_lines(path):
        yield number, parse_object(line, f"{path}, line {number}")


def parse_object(line: str, where: str) -> dict[str, Any]:
    """Return the JSON object on one line.

    Raises
    ------
    InputError
        When the line is not JSON (for instance cut in half) or not an object.
    """
    refuse_deep(line, where)
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        problem = f"broken JSON at column {error.colno} ({error.msg})"
        raise InputError(f"{where}: {problem}; is the line cut in half?") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{where}: JSON that cannot be read ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(value).__name__}.")
    return value


def refuse_deep(text: str, where: str) -> None:
    """Raise InputError for JSON nested more than 200 levels deep.

    Python 3.13 crashes when its parser runs out of stack, instead of raising RecursionError.
    """
    if text.count("[") + text.count("{") <= _DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
        if depth > _DEPTH:
            raise InputError(f"{where}: JSON nested too deeply to be read (the limit is {_DEPTH} levels).")


def text_field(record: dict[str, Any], name: str, where: str) -> str:
    """Return ``record[name]``; a missing field or null gives the empty text, any other type an InputError."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: field '{name}' must be a string, found {type(value).__name__}.")
    return value


def checked_id(value: object, where: str, kind: str) -> str:
    """Return an id as text after checking that a TREC run file can hold it.

    Integers are accepted and written in decimal, as Pyserini does.

    Raises
    ------
    InputError
        When the id is missing, empty, of another type, too long for Lucene, begins with a byte order mark, or holds
        white space, NUL or a lone surrogate.
    """
    if value is None or value == "":
        raise InputError(f"{where}: the {kind} has no id.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: the {kind} id must be a string, found {type(value).__name__}.")
    text = str(value)
    if text[:1] in _BYTE_ORDER:
        raise InputError(f"{where}: the {kind} id {text!r} begins with a byte order mark; {_REMOVE_MARK}.")
    if match := _NOT_IN_IDS.search(text):
        sign = {"\0": "a NUL character"}.get(match[0], "white space" if match[0].isspace() else "a lone surrogate")
        raise InputError(f"{where}: the {kind} id {text!r} holds {sign}, which a TREC run file cannot hold.")
    if len(text) > _LONGEST_ID // 4 and (size := len(text.encode())) > _LONGEST_ID:
        raise InputError(f"{where}: the {kind} id {text[:40]!r}... has {size:,} bytes; Lucene takes {_LONGEST_ID:,}.")
    return text
