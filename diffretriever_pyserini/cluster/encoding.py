"""Encoding a corpus on a Ray cluster: each worker holds a model and encodes shards, as one process per shard would."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..encoding.options import EncodeOptions
from ..encoding.progress import Progress, total_figures
from ..errors import InputError
from .options import ClusterOptions
from .pool import Pool, View
from .ray import Need, connected, need_of
from .worker import Driver, logged, node, when_free

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever


@dataclass(frozen=True)
class EncodeTask:
    """What all workers need to encode shards of a corpus; paths are relative to the driver's folder.

    Attributes
    ----------
    encoder, device, dtype, k_passage : as for :meth:`DiffRetriever.from_pretrained`.
    corpus : files, folders or hub ids.
    options : of all shards; ``options.shards`` is their number.
    """

    encoder: str
    corpus: tuple[str, ...]
    output: str
    options: EncodeOptions
    device: str = "cpu"
    dtype: str | None = None
    k_passage: int | None = None
    driver: Driver = field(default_factory=Driver)

    @property
    def logs(self) -> Path:
        """The folder of logs, beside the store."""
        return Path(f"{self.output}.logs")

    def log(self, shard: int) -> Path:
        """Return the path of a shard's log."""
        return self.logs / f"{shard:05d}-of-{self.options.shards:05d}.log"


def encode_on_ray(
    task: EncodeTask, cluster: ClusterOptions, view: View
) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Encode the missing parts of all shards of ``task`` on a cluster.

    Returns
    -------
    The figures of all shards together, and those of each shard, as ``diffretriever encode --json`` prints them.

    Raises
    ------
    InputError
        For options that contradict each other.
    DiffRetrieverError
        If a shard fails (the message names its node and log), or the cluster cannot be reached.
    """
    from ..corpora.corpus import Corpus
    from ..model.encoder_names import parse_encoder_name
    from ..model.resolve import resolve_config

    if task.device != "cpu" and not cluster.gpus_per_worker:
        raise InputError(f"--device {task.device}: Ray gives workers no GPU without --gpus-per-worker 1; add it.")
    next(Corpus(task.corpus).rows())  # what cannot be read or loaded fails before a cluster starts
    resolve_config(parse_encoder_name(task.encoder).target)
    started = time.perf_counter()
    with connected(cluster.address):
        need = need_of(cluster, task.options.shards)
        pool = Pool(EncodeWorker, (_for(need, task),), need, view, "encoding", task.log)
        figures = pool.run(range(task.options.shards))
    _remove_empty(task.logs)
    return total_figures([*figures.values()], time.perf_counter() - started), figures


def _for(need: Need, task: EncodeTask) -> EncodeTask:
    """Return ``task`` with as many processes for texts as a worker has processors to spare."""
    if task.options.workers is not None:
        return task
    return replace(task, options=replace(task.options, workers=min(8, need.cpus - 1)))


def _remove_empty(folder: Path) -> None:
    """Remove the folder of logs unless a failure has left one."""
    try:
        folder.rmdir()
    except OSError:
        return


class EncodeWorker:
    """A process on a node that holds a model."""

    def __init__(self, task: EncodeTask):
        self._task = task
        self._model: DiffRetriever | None = None
        self._progress: _Reported | None = None

    def node(self) -> str:
        """Prepare for work, and return the name of the node and process."""
        self._task.driver.follow()
        return node()

    def run(self, shard: int) -> dict[str, Any]:
        """Encode what is missing of ``shard``; returns its figures."""
        from ..corpora.corpus import Corpus
        from ..encoding.job import encode_corpus

        task = self._task
        options = replace(task.options, shard=shard)
        with logged(task.log(shard)) as log:
            model = self._loaded()
            progress = self._progress = _Reported(model, True, log, shard, options.shards)
            return when_free(lambda: encode_corpus(model, Corpus(task.corpus), task.output, options, progress))

    def progress(self) -> dict[str, Any] | None:
        """Return how far the current shard is."""
        progress = self._progress
        if progress is None:
            return None
        return progress.state() | {"process": os.getpid(), "messages": progress.new_messages()}

    def _loaded(self) -> DiffRetriever:
        from ..model.encoder_names import parse_encoder_name
        from ..model.retriever import DiffRetriever

        if self._model is None:
            task = self._task
            self._model = DiffRetriever.from_pretrained(
                parse_encoder_name(task.encoder).target, device=task.device, dtype=task.dtype, k_passage=task.k_passage
            )
        return self._model


class _Reported(Progress):
    """The progress of a shard, whose messages the driver shows."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._messages: list[str] = []

    def say(self, text: str) -> None:
        """Keep a message for the driver."""
        self._messages.append(text)

    def new_messages(self) -> Sequence[str]:
        """Return the messages since the last call."""
        messages, self._messages = self._messages, []
        return messages
