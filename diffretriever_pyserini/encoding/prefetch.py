"""Prefetch: rows are parsed, tokenised and split into words in worker processes while the model computes."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..corpora.corpus import RawRow, parse_row
from ..errors import InputError
from ..model.config import RetrieverConfig
from ..model.tokenization import Prepared, Preparer
from .worker import Worker

CHUNK = 256  # rows that a worker gets at a time
CHUNK_BYTES = 8 << 20  # a chunk of long rows ends here, as dozens of chunks are in memory


def chunks(rows: Iterable[RawRow]) -> Iterator[list[RawRow]]:
    """Yield ``rows`` in lists of at most ``CHUNK`` rows that end with the row that reaches ``CHUNK_BYTES``."""
    chunk: list[RawRow] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += _size(row)
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(row: RawRow) -> int:
    if isinstance(row.payload, dict):
        return sum(len(value) for value in row.payload.values() if isinstance(value, str))
    return len(row.payload)


@dataclass(frozen=True, slots=True)
class ReadyRows:
    """A chunk of corpus rows: ids, locations and prepared texts of its passages, and the reasons for skipped rows."""

    docids: list[str]
    locations: list[str]
    prepared: Prepared
    skipped: list[tuple[str, str]]


def make_ready(prepare: Preparer, rows: Sequence[RawRow], max_length: int | None, skip: bool) -> ReadyRows:
    """Parse and prepare ``rows``; a bad row is an InputError, or with ``skip`` listed as skipped."""
    docids, locations, texts, skipped = [], [], [], []
    for row in rows:
        try:
            passage = parse_row(row)
        except InputError as error:
            if not skip:
                raise InputError(f"{error} (--on-error skip leaves such rows out and lists them)") from error
            skipped.append((row.where, str(error)))
            continue
        docids.append(passage.docid)
        locations.append(row.where)
        texts.append(passage.contents)
    return ReadyRows(docids, locations, prepare(texts, "passage", max_length), skipped)


class Prefetcher:
    """Prepares chunks of rows in ``workers`` processes, in order.

    With 0 workers, and until the first worker has started (some seconds), this process prepares each chunk itself.

    Parameters
    ----------
    prepare, max_length, skip : how texts are prepared, see :func:`make_ready`.
    workers : number of processes; each holds a tokenizer, word tables and a cache of words (200 to 300 MB).
    """

    def __init__(self, prepare: Preparer, max_length: int | None, skip: bool, workers: int):
        self._task = (max_length, skip)
        self._prepare = prepare
        self._depth = 4 * workers + 2  # chunks in memory
        self._workers = [Worker(_setup, prepare.config, *self._task) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None  # a thread waits for each worker
        if workers:
            self._pool = ThreadPoolExecutor(workers)
            self._starting = [self._pool.submit(self._start, worker) for worker in self._workers]

    def __call__(self, chunks: Iterable[tuple[int, Sequence[RawRow]]]) -> Iterator[tuple[int, ReadyRows]]:
        """Yield (part number, prepared rows) in order, while the next chunks are being prepared.

        Raises
        ------
        InputError
            For a bad row, unless bad rows are skipped.
        DiffRetrieverError
            When a worker process has died.
        """
        waiting: deque[tuple[int, Callable[[], ReadyRows]]] = deque()
        for number, chunk in chunks:
            waiting.append((number, self._begin(chunk)))
            if not self._has_worker or len(waiting) >= self._depth:
                number, ready = waiting.popleft()
                yield number, ready()
        while waiting:
            number, ready = waiting.popleft()
            yield number, ready()

    def _begin(self, chunk: Sequence[RawRow]) -> Callable[[], ReadyRows]:
        if self._pool is None or not self._has_worker:
            ready = make_ready(self._prepare, chunk, *self._task)
            return lambda: ready
        future: Future[ReadyRows] = self._pool.submit(self._work, chunk)
        return future.result

    def _start(self, worker: Worker) -> None:
        try:
            worker.wait()
        finally:
            self._idle.put(worker)

    def _work(self, chunk: Sequence[RawRow]) -> ReadyRows:
        worker = self._idle.get()
        try:
            ready: ReadyRows = worker(chunk)
        finally:
            self._idle.put(worker)
        return ready

    @property
    def _has_worker(self) -> bool:
        """Whether a worker has started; raises the error of one that could not start."""
        if self._pool is None:
            return False
        started = [future for future in self._starting if future.done()]
        for future in started:
            future.result()
        return bool(started)

    def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            worker.end()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _setup(config: RetrieverConfig, max_length: int | None, skip: bool) -> Callable[[Sequence[RawRow]], ReadyRows]:
    """Return the function with which a worker prepares its chunks."""
    prepare = Preparer(config)
    return lambda rows: make_ready(prepare, rows, max_length, skip)
