"""Writing parts beside the model."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from ..model.representations import Representations
from ..store.part import write_part
from ..store.spec import StoreSpec
from .parts import PartRows


class PartWriter:
    """A thread that writes parts while the model goes on; its error is raised at the next part."""

    def __init__(self, output: Path, spec: StoreSpec):
        self._output, self._spec = output, spec
        self._queue: queue.Queue[tuple[PartRows, Representations] | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, part: PartRows, representations: Representations) -> None:
        """Hand a part over; waits where the one before is still being written."""
        self._check()
        self._queue.put((part, representations))

    def close(self) -> None:
        """Wait until all is written."""
        self._queue.put(None)
        self._thread.join()
        self._check()

    def abandon(self) -> None:
        """End the thread after an error elsewhere; a part that was handed over is still written."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # nothing may be written behind a gap that a person does not know of
            part, found = item
            try:
                write_part(self._output, part.number, self._spec, part.docids, found, part.skipped, part.rows)
            except BaseException as error:  # raised again in the main thread, by _check
                self._error = error
