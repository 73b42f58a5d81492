"""How many threads FAISS and torch take, for the length of a block or of a thread."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import DiffRetrieverError
from .cgroups import CGROUPS, PROC, folders, lines


@contextlib.contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads inside the block, where this thread calls it."""
    import faiss

    check_threads("FAISS", count)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block, where this thread calls it; None changes nothing."""
    import torch

    check_threads("torch", torch.get_num_threads() if count is None else count)
    if count is None:
        yield
        return
    before = _own_torch_threads(count)
    try:
        yield
    finally:
        _own_torch_threads(before)


_helpers = threading.local()  # by library, the process in which this thread had others help it


def check_threads(library: str, count: int) -> None:
    """Raise DiffRetrieverError where this thread is about to wake threads of ``library`` that a fork left behind.

    OpenMP keeps a thread's helpers for the next time, and waits for them for ever in a child that was forked by that
    thread. One thread needs no helpers, and another thread than the one that forked has none yet.
    """
    if count > 1 and vars(_helpers).setdefault(library, os.getpid()) != os.getpid():
        module = {"torch": "torch.set_num_threads", "FAISS": "faiss.omp_set_num_threads"}[library]
        raise DiffRetrieverError(
            f"this process was forked by one that had used {library} with several threads, and would wait for them for "
            "ever: start it in another way (multiprocessing's 'spawn' or 'forkserver', subprocess), or let "
            f"{library} use one thread in it ({module}(1), or threads=1 where that can be asked for)."
        )


class Workers:
    """Threads that answer one query each: FAISS and torch use no further threads below them.

    Waking other threads takes longer than a query's few milliseconds, above all where all processors are busy. OpenMP
    keeps the number of threads by thread, so the caller's own is not touched. A forked process gets threads of its own.
    ``count`` is how many there are. What runs in one of them must not ask for others: all could be waiting.
    """

    def __init__(self, count: int | None = None):
        self.count = count or processors()
        self._started: tuple[int, ThreadPoolExecutor] | None = None

    @property
    def _pool(self) -> ThreadPoolExecutor:
        started = self._started
        if started is None or started[0] != os.getpid():  # threads do not come along into a forked process
            with _one_at_a_time:
                started = self._started
                if started is None or started[0] != os.getpid():
                    started = os.getpid(), _started(self.count)
                    self._started = started
        return started[1]

    def run[T](self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` in one of the threads."""
        return self._pool.submit(function, *arguments).result()

    def map[T](self, function: Callable[[Any], T], values: Iterable[Any], most: int | None = None) -> list[T]:
        """``function`` of each of ``values``, in their order; at most ``most`` at once."""
        if most is None or most >= self.count:
            return list(self._pool.map(function, values))
        values = list(values)
        turns = self._pool.map(lambda first: [function(value) for value in values[first::most]], range(most))
        by_turn = [iter(found) for found in turns]
        return [next(by_turn[number % most]) for number in range(len(values))]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started is not None and self._started[0] == os.getpid():
            self._started[1].shutdown()


_one_at_a_time = threading.Lock()
if hasattr(os, "register_at_fork"):  # a fork in the middle of it would leave it locked in the child for ever
    os.register_at_fork(
        before=_one_at_a_time.acquire,
        after_in_parent=_one_at_a_time.release,
        after_in_child=_one_at_a_time.release,
    )


def _started(count: int) -> ThreadPoolExecutor:
    """As many threads, all of them running: one that still starts while Python ends would keep it from ending."""
    pool, all_here = ThreadPoolExecutor(count), threading.Barrier(count)

    def begin() -> None:
        try:
            _alone()
            all_here.wait()
        except BaseException:
            all_here.abort()  # the others would wait for ever
            raise

    with _common_number_kept():
        try:
            begun = [pool.submit(begin) for _ in range(count)]
            errors = [error for one in begun if (error := one.exception())]
            if errors:
                raise next((one for one in errors if not isinstance(one, threading.BrokenBarrierError)), errors[0])
        except BaseException:
            all_here.abort()
            pool.shutdown()
            raise
    return pool


def _alone() -> None:
    """One thread for FAISS and torch in this thread, and by the way for threads that first ask torch after it."""
    import faiss
    import torch

    torch.get_num_threads()  # a thread that never asked would take the common number later
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)  # after torch, which would take this for the usual number


def _own_torch_threads(count: int) -> int:
    """Let torch use ``count`` threads in this thread, and those to come as many as before; returns the old number.

    threadpoolctl would leave the BLAS inside torch alone, which then goes on with ``torch.set_num_threads``' number.
    """
    import torch

    with _one_at_a_time, _common_number_kept():
        before = torch.get_num_threads()
        torch.set_num_threads(count)  # sets this thread's and the common one
    return before


@contextlib.contextmanager
def _common_number_kept() -> Iterator[None]:
    """Torch's common number, which a thread takes when it first asks, is afterwards what it was."""
    import torch

    usual = _elsewhere(torch.get_num_threads)
    try:
        yield
    finally:
        _elsewhere(lambda: torch.set_num_threads(usual))


def _elsewhere[T](function: Callable[[], T]) -> T:
    """What ``function`` returns in a thread of its own."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def processors(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Processors that this process may use: by its affinity, and by the quota of its control groups, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(version, folder) for version, folder in folders("cpu", proc, cgroups)]
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _quota(version: int, folder: Path) -> float | None:
    """Processors' worth of time that a control group may take; None for no limit."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = [word for name in names for line in lines(folder / name) for word in line.split()]
    try:
        quota, period = map(int, words)
    except ValueError:  # no such file, or "max"
        return None
    return quota / period if quota > 0 and period > 0 else None
