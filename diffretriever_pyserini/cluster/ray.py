"""A connection to Ray: starting or joining a cluster, what its nodes have, and what a worker needs of them."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

from ..errors import DiffRetrieverError, InputError, reason
from ..runtime.threads import processors
from .options import LOCAL, ClusterOptions

_OBJECT_BYTES = 256 << 20  # shared memory of a local cluster: queries and hits are small
PATIENCE_SECONDS = 20
_REACH_SECONDS = 10
_GPU, _CPU = "GPU", "CPU"
# Ray reads them when it is imported. Its handler of SIGSEGV would replace that of a JVM, which needs its own.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Start (``local``) or join the Ray cluster ``address``, unless this process has done so; it ends with the block.

    Raises
    ------
    DiffRetrieverError
        If Ray is not installed, or the cluster cannot be reached.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise DiffRetrieverError("--ray needs Ray: pip install 'diffretriever-pyserini[ray]'.") from error

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        options |= {"include_dashboard": False, "num_cpus": processors(), "object_store_memory": _OBJECT_BYTES}
    with contextlib.redirect_stdout(cast(IO[str], _WithoutRay(sys.stdout))):
        try:
            _reach(address)
            ray.init(address=address, **options)
        except Exception as error:
            raise DiffRetrieverError(
                f"--ray {address}: no connection to a Ray cluster ({reason(error)}). `ray status` on one of its "
                "machines says whether it runs and which token it asks for; --ray alone starts one on this machine."
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise an error unless something listens at ``HOST:PORT``: Ray tries for 14 minutes."""
    if "://" in address:
        raise ValueError("an address is auto or HOST:PORT; run the command on a node of the cluster")
    machine, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((machine.strip("[]"), int(port)), _REACH_SECONDS).close()


class _WithoutRay:
    """Standard output for all but Ray's own threads.

    They print long reports of every dead worker there; our messages name it in a sentence.
    """

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text`` unless a thread of Ray calls."""
        return len(text) if threading.current_thread().name.startswith("ray_") else self._stream.write(text)


@dataclass(frozen=True)
class Need:
    """What a worker takes of a node: ``cpus`` processors, which are also its threads, and ``gpus``."""

    cpus: int
    gpus: float = 0

    def __str__(self) -> str:
        cpus = f"{self.cpus} processor{'s' if self.cpus > 1 else ''}"
        return f"{cpus} and {self.gpus:g} GPU{'s' if self.gpus != 1 else ''}" if self.gpus else cpus

    def workers(self, nodes: Sequence[dict[str, float]]) -> int:
        """Return how many workers fit on ``nodes`` at once."""
        return sum(self._on(node) for node in nodes)

    def _on(self, node: dict[str, float]) -> int:
        fit = node.get(_CPU, 0) // self.cpus
        return int(min(fit, node.get(_GPU, 0) // self.gpus) if self.gpus else fit)


def nodes() -> list[dict[str, float]]:
    """Return the resources of each node of the cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def remote(kind: type, need: Need, **options: Any) -> Any:
    """Return the class ``kind`` as one of actors on the cluster, each of which takes what it needs."""
    import ray

    decorator: Any = ray.remote
    return decorator(num_cpus=need.cpus, num_gpus=need.gpus, **options)(kind)


def started(references: Sequence[Any]) -> list[Any]:
    """Return the answers of workers that are to start; says so if the cluster lets them wait."""
    import ray

    _, waiting = ray.wait(list(references), num_returns=len(references), timeout=PATIENCE_SECONDS)
    if waiting:
        print(
            f"{len(waiting)} workers wait for free nodes of the cluster (`ray status` shows what is used).",
            file=sys.stderr,
        )
    return ray.get(list(references))


def need_of(options: ClusterOptions, shards: int) -> Need:
    """Return what a worker takes of a node.

    By default all ``shards`` run at once, or as many as there are GPUs (else processors), and share the processors.

    Raises
    ------
    InputError
        If no node of a local cluster has so much.
    """
    machines, gpus = nodes(), options.gpus_per_worker or 0
    cpus = options.cpus_per_worker
    if cpus is None:
        most = Need(1, gpus).workers(machines)
        wanted = max(1, min(shards, most))
        largest = int(max((node.get(_CPU, 0) for node in machines), default=1))
        cpus = next((c for c in range(largest, 1, -1) if Need(c, gpus).workers(machines) >= wanted), 1)
    need = Need(cpus, gpus)
    if options.address == LOCAL and not need.workers(machines):
        has = machines[0]
        raise InputError(
            f"a worker takes {need}, but Ray sees {has.get(_CPU, 0):g} processors and {has.get(_GPU, 0):g} GPUs on "
            "this machine: reduce --cpus-per-worker or --gpus-per-worker."
        )
    return need
