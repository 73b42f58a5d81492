"""Folders that are replaced whole: written beside their target, flushed, then exchanged with it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import DiffRetrieverError
from .atomic import explained, flush, only_writer
from .outputs import exchanged, real_target, refuse_unmovable

_MARKERS = ("index.json", "manifest.json", "mined.json", "demo.json")  # of the folders that commands replace whole


@contextlib.contextmanager
def whole_folder(target: str | Path, marker: str, resume: bool = False) -> Iterator[Path]:
    """Yield a work folder beside ``target`` that replaces it, on the disk, when the block ends without an error.

    The block must write the file ``marker``; an older folder is replaced only if it holds this file too. After an error
    the older folder is unchanged, and the work folder stays (``TARGET.unfinished``) for inspection; the next attempt
    starts with an empty one, or with ``resume`` continues in it. A symbolic link stays a link, and the folder that it
    names is replaced.

    Where the system can (Linux, macOS; most local file systems), the two exchange names in one step, so ``target``
    exists at every moment. Elsewhere a kill may leave the older folder as ``TARGET.replaced``; the next attempt,
    `restore_folder` and `restore` rename it back.

    Raises
    ------
    DiffRetrieverError
        When ``target`` is a file, a folder with other contents, cannot be written or replaced (the current directory,
        a mount point), or is being written by another process.
    """
    given = Path(target).expanduser()
    target = real_target(target)
    refuse_unmovable(given, target)
    work, old = (target.with_name(f"{target.name}.{state}") for state in ("unfinished", "replaced"))
    with explained(given, target), _only_writer_of_folder(target, wait=False):
        _restore(target, marker)
        if target.exists() and not (target / marker).is_file() and not (target.is_dir() and not any(target.iterdir())):
            raise DiffRetrieverError(f"{given} exists and is not an output of this command; name another folder.")
        if not resume:
            _remove(work)
        work.mkdir(exist_ok=resume)
        yield work
        if not (work / marker).is_file():
            raise DiffRetrieverError(f"{work}: {marker} is missing, so the output is not complete.")
        for folder, _, names in os.walk(work):
            for name in names:
                flush(Path(folder, name))
            flush(Path(folder))
        _remove(old)
        if not target.exists():
            work.rename(target)
        elif not exchanged(work, target):
            try:
                target.rename(old)
                work.rename(target)
            except BaseException:
                _restore(target, marker)
                raise
            old.rename(work)
        flush(target.parent)
        if work.exists():  # the older folder, after the exchange
            (work / marker).unlink(missing_ok=True)  # first: what a kill leaves of it must not look complete
            _remove(work)


def restore(path: str | Path) -> None:
    """If ``path`` is missing, call :func:`restore_folder` for it and the folders above it.

    Call this before reading a file that may be in a folder that :func:`whole_folder` writes.
    """
    path = Path(path).expanduser()
    if path.exists():
        return
    for folder in reversed((path, *path.absolute().parents)):
        for marker in _MARKERS:
            if not folder.exists() and Path(f"{os.path.realpath(folder)}.replaced", marker).is_file():
                restore_folder(folder, marker)


def restore_folder(target: str | Path, marker: str) -> None:
    """Rename the older folder back to ``target`` if :func:`whole_folder` was killed while replacing it.

    Call this before reading such a folder; it does nothing if ``target`` exists.
    """
    given = Path(target).expanduser()
    target = Path(os.path.realpath(given))
    if not target.exists() and target.with_name(f"{target.name}.replaced").is_dir():
        with explained(given, target), _only_writer_of_folder(target, wait=True):
            _restore(target, marker)


def _restore(target: Path, marker: str) -> None:
    old = target.with_name(f"{target.name}.replaced")
    if not target.exists() and (old / marker).is_file():
        old.rename(target)


@contextlib.contextmanager
def _only_writer_of_folder(target: Path, wait: bool) -> Iterator[None]:
    lock = target.with_name(f"{target.name}.lock")  # beside the folder: a lock inside would be renamed with it
    with only_writer(lock, str(target), wait=wait):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
