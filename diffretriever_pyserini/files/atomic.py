"""Files that survive a kill, a full disk and a pulled plug: written aside, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import DiffRetrieverError, InputError


def write_whole(path: Path, content: bytes) -> None:
    """Give ``path`` this content, or leave it as it was; on the disk when this returns. OSError passes through."""
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield another name to write to; it becomes ``path``, on the disk, when the block ends without an error."""
    partial = path.with_name(f"{path.name}.partial")  # always this name: after a kill the next attempt takes it over
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def link(source: str | Path, target: str | Path) -> None:
    """Another name for a file; a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def flush_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """:func:`write_whole` for a JSON object, keys sorted."""
    write_whole(path, (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; InputError for a file that holds none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}.")
    return values


@contextlib.contextmanager
def only_writer(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path`` while the block runs; the system lets go of it when the process ends, however.

    ``wait`` waits for another holder instead of refusing.

    Raises
    ------
    DiffRetrieverError
        When another process holds it, or the file system has no locks.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise DiffRetrieverError(
                    f"{what} is being written by another process (it holds {path}); wait for it or stop it."
                ) from error
            except OSError as error:
                raise DiffRetrieverError(
                    f"{path}: this file system cannot lock files ({error.strerror or error}); name a folder on one "
                    "that can (Lustre needs the mount option flock)."
                ) from error
            if not _is_at(file, path):
                continue  # its holder has just removed it: a lock that others cannot see
            yield
            return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
