"""Outputs that survive a kill, a full disk and a power failure: written beside their target, flushed, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BusyError, DiffRetrieverError, InputError
from .jsonl import refuse_deep
from .outputs import real_target

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NO_LOCKS = frozenset((errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP))
_BROKEN = frozenset((errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO, errno.ENOTCONN))  # of the disk or file server
_STREAM = re.compile(r"/dev/(stdout|stderr|fd/)|/proc/")  # names of files that a process has open already
_DESCRIPTOR = re.compile(r"/(?:dev/(?P<name>stdout|stderr)|(?:dev|proc/self)/fd/(?P<number>\d+))\Z")
_OUR_SUFFIX = (
    r"(\.partial|\.lock|(\.multi|\.shards)?\.unfinished|\.replaced)?(/|\Z)"  # of the work files beside an output
)
_LOCK_TIMEOUT = 0.2  # seconds: `held` takes a lock for a moment, and a process that ends still holds its own


@contextlib.contextmanager
def whole_file(path: str | Path, partial: Path | None = None) -> Iterator[Path]:
    """Yield a temporary name to write to; the file becomes ``path``, on the disk, when the block ends without an error.

    After an error ``path`` is unchanged. A symbolic link stays a link, and the file that it names is replaced. Pipes
    and devices are written to directly; disks are refused. A file that this process has open already (``/dev/stdout``)
    is written to at its current offset. Where the file system has no locks, each process writes to a different
    temporary name, and the last one wins.

    Parameters
    ----------
    partial : the temporary name, on the same file system. The default is ``PATH.partial``; as it is always the same,
        the next attempt overwrites what a killed run left.

    Raises
    ------
    DiffRetrieverError
        When ``path`` cannot be written, or another process is writing it.
    """
    given, path = Path(path).expanduser(), real_target(path)
    if _STREAM.match(str(given.absolute())) or (given.exists() and not given.is_file() and not given.is_dir()):
        with explained(given, given), _opened_stream(given) as name:
            if given.is_block_device():
                raise OSError(errno.EINVAL, "it is a disk", str(given))
            yield name
        return
    partial = partial or path.with_name(f"{path.name}.partial")
    with explained(given, path, partial), contextlib.ExitStack() as stack:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "its folder does not exist", str(path))
        if not stack.enter_context(only_writer(partial, str(given), required=False)):
            partial = partial.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            yield partial
            flush(partial)
            if path.exists():
                shutil.copymode(path, partial)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        flush(path.parent)


@contextlib.contextmanager
def _opened_stream(stream: Path) -> Iterator[Path]:
    """Yield a name to write to for ``stream``; a file that is open already is continued at its current offset."""
    match = _DESCRIPTOR.match(str(stream.absolute()))
    if match is None or not stream.is_file():
        yield stream
        return
    number = int(match["number"] or {"stdout": 1, "stderr": 2}[match["name"]])
    with tempfile.TemporaryDirectory(prefix="diffretriever-") as folder:
        path = Path(folder, "output")
        yield path
        for output in (sys.stdout, sys.stderr):
            if output is not None:
                output.flush()
        with path.open("rb") as content, os.fdopen(os.dup(number), "wb") as file:
            shutil.copyfileobj(content, file)


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path``, or leave ``path`` unchanged; see :func:`whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, values: dict[str, Any]) -> None:
    """Write a JSON object by :func:`write_whole`: keys sorted, in ASCII, as file names need not be UTF-8."""
    write_whole(path, json.dumps(values, indent=1, sort_keys=True) + "\n")


def read_json(path: str | Path, remedy: str = "", error: type[DiffRetrieverError] = InputError) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Parameters
    ----------
    remedy : what to do if it cannot be read; the end of the error message.

    Raises
    ------
    InputError, or ``error``
        If the file cannot be read or holds no JSON object; the message names the file and, if known, the line.
    """
    end = f"; {remedy}." if remedy else "."
    try:
        text = Path(path).read_text(encoding="utf-8")
        refuse_deep(text, str(path))
        values = json.loads(text)
    except json.JSONDecodeError as problem:
        raise error(f"{path}, line {problem.lineno}: broken JSON ({problem.msg}){end}") from problem
    except InputError as problem:
        raise error(str(problem)) from problem
    except (OSError, ValueError) as problem:
        raise error(f"{path}: cannot be read ({problem}){end}") from problem
    if not isinstance(values, dict):
        raise error(f"{path}: expected a JSON object, found {type(values).__name__}{end}")
    return values


@contextlib.contextmanager
def explained(given: Path, *targets: Path) -> Iterator[None]:
    """Turn an OSError about ``targets``, files in or beside them, or their disk into a DiffRetrieverError."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiffRetrieverError):
            raise
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        full = error.errno in _FULL
        ours = re.compile("|".join(rf"{re.escape(str(target))}{_OUR_SUFFIX}" for target in targets))
        disk = full or (not names and error.errno in _BROKEN)  # a write or fsync that fails names no file
        if not disk and not any(ours.match(name) or Path(name) in targets[0].parents for name in names):
            raise
        remedy = "free some space and run the command again" if full else "correct that or give another path"
        raise DiffRetrieverError(
            f"{given}: cannot be written ({error.strerror or error}); {remedy}. An older output is unchanged."
        ) from error


def link(source: str | Path, target: str | Path) -> None:
    """Give a file another name (a hard link); copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def only_writer(path: Path, what: str, wait: bool = False, required: bool = True) -> Iterator[bool]:
    """Hold the lock file ``path`` while the block runs; yields whether it is held.

    The system releases the lock however the process ends. It is flock(2), by ``filelock``. Over NFS it holds between
    machines from Linux 2.6.12 on (as a lock of the server). On Lustre it does so with the mount option flock; with
    localflock it holds on one machine only.

    Parameters
    ----------
    what : what is being written, as error messages name it.
    wait : wait for another holder instead of raising an error.
    required : whether a file system without locks is an error; otherwise the block runs without a lock.

    Raises
    ------
    BusyError
        When another process holds the lock.
    DiffRetrieverError
        When the file system has no locks.
    OSError
        When the lock file cannot be created.
    """
    import filelock

    handles: list[int] = []
    lock = filelock.FileLock(path, fallback_to_soft=False, preserve_lock_file=True, on_acquired=handles.append)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        try:
            # More than one attempt: a single one would also fail on a file that its holder has just removed.
            lock.acquire(timeout=-1 if wait else _LOCK_TIMEOUT, poll_interval=0.01)
            if _is_open_as(path, handles[-1]):
                break
            lock.release()  # its last holder has renamed the file, and another process may hold a new one
        except FileNotFoundError:
            continue  # the folder was removed at this moment
        except filelock.Timeout as error:
            raise BusyError(
                f"{what} is being written by another process (it holds {path}); wait for it or stop it."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if not required:
                break
            if new:
                path.unlink(missing_ok=True)
            raise DiffRetrieverError(
                f"{path}: this file system cannot lock files ({error.strerror or error}); use a folder on one that can "
                "(Lustre needs the mount option flock)."
            ) from error
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _is_open_as(path: Path, handle: int) -> bool:
    """Whether ``handle`` is open on the file that is at ``path`` now."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def held(path: Path) -> bool:
    """Whether a process holds the lock file ``path``."""
    try:
        with only_writer(path, str(path)):
            return False
    except BusyError:
        return True
