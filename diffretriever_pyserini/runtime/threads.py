"""How many threads FAISS and torch use, within a block or in the threads of a pool."""

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
    """Let FAISS use ``count`` threads inside the block, when called from this thread."""
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
    """Let torch use ``count`` threads inside the block, when called from this thread; None changes nothing."""
    import torch

    check_threads("torch", torch.get_num_threads() if count is None else count)
    if count is None:
        yield
        return
    before = _set_torch_threads(count)
    try:
        yield
    finally:
        _set_torch_threads(before)


_pools = threading.local()  # by library, the id of the process in which this thread started an OpenMP pool


def check_threads(library: str, count: int) -> None:
    """Raise DiffRetrieverError if ``library`` would wait here for threads that a fork did not copy.

    OpenMP keeps a pool for each thread that calls it. In a child process forked by such a thread the pool is gone, but
    OpenMP waits for it forever. A single thread needs no pool, and threads that did not fork have none yet.
    """
    if count > 1 and vars(_pools).setdefault(library, os.getpid()) != os.getpid():
        function = {"torch": "torch.set_num_threads", "FAISS": "faiss.omp_set_num_threads"}[library]
        raise DiffRetrieverError(
            f"this process was forked by one that had used {library} with several threads, and would wait for them "
            "forever: start it in another way (multiprocessing's 'spawn' or 'forkserver', subprocess), or let "
            f"{library} use one thread in it ({function}(1), or threads=1 where there is such an option)."
        )


class Workers:
    """A pool of ``count`` threads in which FAISS and torch use a single thread each: one thread answers one query.

    Waking more threads takes longer than a query's few milliseconds, especially if all processors are busy. OpenMP
    keeps its setting per thread, so the caller's is unchanged. A forked process gets a new pool. A function that runs
    in the pool must not call the pool: all its threads could be waiting.
    """

    def __init__(self, count: int | None = None):
        self.count = count or processors()
        self._started: tuple[int, ThreadPoolExecutor] | None = None

    @property
    def _pool(self) -> ThreadPoolExecutor:
        started = self._started
        if started is None or started[0] != os.getpid():  # a fork does not copy threads
            with _lock:
                started = self._started
                if started is None or started[0] != os.getpid():
                    started = os.getpid(), _started_pool(self.count)
                    self._started = started
        return started[1]

    def run[T](self, function: Callable[..., T], *arguments: Any) -> T:
        """Return ``function(*arguments)``, called in one of the threads."""
        return self._pool.submit(function, *arguments).result()

    def map[T](self, function: Callable[[Any], T], values: Iterable[Any], most: int | None = None) -> list[T]:
        """Return ``function`` of each of ``values``, in their order, with at most ``most`` calls at a time."""
        if most is None or most >= self.count:
            return list(self._pool.map(function, values))
        values = list(values)
        slices = self._pool.map(lambda first: [function(value) for value in values[first::most]], range(most))
        results = [iter(one_slice) for one_slice in slices]
        return [next(results[number % most]) for number in range(len(values))]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started is not None and self._started[0] == os.getpid():
            self._started[1].shutdown()


_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a fork while it is held would leave it locked in the child forever
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _started_pool(count: int) -> ThreadPoolExecutor:
    """Return a pool whose threads all run: a thread that still starts while Python exits would keep it from exiting."""
    pool, all_started = ThreadPoolExecutor(count), threading.Barrier(count)

    def begin() -> None:
        try:
            _use_one_thread()
            all_started.wait()
        except BaseException:
            all_started.abort()  # the others would wait forever
            raise

    with _torch_default_unchanged():
        try:
            futures = [pool.submit(begin) for _ in range(count)]
            errors = [error for future in futures if (error := future.exception())]
            if errors:
                raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        except BaseException:
            all_started.abort()
            pool.shutdown()
            raise
    return pool


def _use_one_thread() -> None:
    """Let FAISS and torch use one thread in this thread; this also changes torch's default for new threads."""
    import faiss
    import torch

    torch.get_num_threads()  # without this call the thread would take torch's default later
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)  # after torch, which would take this number as its default


def _set_torch_threads(count: int) -> int:
    """Let torch use ``count`` threads in this thread, without changing the default; returns the old number.

    threadpoolctl does not limit the BLAS inside torch, which follows ``torch.set_num_threads``.
    """
    import torch

    with _lock, _torch_default_unchanged():
        before = torch.get_num_threads()
        torch.set_num_threads(count)  # sets this thread's number and the default
    return before


@contextlib.contextmanager
def _torch_default_unchanged() -> Iterator[None]:
    """Restore torch's default after the block: the number that a thread takes when it first calls torch."""
    import torch

    default = _in_new_thread(torch.get_num_threads)
    try:
        yield
    finally:
        _in_new_thread(lambda: torch.set_num_threads(default))


def _in_new_thread[T](function: Callable[[], T]) -> T:
    """Return ``function()``, called in a new thread."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def processors(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Return how many processors this process may use, by its affinity and the quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota(version, folder) for version, folder in folders("cpu", proc, cgroups)]
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas if quota is not None)]))


def _quota(version: int, folder: Path) -> float | None:
    """Return the quota of a control group in processors; None for no limit."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    words = [word for name in names for line in lines(folder / name) for word in line.split()]
    try:
        quota, period = map(int, words)
    except ValueError:  # no such file, or "max"
        return None
    return quota / period if quota > 0 and period > 0 else None
