"""The options of running shards on a Ray cluster."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Annotated, Any

from ..errors import InputError
from ..settings import AboveZero, Count, Help, add_options, from_arguments, validate

LOCAL = "local"


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster runs the shards, and what each worker takes. Invalid values raise InputError.

    Attributes
    ----------
    address : of the cluster as Ray takes it; ``local`` starts one on this machine, which ends with the command.

    Examples
    --------
    >>> from diffretriever_pyserini.cluster.options import ClusterOptions
    >>> ClusterOptions(gpus_per_worker=1).address
    'local'
    """

    address: str = LOCAL
    gpus_per_worker: Annotated[AboveZero | None, Help("GPUs of a worker", "N", default="none")] = None
    cpus_per_worker: Annotated[
        Count | None,
        Help("processors of a worker, and its threads", default="so many that the cluster runs all shards at once"),
    ] = None

    def __post_init__(self) -> None:
        validate(self, InputError)


def add_ray_options(parser: Any, gpus: bool = False) -> None:
    """Add ``--ray`` and the options of workers to a command."""
    group = parser.add_argument_group("Ray cluster")
    group.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="run shards on a Ray cluster: auto (the one of this machine) or HOST:PORT; alone: start one here",
    )
    add_options(group, ClusterOptions, skip=() if gpus else ("gpus_per_worker",))


def cluster_options(arguments: argparse.Namespace) -> ClusterOptions | None:
    """Return the options of the cluster that ``--ray`` names, None without it.

    Raises
    ------
    InputError
        For an option of workers without ``--ray``.
    """
    if arguments.ray is not None:
        options: ClusterOptions = from_arguments(ClusterOptions, arguments, address=arguments.ray)
        return options
    for name in ("gpus_per_worker", "cpus_per_worker"):
        if getattr(arguments, name, None) is not None:
            raise InputError(f"--{name.replace('_', '-')} belongs to --ray: add it.")
    return None
