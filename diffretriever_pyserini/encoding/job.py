"""One pass over a corpus: rows in, parts of a store out, one forward pass a passage for both representations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..corpora.corpus import Corpus, RawRow
from ..errors import DiffRetrieverError, NumericalError
from ..files.atomic import held, only_writer
from ..model.retriever import DiffRetriever
from ..runtime.threads import processors
from ..store.begin import begun
from ..store.spec import LOCKS, StoreSpec
from .finish import ShardEnd, finish, shard_lock
from .options import EncodeOptions
from .parts import PartRows, UniqueIds, gathered
from .prefetch import Ahead
from .progress import Progress
from .scan import Scan
from .writer import PartWriter

__all__ = ["EncodeOptions", "encode_corpus", "spec_for"]

# Tokens of a batch: enough to fill the device, and few enough for its memory and a processor's cache.
TOKEN_BUDGETS = {"cpu": 1024, "cuda": 16384}


def spec_for(model: DiffRetriever, corpus: Corpus, options: EncodeOptions) -> StoreSpec:
    """The spec of the store that ``model`` makes of ``corpus``."""
    return StoreSpec(
        provenance=model.provenance,
        dimension=model.dimension,
        vocab_size=model.vocab_size,
        max_length=model.layout("passage", options.max_length).max_length,
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

    A run that ends with an error before it has written a part leaves nothing behind.

    Raises
    ------
    InputError
        For a bad row or an id that occurs twice, unless such rows are to be skipped, with file and line.
    DiffRetrieverError
        For an output folder of another encoder or corpus, a second writer, or a disk that is full.
    """
    output = Path(output).expanduser()
    progress = progress or Progress(model, shard=options.shard, shards=options.shards)
    spec = spec_for(model, corpus, options)
    try:
        rows = corpus.rows()
        rows = itertools.chain((next(rows),), rows)  # a corpus that cannot be read should not make a folder
        with begun(output, spec):
            return _encode(model, corpus, rows, output, spec, options, progress)
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
    rows: Iterable[RawRow],
    output: Path,
    spec: StoreSpec,
    options: EncodeOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Encode the missing parts of a shard and finish it; returns figures."""
    skip = options.on_error == "skip"

    def encode_missing(rows: Iterable[RawRow], options: EncodeOptions) -> Scan:
        ids = UniqueIds(corpus, skip)
        scan = Scan(rows, output, spec, options, ids, progress)
        _encode_missing(model, output, spec, options, scan, ids, progress)
        return scan

    what = f"{output}, shard {options.shard} of {options.shards},"
    with only_writer(shard_lock(output, options.shard, options.shards), what):
        spec.write(output)
        _refuse_other_shards(output, options.shards)
        scan = encode_missing(rows, options)
    end = ShardEnd(output, spec, options.shard, options.shards, scan.rows)
    everything = replace(options, shard=0, shards=1, verify=False)
    passages, skipped = finish(end, corpus, skip, lambda: encode_missing(corpus.rows(), everything), progress)
    return progress.summary(rows=scan.rows, passages=passages, skipped=skipped, parts=scan.parts, kept=scan.kept)


def _encode_missing(
    model: DiffRetriever,
    output: Path,
    spec: StoreSpec,
    options: EncodeOptions,
    scan: Scan,
    ids: UniqueIds,
    progress: Progress,
) -> None:
    """The parts that ``scan`` finds missing, through the model and to the disk."""
    ahead = Ahead(model.prepare, options.max_length, options.on_error == "skip", _workers(model, options))
    budget = options.token_budget or TOKEN_BUDGETS.get(model.device.partition(":")[0], TOKEN_BUDGETS["cuda"])
    writer = PartWriter(output, spec)
    parts = gathered(ahead(scan))
    try:
        while (part := _next(parts, ids, progress)) is not None:
            prepared = part.prepared()
            started = time.perf_counter()
            try:
                pooled = spec.vectors == "pooled"
                found = model.represent(prepared, token_budget=budget, tick=progress.tick, pooled=pooled)
            except NumericalError as error:
                raise NumericalError(f"{part.wheres[error.index or 0]}: {error}") from error
            progress.model(part.rows, len(prepared), int(prepared.lengths.sum()), time.perf_counter() - started)
            with progress.waiting("write"):
                writer.put(part, found)
        with progress.waiting("write"):
            writer.close()
    finally:
        ahead.close()
        writer.abandon()


def _next(parts: Iterator[PartRows], ids: UniqueIds, progress: Progress) -> PartRows | None:
    """The next part, without ids that were seen before; None at the end."""
    with progress.waiting("texts"):
        part = next(parts, None)
    if part is not None:
        ids.apply(part)
    return part


def _workers(model: DiffRetriever, options: EncodeOptions) -> int:
    if options.workers is not None:
        return options.workers
    return 1 if model.device == "cpu" else max(1, min(8, processors() - 1))
