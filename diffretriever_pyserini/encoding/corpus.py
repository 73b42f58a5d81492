"""One pass over a corpus: rows in, parts of a store out, one forward pass a passage for both representations."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..collections.corpus import Corpus, RawRow
from ..errors import DiffRetrieverError, InputError, NumericalError
from ..preparation import Prepared, Ragged
from ..retriever import DiffRetriever
from ..store.files import held, only_writer
from ..store.part import Part, part_path, write_part
from ..store.reader import finish_shard
from ..store.spec import LOCKS, StoreSpec
from .ahead import Ahead, ReadyRows, chunks
from .progress import Progress

# Padded tokens of a batch: a GPU wants many at a time, a CPU what fits into its caches.
TOKEN_BUDGETS = {"cpu": 4096, "cuda": 65536}


@dataclass(frozen=True)
class EncodeOptions:
    """How a corpus is encoded.

    Attributes
    ----------
    shard, shards : this process takes every ``shards``-th part, from part ``shard`` on.
    rows_per_part, dtype, vectors : form of the store, see :class:`~diffretriever_pyserini.store.spec.StoreSpec`.
    on_error : ``stop`` at a bad row, or ``skip`` and list it in the part.
    max_length : tokens of prompt and text; it can only shorten the model's own.
    workers : processes that prepare texts; None chooses by the device.
    token_budget : padded tokens of a batch; None chooses by the device.
    verify : check the checksums of parts that are there already.
    """

    shard: int = 0
    shards: int = 1
    rows_per_part: int = 4096
    dtype: str = "float16"
    vectors: str = "all"
    on_error: str = "stop"
    max_length: int | None = None
    workers: int | None = None
    token_budget: int | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.shards:
            raise InputError(f"shard {self.shard} of {self.shards}: shards count from 0 to {self.shards - 1}.")
        if self.on_error not in ("stop", "skip"):
            raise InputError(f"on_error={self.on_error!r} is not one of 'stop', 'skip'.")
        for name in ("token_budget", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1.")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers={self.workers} must not be negative.")


@dataclass
class PartRows:
    """Rows of one part that are still to be encoded."""

    number: int
    rows: int
    docids: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    wheres: list[str] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)


def spec_for(model: DiffRetriever, corpus: Corpus, options: EncodeOptions) -> StoreSpec:
    """The spec of the store that ``model`` makes of ``corpus``."""
    config = model.config
    return StoreSpec(
        encoder=config.name,
        fingerprint=model.fingerprint,
        passage_fingerprint=model.passage_fingerprint,
        k_passage=config.k_passage,
        dimension=model.dimension,
        vocab_size=model.vocab_size,
        max_length=model.layout("passage", options.max_length).max_length,
        impact_scale=config.impact_scale,
        precision=str(model.dtype).removeprefix("torch."),
        vectors=options.vectors,
        dtype=options.dtype,
        rows_per_part=options.rows_per_part,
        corpus=corpus.identity(),
        files=corpus.files,
    )


def encode_corpus(
    model: DiffRetriever, corpus: Corpus, output: str | Path, options: EncodeOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Encode ``corpus`` into the store ``output``, or the parts of it that are missing; returns figures.

    Raises
    ------
    InputError
        For a bad row that is not to be skipped, with file and line.
    DiffRetrieverError
        For an output folder of another encoder or corpus, a second writer, or a disk that is full.
    """
    output = Path(output).expanduser()
    progress = progress or Progress(model)
    next(corpus.rows())  # a corpus that cannot be read should not leave a store behind
    spec = spec_for(model, corpus, options)
    what = f"{output}, shard {options.shard} of {options.shards},"
    try:
        spec.write(output)
        with only_writer(output / LOCKS / f"{options.shard:05d}-of-{options.shards:05d}", what):
            _refuse_other_shards(output, options.shards)
            return _encode(model, corpus, output, spec, options, progress)
    except (DiffRetrieverError, BrokenPipeError):  # OSErrors too, some of them, but none of the disk
        raise
    except OSError as error:
        raise DiffRetrieverError(
            f"{output}: cannot be written ({error.strerror or error}); what is there is whole. Mend that (make room?) "
            "and run the same command again: it goes on where it stopped."
        ) from error
    finally:
        progress.close()


def _refuse_other_shards(output: Path, shards: int) -> None:
    """Refuse to run beside a process that divides the same store otherwise: both would write the same parts."""
    for lock in sorted((output / LOCKS).glob("*-of-*")):
        if lock.name.rpartition("-")[2] != f"{shards:05d}" and held(lock):
            raise DiffRetrieverError(
                f"{output} is being written by a process with another number of shards than {shards} (it holds "
                f"{lock}); wait for it or stop it."
            )


def _encode(
    model: DiffRetriever,
    corpus: Corpus,
    output: Path,
    spec: StoreSpec,
    options: EncodeOptions,
    progress: Progress,
) -> dict[str, Any]:
    scan = _Scan(corpus, output, spec, options, progress)
    ahead = Ahead(model.prepare, options.max_length, options.on_error == "skip", _workers(model, options))
    budget = options.token_budget or TOKEN_BUDGETS.get(model.device.partition(":")[0], TOKEN_BUDGETS["cuda"])
    writer = _Writer(output, spec)
    try:
        for part in _parts(scan, ahead, progress):
            prepared = _concatenated(part.prepared)
            started = time.perf_counter()
            try:
                pooled = spec.vectors == "pooled"
                found = model.represent(prepared, token_budget=budget, tick=progress.tick, pooled=pooled)
            except NumericalError as error:
                raise NumericalError(f"{part.wheres[error.index or 0]}: {error}") from error
            progress.model(len(prepared), int(prepared.lengths.sum()), time.perf_counter() - started)
            with progress.waiting("write"):
                writer.put(part, found)
        with progress.waiting("write"):
            writer.close()
    finally:
        ahead.close()
        writer.abandon()
    finish_shard(output, options.shard, options.shards, scan.rows, scan.passages, scan.skipped)
    return progress.summary(
        rows=scan.rows, passages=scan.passages, skipped=scan.skipped, parts=scan.parts, kept=scan.kept
    )


