"""Strict, streaming line files (plain or .gz): every complaint names the file and the line."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from diffretriever_pyserini.errors import InputError

_BLANK = re.compile(r"\s")


def open_text(path: Path) -> TextIO:
    """Open a UTF-8 text file, gunzipping it when its name ends in .gz; a leading byte order mark is skipped."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="\n")
    return path.open(encoding="utf-8-sig", newline="\n")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its line end); lines of blanks only are skipped.

    Raises
    ------
    InputError
        When the file cannot be read, is not UTF-8, or is a damaged gzip file.
    """
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, after line {number}: not valid UTF-8 ({error.reason}); convert the file.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}, after line {number}: damaged gzip file ({error}); fetch it again.") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, JSON object) for a JSON-lines file.

    Raises
    ------
    InputError
        When a line is not JSON (for instance cut in half) or not an object.
    """
    for number, line in read_lines(path):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            problem = f"broken JSON at column {error.colno} ({error.msg})"
            raise InputError(f"{path}, line {number}: {problem}; is the line cut in half?") from error
        except RecursionError as error:
            raise InputError(f"{path}, line {number}: JSON nested too deeply to be read.") from error
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, found {type(value).__name__}.")
        yield number, value


def text_field(record: dict[str, Any], name: str, where: str) -> str:
    """Return record[name] as text; a missing field or null is the empty text, anything but a string an error."""
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: field '{name}' must be a string, found {type(value).__name__}.")
    return value


def checked_id(value: object, where: str, kind: str) -> str:
    """Return an id as text after checking that a TREC run file can hold it.

    Whole numbers are accepted and written in decimal, as Pyserini does.

    Raises
    ------
    InputError
        When the id is missing, empty, of another type, or holds white space.
    """
    if value is None or value == "":
        raise InputError(f"{where}: the {kind} has no id.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: the {kind} id must be a string, found {type(value).__name__}.")
    text = str(value)
    if _BLANK.search(text):
        raise InputError(f"{where}: the {kind} id {text!r} holds white space, which a TREC run file cannot carry.")
    return text
