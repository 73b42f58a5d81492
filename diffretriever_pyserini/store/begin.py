"""Beginning a store: in an empty folder or its own, and gone again if nothing came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DiffRetrieverError
from ..files.atomic import held, only_writer
from .spec import FINISH_LOCK, LOCKS, SPEC, StoreSpec, check_folder, read_spec


@contextlib.contextmanager
def begun(folder: Path, spec: StoreSpec) -> Iterator[None]:
    """A block that begins the store of ``spec`` in ``folder``; an error before the first part leaves no trace of it.

    Raises
    ------
    DiffRetrieverError
        When ``folder`` holds something else.
    """
    check_folder(folder)
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, DiffRetrieverError):
            remove_unused(folder, spec)
            for path in made:
                path.rmdir()
        raise


def remove_unused(folder: Path, spec: StoreSpec | None = None) -> None:
    """Remove ``store.json`` (where it is of ``spec``) and the locks of a store that has no parts and no writer.

    Raises
    ------
    DiffRetrieverError
        While a shard is being finished: it holds no other lock, and may have no part.
    """
    locks = folder / LOCKS
    if not locks.is_dir():
        return
    # Locks are taken in this order by `encoding.finish.finish`, too.
    with only_writer(locks / FINISH_LOCK, str(folder)), only_writer(locks / "spec", str(folder), wait=True):
        busy = any(held(lock) for lock in locks.glob("*-of-*"))
        if busy or any((folder / name).exists() for name in ("parts", "shards")):
            return
        if (folder / SPEC).is_file() and spec is not None and read_spec(folder) != spec:
            return
        (folder / SPEC).unlink(missing_ok=True)  # before the locks: who waits for one begins anew
        for lock in locks.iterdir():
            lock.unlink()
    locks.rmdir()
