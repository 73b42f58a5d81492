"""Beginning a store in an empty folder or an existing store, and removing it if nothing was written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DiffRetrieverError
from ..files.atomic import held, only_writer
from .spec import FINISH_LOCK, LOCKS, SPEC, StoreSpec, check_folder, read_spec


@contextlib.contextmanager
def begun(folder: Path, spec: StoreSpec) -> Iterator[None]:
    """Run a block that begins the store of ``spec`` in ``folder``; an error before the first part removes the store.

    Raises
    ------
    DiffRetrieverError
        If ``folder`` holds anything other than a store.
    """
    check_folder(folder)
    new_folders = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, DiffRetrieverError):
            remove_unused(folder, spec)
            for path in new_folders:
                path.rmdir()
        raise


def remove_unused(folder: Path, spec: StoreSpec | None = None) -> None:
    """Remove ``store.json`` (if it is of ``spec``) and the locks of a store that has no parts and no writer.

    Raises
    ------
    DiffRetrieverError
        While a shard is being finished: it holds no other lock, and may have no parts.
    """
    locks = folder / LOCKS
    if not locks.is_dir():
        return
    # `encoding.finish.finish` takes the locks in the same order.
    with only_writer(locks / FINISH_LOCK, str(folder)), only_writer(locks / "spec", str(folder), wait=True):
        busy = any(held(lock) for lock in locks.glob("*-of-*"))
        if busy or any((folder / name).exists() for name in ("parts", "shards")):
            return
        if (folder / SPEC).is_file() and spec is not None and read_spec(folder) != spec:
            return
        (folder / SPEC).unlink(missing_ok=True)  # before the locks: a process that waits for one begins again
        for lock in locks.iterdir():
            lock.unlink()
    locks.rmdir()
