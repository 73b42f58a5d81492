"""The progress of shards on a cluster: one bar for all of them, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from typing import IO, Any

_LOG_SECONDS = 10  # between two JSON lines of a shard


class ClusterView(AbstractContextManager["ClusterView"]):
    """One bar over the rows or passages of all shards.

    Parameters
    ----------
    shards : their number.
    quiet : no bar and no messages.
    log : gets the shards' JSON lines.
    """

    def __init__(self, name: str, shards: int, quiet: bool = False, log: IO[str] | None = None):
        from tqdm.auto import tqdm

        self._shards, self._quiet, self._log = shards, quiet, log
        self._done: dict[int, int] = {}  # by shard
        self._finished = self._kept = 0
        self._logged: dict[int, float] = {}
        self._bar: Any = tqdm(unit=" passages", desc=name, disable=True if quiet or log else None)
        self._describe()

    def expect(self, total: int) -> None:
        """Set the number of rows or passages of all shards, once it is known."""
        self._bar.total = total
        self._bar.refresh()

    def update(self, progress: dict[str, Any]) -> None:
        """Show the progress of a shard."""
        shard = progress["shard"]
        for message in progress.pop("messages"):
            self.say(f"shard {shard}: {message}")
        now = time.monotonic()
        if self._log is not None and now - self._logged.get(shard, 0) > _LOG_SECONDS:
            self._logged[shard] = now
            print(json.dumps(progress), file=self._log, flush=True)
        self._count(shard, progress["done"])

    def finish(self, shard: int, result: Any) -> None:
        """Count a shard as done."""
        self._finished += 1
        if isinstance(result, int):
            self._count(shard, result)
        else:
            self._count(shard, result["passages"] + result["skipped"])
            if self._log is not None:
                line = {"shard": shard, "shards": self._shards, "summary": result}
                print(json.dumps(line), file=self._log, flush=True)
        self._describe()

    def say(self, text: str) -> None:
        """Show a message above the bar."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)

    def _count(self, shard: int, done: int) -> None:
        self._done[shard] = done
        self._bar.update(sum(self._done.values()) - self._bar.n)

    def _describe(self) -> None:
        self._bar.set_postfix_str(f"{self._finished} of {self._shards} shards done")

    def __exit__(self, *_: object) -> None:
        self._bar.close()
