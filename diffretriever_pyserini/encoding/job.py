"""One pass over a corpus, from rows to parts of a store: one forward pass per passage for both representations."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpora.corpus import Corpus, RawRow
from ..errors import DiffRetrieverError, NumericalError
from ..files.atomic import held, only_writer
from ..files.outputs import real_target, refuse_inputs
from ..model.representations import Representations
from ..model.retriever import DiffRetriever
from ..runtime.threads import processors
from ..store.begin import begun
from ..store.part import Part, part_path, write_part
from ..store.spec import LOCKS, StoreSpec
from .finish import finish
from .options import EncodeOptions
from .parts import ReadyPart, UniqueIds, gathered_parts
from .prefetch import Prefetcher
from .progress import Progress
from .scan import Scan

__all__ = ["EncodeOptions", "EncodingJob", "encode_corpus", "spec_for"]

# Tokens per batch: enough to fill the device, and few enough for its memory and a processor's cache.
TOKEN_BUDGETS = {"cpu": 1024, "cuda": 16384}


def spec_for(model: DiffRetriever, corpus: Corpus, options: EncodeOptions) -> StoreSpec:
    """Return the spec of the store that ``model`` makes of ``corpus``."""
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
        files=corpus.locations,
    )


def encode_corpus(
    model: DiffRetriever,
    corpus: Corpus,
    output: str | Path,
    options: EncodeOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Encode ``corpus`` into the store ``output``, or the parts of it that are missing.

    Parameters
    ----------
    model, corpus : what encodes, and what is encoded.
    output : folder of the store; a second run into it encodes what the first left.
    options : how; None is all vectors in float16, as one shard.
    progress : shows what is done; None is a bar on a terminal.

    Returns
    -------
    Counts (passages, skipped rows, parts), rates and times, as the last line of ``diffretriever encode --json``.

    Raises
    ------
    InputError
        For a bad row or an id that occurs twice, with file and line, unless such rows are skipped.
    DiffRetrieverError
        For an output folder of another encoder or corpus, a second writer, or a full disk.

    Examples
    --------
    >>> from pathlib import Path
    >>> from diffretriever_pyserini import Corpus, DiffRetriever, encode_corpus
    >>> rows = '{"id": "p1", "contents": "Masks follow the text."}\\n{"id": "p2", "contents": "Paris is in France."}\\n'
    >>> _ = Path("corpus.jsonl").write_text(rows)
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> figures = encode_corpus(model, Corpus("corpus.jsonl"), "store")
    >>> figures["passages"], figures["skipped"]
    (2, 0)
    """
    options = options or EncodeOptions()
    refuse_inputs({"--output": output}, {"--corpus": corpus.folders})
    output = Path(output).expanduser()
    if output.is_symlink():
        output = real_target(output)  # the folder of the target may not exist yet
    progress = progress or Progress(model, shard=options.shard, shards=options.shards)
    job = EncodingJob(model, corpus, output, spec_for(model, corpus, options), options, progress)
    try:
        rows = corpus.rows()
        rows = itertools.chain((next(rows),), rows)  # a corpus that cannot be read must not leave a folder
        with begun(output, job.spec):
            return job.run(rows)
    except (DiffRetrieverError, BrokenPipeError):  # some of ours are OSErrors too, but not of the disk
        raise
    except OSError as error:
        raise DiffRetrieverError(
            f"{output}: cannot be written ({error.strerror or error}). The parts written so far are complete: correct "
            "that (free some space?) and run the same command again to continue."
        ) from error
    finally:
        progress.close()


