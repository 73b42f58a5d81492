"""Folders that appear whole or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DiffRetrieverError


@contextmanager
def whole_folder(target: str | Path, marker: str) -> Iterator[Path]:
    """Yield a work folder beside `target` that takes its place once the block has ended without an error.

    The block must write the file `marker`; an older folder is replaced only if it holds this file too. After an error
    the work folder stays (`<target>.unfinished`) for a look at it, and the next attempt starts it anew.

    Raises
    ------
    DiffRetrieverError
        When `target` is a file, or a folder with other contents, or another process is writing it.
    """
    target = Path(target).expanduser().absolute()
    if target.exists() and not (target / marker).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise DiffRetrieverError(f"{target} exists and is not an output of this command; name another folder.")
    work = target.with_name(f"{target.name}.unfinished")
    with _empty_and_locked(work):
        yield work
        if not (work / marker).is_file():
            raise DiffRetrieverError(f"{work}: {marker} is missing, so the output is not complete.")
        old = target.with_name(f"{target.name}.replaced")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        work.rename(target)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _empty_and_locked(work: Path) -> Iterator[None]:
    """Make `work` an empty folder that no other process writes to while the block runs, even under another name."""
    while True:
        try:
            work.mkdir(parents=True, exist_ok=True)
            handle = os.open(work, os.O_RDONLY)
        except OSError as error:
            raise DiffRetrieverError(f"{work}: cannot be made ({error.strerror}); name another folder.") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DiffRetrieverError(f"{work} is being written by another process; wait for it.") from error
            if not work.exists() or os.fstat(handle).st_ino != work.stat().st_ino:
                continue  # the other process has just finished, and this is its output now
            for entry in work.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            yield
            return
        finally:
            os.close(handle)
