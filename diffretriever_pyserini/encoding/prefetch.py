"""Parsing, tokenising and word splitting, in worker processes that stay ahead of the model."""

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

CHUNK = 256  # rows that a worker takes at a time
CHUNK_BYTES = 8 << 20  # fewer where they are long: some dozens of chunks are under way


def chunks(rows: Iterable[RawRow]) -> Iterator[list[RawRow]]:
    """``rows`` in lists of at most ``CHUNK`` rows, cut after the row that passes ``CHUNK_BYTES``."""
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
    """Some rows of the corpus, ready for the model: ids and prepared texts of the good ones, reasons for the others."""

    docids: list[str]
    wheres: list[str]
    prepared: Prepared
    skipped: list[tuple[str, str]]


def make_ready(prepare: Preparer, rows: Sequence[RawRow], max_length: int | None, skip: bool) -> ReadyRows:
    """Parse and prepare ``rows``; a bad one is an InputError, or with ``skip`` a reason among the skipped."""
    docids, wheres, texts, skipped = [], [], [], []
    for row in rows:
        try:
            passage = parse_row(row)
        except InputError as error:
            if not skip:
                raise InputError(f"{error} (--on-error skip leaves such rows out and lists them)") from error
            skipped.append((row.where, str(error)))
            continue
        docids.append(passage.docid)
        wheres.append(row.where)
        texts.append(passage.contents)
    return ReadyRows(docids, wheres, prepare(texts, "passage", max_length), skipped)


class Ahead:
    """Makes chunks of rows ready in ``workers`` processes, in order.

    With 0 workers, and until the first of them has started (some seconds), this process does it when asked.

    Parameters
    ----------
    prepare, max_length, skip : how texts are prepared, see :func:`make_ready`.
    workers : processes; each holds a tokenizer, the word tables and remembered words (200 to 300 MB).
    """

    def __init__(self, prepare: Preparer, max_length: int | None, skip: bool, workers: int):
        self._task = (max_length, skip)
        self._prepare = prepare
        self._room = 4 * workers + 2
        self._workers = [Worker(_setup, prepare.config, *self._task) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._pool: ThreadPoolExecutor | None = None  # a thread waits for each worker
        if workers:
            self._pool = ThreadPoolExecutor(workers)
            self._starting = [self._pool.submit(self._start, worker) for worker in self._workers]

    def __call__(self, chunks: Iterable[tuple[int, Sequence[RawRow]]]) -> Iterator[tuple[int, ReadyRows]]:
        """(part number, rows) made ready, in their order; a few are always under way.

        Raises
        ------
        InputError
            For a bad row that is not to be skipped.
        DiffRetrieverError
            When a worker process died.
        """
        waiting: deque[tuple[int, Callable[[], ReadyRows]]] = deque()
        for number, chunk in chunks:
            waiting.append((number, self._begin(chunk)))
            if not self._workers_run or len(waiting) >= self._room:
                number, ready = waiting.popleft()
                yield number, ready()
        while waiting:
            number, ready = waiting.popleft()
            yield number, ready()

    def _begin(self, chunk: Sequence[RawRow]) -> Callable[[], ReadyRows]:
        if self._pool is None or not self._workers_run:
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
    def _workers_run(self) -> bool:
        """Whether one of them has started. Raises what kept one from starting."""
        if self._pool is None:
            return False
        return len([start.result() for start in self._starting if start.done()]) > 0

    def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            worker.end()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _setup(config: RetrieverConfig, max_length: int | None, skip: bool) -> Callable[[Sequence[RawRow]], ReadyRows]:
    """In a worker: what makes its chunks ready."""
    prepare = Preparer(config)
    return lambda rows: make_ready(prepare, rows, max_length, skip)
