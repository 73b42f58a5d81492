"""Parsing, tokenising and word splitting, in worker processes that stay ahead of the model."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from ..collections.corpus import RawRow, parse_row
from ..config import RetrieverConfig
from ..errors import DiffRetrieverError, InputError
from ..preparation import Prepared, Preparer

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
        texts.append(passage.text)
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
        self._pool: ProcessPoolExecutor | None = None
        if workers:
            context = multiprocessing.get_context("spawn")  # a fork would inherit the model's threads half-way
            self._pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(prepare.config,))
            self._started = self._pool.submit(_nothing)

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
        try:
            for number, chunk in chunks:
                waiting.append((number, self._begin(chunk)))
                if not self._workers_run or len(waiting) >= self._room:
                    number, ready = waiting.popleft()
                    yield number, ready()
            while waiting:
                number, ready = waiting.popleft()
                yield number, ready()
        except BrokenProcessPool as error:
            raise DiffRetrieverError(
                "a worker process that prepares texts died (out of memory? or a script that calls this without "
                "`if __name__ == '__main__':`?); try fewer --workers, or --workers 0."
            ) from error

    def _begin(self, chunk: Sequence[RawRow]) -> Callable[[], ReadyRows]:
        if self._pool is None or not self._workers_run:
            ready = make_ready(self._prepare, chunk, *self._task)
            return lambda: ready
        future: Future[ReadyRows] = self._pool.submit(_work, chunk, *self._task)
        return future.result

    @property
    def _workers_run(self) -> bool:
        return self._pool is not None and self._started.done()

    def close(self) -> None:
        """Stop the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


_preparer: Preparer | None = None


def _start(config: RetrieverConfig) -> None:
    global _preparer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops the workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _preparer = Preparer(config)


def _end_with_parent() -> None:
    """A pool's workers would wait for ever, each with its tables, after a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _nothing() -> None:
    """The first task: it ends when a worker has started."""


def _work(rows: Sequence[RawRow], max_length: int | None, skip: bool) -> ReadyRows:
    assert _preparer is not None
    return make_ready(_preparer, rows, max_length, skip)