@dataclass(frozen=True)
class EncodingJob:
    """The encoding of one shard of a corpus into a store: what all steps need."""

    model: DiffRetriever
    corpus: Corpus
    output: Path
    spec: StoreSpec
    options: EncodeOptions
    progress: Progress

    @property
    def skip(self) -> bool:
        """Whether bad rows are skipped and listed, rather than an error."""
        return self.options.on_error == "skip"

    @property
    def all_shards(self) -> EncodingJob:
        """The same job for all shards at once, without verifying existing parts."""
        return replace(self, options=replace(self.options, shard=0, shards=1, verify=False))

    def part(self, number: int) -> Part:
        """Return part ``number``, which may not exist yet."""
        return Part(part_path(self.output, number), self.spec)

    def lock(self, shard: int) -> Path:
        """Return the lock file of a shard's writer."""
        return self.output / LOCKS / f"{shard:05d}-of-{self.options.shards:05d}"

    def run(self, rows: Iterable[RawRow]) -> dict[str, Any]:
        """Encode the missing parts of the shard and finish it; ``rows`` are the whole corpus. Returns the summary."""
        shard, shards = self.options.shard, self.options.shards
        with only_writer(self.lock(shard), f"{self.output}, shard {shard} of {shards},"):
            self.spec.write(self.output)
            self.refuse_other_shards()
            scan = self.encode_missing(rows)
        note = finish(self, scan.rows)
        counts = {"rows": scan.rows, "passages": note.passages, "skipped": note.skipped}
        return self.progress.summary(**counts, parts=scan.parts, kept=scan.kept)

    def refuse_other_shards(self, own_locks: Collection[Path] = ()) -> None:
        """Raise an error if a process writes the same store in another number of shards, as both write the same parts.

        ``own_locks`` are lock files that this process holds.
        """
        for lock in sorted((self.output / LOCKS).glob("*-of-*")):
            same = lock in own_locks or lock.name.rpartition("-")[2] == f"{self.options.shards:05d}"
            if not same and held(lock):
                raise DiffRetrieverError(
                    f"{self.output} is being written by a process with another number of shards than "
                    f"{self.options.shards} (it holds {lock}); wait for it or stop it."
                )

    def encode_missing(self, rows: Iterable[RawRow]) -> Scan:
        """Encode and write the shard's missing parts; returns the scan with the counts of the corpus."""
        ids = UniqueIds(self.corpus, self.skip)
        scan = Scan(self, rows, ids)
        prefetcher = Prefetcher(self.model.prepare, self.options.max_length, self.skip, self._workers())
        writing: Future[Path] | None = None
        with contextlib.closing(prefetcher), ThreadPoolExecutor(1, "store-writer") as writer:
            for part in self._unique(gathered_parts(prefetcher(scan)), ids):
                part.digest = scan.digests.pop(part.number)
                representations = self._represented(part)
                with self.progress.waiting("write"):
                    if writing is not None:
                        writing.result()  # raises its error before the next part is written
                    writing = writer.submit(write_part, self.output, self.spec, part, representations)
            with self.progress.waiting("write"):
                if writing is not None:
                    writing.result()
        return scan

    def _unique(self, parts: Iterator[ReadyPart], ids: UniqueIds) -> Iterator[ReadyPart]:
        """Yield ``parts`` without the passages whose ids were seen before."""
        while True:
            with self.progress.waiting("texts"):
                part = next(parts, None)
            if part is None:
                return
            ids.apply(part)
            yield part

    def _represented(self, part: ReadyPart) -> Representations:
        prepared = part.prepared()
        device = self.model.device.partition(":")[0]
        budget = self.options.token_budget or TOKEN_BUDGETS.get(device, TOKEN_BUDGETS["cuda"])
        pooled = self.spec.vectors == "pooled"
        started = time.perf_counter()
        try:
            result = self.model.represent(prepared, token_budget=budget, tick=self.progress.tick, pooled=pooled)
        except NumericalError as error:
            raise NumericalError(f"{part.locations[error.index or 0]}: {error}") from error
        self.progress.model(part.rows, len(prepared), int(prepared.lengths.sum()), time.perf_counter() - started)
        return result

    def _workers(self) -> int:
        if self.options.workers is not None:
            return self.options.workers
        return 1 if self.model.device == "cpu" else max(1, min(8, processors() - 1))
