"""What every worker does before and around its shards."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ..errors import BusyError, InputError

_LOCK_SECONDS = 120  # the lock of a dead machine: an NFS server releases it after a lease of usually 90 seconds


def _version() -> str:
    from .. import __version__

    return __version__


@dataclass(frozen=True)
class Driver:
    """The process that started the workers: its working directory, to which paths are relative, and its version."""

    folder: str = field(default_factory=os.getcwd)
    version: str = field(default_factory=_version)

    def follow(self) -> None:
        """Work in the same folder.

        Raises
        ------
        InputError
            If the folder does not exist on this node, or another version is installed here.
        """
        if _version() != self.version:
            raise InputError(f"this node has diffretriever-pyserini {_version()}, but the driver has {self.version}.")
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise InputError(
                f"{self.folder} cannot be opened on this node ({error.strerror}): run the command in a folder that all "
                "nodes share, with the corpus, the model and the output."
            ) from error


def node() -> str:
    """Return the name of this worker: its node and process."""
    import ray

    return f"{ray.util.get_node_ip_address()}, process {os.getpid()}"


def when_free[T](function: Callable[[], T]) -> T:
    """Call ``function``, again while the output is locked: its last writer may be dead or dying."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return function()
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@contextmanager
def logged(path: Path) -> Iterator[IO[str]]:
    """Yield a log that is removed if the block ends without an error, and else ends with the error's traceback."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {node()}", file=log, flush=True)
        try:
            yield log
        except BaseException:
            traceback.print_exc(file=log)
            raise
    path.unlink(missing_ok=True)