def _workers(model: DiffRetriever, options: EncodeOptions) -> int:
    if options.workers is not None:
        return options.workers
    return 1 if model.device == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))


class _Scan:
    """The rows of this shard's missing parts, in order, and the count of everything that was passed."""

    def __init__(self, corpus: Corpus, output: Path, spec: StoreSpec, options: EncodeOptions, progress: Progress):
        self.corpus, self.output, self.spec, self.options, self.progress = corpus, output, spec, options, progress
        self.rows = self.passages = self.skipped = self.parts = self.kept = 0

    def __iter__(self) -> Iterator[tuple[int, list[RawRow]]]:
        """(part number, some of its rows)."""
        rows, size = self.corpus.rows(), self.spec.rows_per_part
        number = 0
        while True:
            ours = number % self.options.shards == self.options.shard
            kept = self._there(number) if ours else None
            if ours and kept is None:
                count = 0
                for chunk in chunks(islice(rows, size)):
                    count += len(chunk)
                    yield number, chunk
            else:
                count = sum(1 for _ in islice(rows, size))
            if kept is not None:
                self._keep(kept, count)
            self.rows += count
            self.parts += ours and count > 0
            if count < size:
                return
            number += 1

    def _there(self, number: int) -> Part | None:
        """Part ``number`` if it is on the disk and sound; a damaged one is named and removed."""
        part = Part(part_path(self.output, number), self.spec)
        if not part.path.is_file():
            return None
        try:
            if self.options.verify:
                part.verify()
            if part.header["part"] != number:
                raise InputError(f"{part.path}: holds part {part.header['part']}.")
        except InputError as error:
            self.progress.say(f"{error} Doing it again now.")
            part.path.unlink()
            return None
        return part

    def _keep(self, part: Part, rows: int) -> None:
        """Count ``part``, for which the corpus has ``rows`` rows now; another number than then is an error."""
        if part.header["rows"] != rows:
            raise InputError(
                f"{part.path} was made of {part.header['rows']} rows of the corpus, which has {rows} in that place "
                "now: the corpus has changed; encode it into another folder."
            )
        self.kept += 1
        self.count(len(part), len(part.header["skipped"]))
        self.progress.keep(len(part))

    def count(self, passages: int, skipped: int) -> None:
        self.passages += passages
        self.skipped += skipped


def _parts(scan: _Scan, ahead: Ahead, progress: Progress) -> Iterator[PartRows]:
    """Whole parts, ready for the model."""
    part: PartRows | None = None
    chunks = ahead(scan)
    while True:
        with progress.waiting("texts"):
            number, ready = next(chunks, (-1, None))
        if part is not None and part.number != number:
            yield _closed(part, scan)
            part = None
        if ready is None:
            return
        part = part or PartRows(number, 0)
        _add(part, ready)


def _add(part: PartRows, ready: ReadyRows) -> None:
    part.rows += len(ready.docids) + len(ready.skipped)
    part.docids += ready.docids
    part.wheres += ready.wheres
    part.skipped += ready.skipped
    part.prepared.append(ready.prepared)


def _closed(part: PartRows, scan: _Scan) -> PartRows:
    """``part`` with all its rows; an id that it holds twice is a bad row."""
    double = {docid for docid, count in Counter(part.docids).items() if count > 1}
    if double and scan.options.on_error == "stop":
        first = next(docid for docid in part.docids if docid in double)
        places = [where for where, docid in zip(part.wheres, part.docids, strict=True) if docid == first]
        raise InputError(f"{places[1]}: passage id {first!r} was seen before in {places[0]}; ids must be unique.")
    if double:
        _drop_repeats(part)
    scan.count(len(part.docids), len(part.skipped))
    return part


def _drop_repeats(part: PartRows) -> None:
    """Keep the first passage of each id; the others are skipped rows."""
    first: dict[str, str] = {}
    keep = []
    for i, (docid, where) in enumerate(zip(part.docids, part.wheres, strict=True)):
        if docid in first:
            part.skipped.append((where, f"{where}: passage id {docid!r} was seen before in {first[docid]}."))
        else:
            first[docid] = where
            keep.append(i)
    joined = _concatenated(part.prepared)
    part.prepared = [_chosen(joined, keep)]
    part.docids, part.wheres = [part.docids[i] for i in keep], [part.wheres[i] for i in keep]


def _concatenated(pieces: list[Prepared]) -> Prepared:
    content = None
    if pieces[0].content is not None:
        content = Ragged.joined([piece.content for piece in pieces if piece.content is not None])
    return Prepared(pieces[0].layout, Ragged.joined([piece.ids for piece in pieces]), content)


def _chosen(prepared: Prepared, places: list[int]) -> Prepared:
    content = None if prepared.content is None else Ragged.of([prepared.content[i] for i in places])
    return Prepared(prepared.layout, Ragged.of([prepared.ids[i] for i in places]), content)


class _Writer:
    """A thread that writes parts while the model goes on; its error is raised at the next part."""

    def __init__(self, output: Path, spec: StoreSpec):
        self._output, self._spec = output, spec
        self._queue: queue.Queue[tuple[PartRows, Any] | None] = queue.Queue(maxsize=1)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, part: PartRows, representations: Any) -> None:
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
