"""Workers on a cluster take one shard after the other; those that die are replaced, and their shards done again."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import DiffRetrieverError
from .ray import PATIENCE_SECONDS, Need, remote

_ATTEMPTS = 10  # per shard, after which a worker that dies is no accident
_POLL_SECONDS = 0.5


class ShardWorker(Protocol):
    """An object on a node that works on one shard at a time."""

    def node(self) -> str:
        """Prepare for work, and return the name of the node and process."""

    def run(self, shard: int) -> Any:
        """Do all work of ``shard`` that is not done yet."""

    def progress(self) -> dict[str, Any] | None:
        """Return how far the current ``shard`` is; called while :meth:`run` runs."""


class View(Protocol):
    """What shows the progress of a pool."""

    def update(self, progress: dict[str, Any]) -> None:
        """Show the progress of a shard, as :meth:`ShardWorker.progress` returned it."""

    def finish(self, shard: int, result: Any) -> None:
        """Count a shard as done."""

    def say(self, text: str) -> None:
        """Show a message."""


@dataclass(eq=False)
class _Worker:
    actor: Any
    node: str = ""
    shard: int | None = None


@dataclass
class Pool:
    """Runs shards on workers.

    A worker is asked for as soon as there is work for it, and Ray starts it when a node is free: so the pool grows
    with the cluster, and a node that dies is replaced by another one.

    Attributes
    ----------
    kind, arguments : the class of the workers, a :class:`ShardWorker`, and what it is made with.
    need : what a worker takes of a node.
    what : the work in messages, for instance "encoding".
    log : the path of a shard's log, for messages.
    """

    kind: type
    arguments: tuple[Any, ...]
    need: Need
    view: View
    what: str
    log: Callable[[int], object]
    _running: dict[Any, _Worker] = field(default_factory=dict)
    _starting: dict[Any, _Worker] = field(default_factory=dict)

    def run(self, shards: Sequence[int]) -> dict[int, Any]:
        """Return the result of each of ``shards``.

        Raises
        ------
        DiffRetrieverError
            For the first shard that fails, naming its node and log; the other workers are stopped.
        """
        import ray

        waiting, deaths = deque(shards), Counter[int | None]()
        results: dict[int, Any] = {}
        patience = time.monotonic() + PATIENCE_SECONDS
        with self._ended():
            while len(results) < len(shards):
                # As many as are at work: without free nodes, they stay in Ray's queue.
                while len(self._starting) < min(max(1, len(self._running)), len(waiting)):
                    self._start()
                ended, _ = ray.wait([*self._running, *self._starting], timeout=_POLL_SECONDS)
                for reference in ended:
                    starts = reference in self._starting
                    worker = (self._starting if starts else self._running).pop(reference)
                    shard = worker.shard
                    try:
                        result = self._result(reference, worker)
                    except _DiedError as death:
                        deaths[shard] += 1
                        self._again(death, worker, deaths[shard])
                        if shard is not None:
                            waiting.appendleft(shard)
                        continue
                    deaths[None] = 0
                    if starts:
                        worker.node = result
                    elif shard is not None:
                        results[shard] = result
                        self.view.finish(shard, result)
                    self._assign(worker, waiting)
                self._show()
                if waiting and not self._running and time.monotonic() > patience:
                    self.view.say(f"Waiting for a free node of the cluster, with {self.need} (see `ray status`).")
                    patience = math.inf
        return results

    def _start(self) -> None:
        actors = remote(self.kind, self.need, max_concurrency=2)  # `progress` is called while `run` runs
        worker = _Worker(actors.remote(*self.arguments))
        self._starting[worker.actor.node.remote()] = worker

    def _assign(self, worker: _Worker, waiting: deque[int]) -> None:
        """Give ``worker`` the next shard, or end it."""
        import ray

        if not waiting:
            ray.kill(worker.actor)
            return
        worker.shard = waiting.popleft()
        self._running[worker.actor.run.remote(worker.shard)] = worker

    def _result(self, reference: Any, worker: _Worker) -> Any:
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise self._failure(worker, error.cause) from error
        except ray.exceptions.RayError as error:  # not only RayActorError: Ray ends workers where memory is scarce
            raise _DiedError(_cause(str(error))) from error

    def _failure(self, worker: _Worker, error: Exception) -> DiffRetrieverError:
        ours = isinstance(error, DiffRetrieverError)
        text = str(error) if ours else f"{type(error).__name__}: {error}"
        if worker.shard is None:
            return DiffRetrieverError(f"a worker cannot start on {worker.node or 'its node'}: {text}")
        return DiffRetrieverError(
            f"{self.what} shard {worker.shard} failed on {worker.node}: {text.rstrip('.')}. Its log is "
            f"{self.log(worker.shard)}. The other workers were stopped, and what is complete stays. Fix the error and "
            "run the same command again to continue."
        )

    def _again(self, death: _DiedError, worker: _Worker, times: int) -> None:
        """Say that ``worker`` died; DiffRetrieverError if its shard has had all its attempts."""
        who = "a worker that was starting" if worker.shard is None else f"the worker of shard {worker.shard}"
        text = f"{who} died ({worker.node + ': ' if worker.node else ''}{death})"
        if times >= _ATTEMPTS:
            log = "" if worker.shard is None else f" Its log is {self.log(worker.shard)}."
            raise DiffRetrieverError(
                f"{self.what}: {text}, {times} times.{log} What is complete stays: find the cause (out of memory?) and "
                "run the same command again to continue."
            )
        self.view.say(f"{text}; another one continues.")

    def _show(self) -> None:
        """Ask all workers how far they are."""
        import ray

        asked = [worker.actor.progress.remote() for worker in self._running.values()]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_POLL_SECONDS) if asked else ([], [])
        for reference in answered:
            with contextlib.suppress(ray.exceptions.RayError):  # the worker has died; its shard says so
                if (progress := ray.get(reference)) is not None:
                    self.view.update(progress)

    @contextlib.contextmanager
    def _ended(self) -> Iterator[None]:
        """No worker lives after the block."""
        import ray

        try:
            yield
        finally:
            for worker in [*self._running.values(), *self._starting.values()]:
                ray.kill(worker.actor)


class _DiedError(Exception):
    """A worker has died."""


def _cause(report: str) -> str:
    """The sentence of Ray's report that says how a worker died."""
    for mark in ("Worker exit detail: ", "The node was ", "The actor died because its node has died"):
        if mark in report:
            text = report[report.index(mark) :].removeprefix("Worker exit detail: ")
            return text.splitlines()[0].partition(". ")[0].rstrip(".")
    return report.splitlines()[0].rstrip(".")
