"""Options of a search that have no effect in its mode."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..indexes.options import MultiOptions
from ..searching.options import SearchOptions

DEVICE = "cpu"
_OF_MODEL = ("encoder", "device", "dtype", "max_length", "k_query")
_OF_MULTI = ("candidates", "refine")
_OF_VECTORS = ("nprobe", "ef_search", "scan")
_OF_FUSION = ("alpha", "fusion", "depth", "rrf_k")
_DEFAULTS = {
    "device": DEVICE,
    "refine": MultiOptions.refine,
    "scan": False,
    "fusion": SearchOptions.fusion,
    "rrf_k": SearchOptions.rrf_k,
}


def note_unused(arguments: argparse.Namespace, folder: Any, of_vectors: Sequence[str]) -> None:
    """Print a note on each option, other than its default, that the search does not use.

    ``of_vectors`` are the signals that search pooled vectors.
    """
    mode = folder.mode(arguments.mode)
    signals = folder.signals(mode)
    for name in _unused(arguments, signals, of_vectors):
        option = f"--{name.replace('_', '-')}"
        print(f"note: {option} has no effect: mode {mode} searches {' and '.join(signals)}", file=sys.stderr)


def _unused(arguments: argparse.Namespace, signals: Sequence[str], of_vectors: Sequence[str]) -> Iterator[str]:
    users = (
        (_OF_MODEL, ("dense", "multi", "lexical")),
        (_OF_MULTI, ("multi",)),
        (_OF_VECTORS, of_vectors),
        (("alpha",), ("lexical",)),
        (_OF_FUSION, signals if len(signals) > 1 else ()),
    )
    idle = dict.fromkeys(name for names, some in users if not set(some) & set(signals) for name in names)
    return (name for name in idle if _changed(arguments, name))


def _changed(arguments: argparse.Namespace, name: str) -> bool:
    return getattr(arguments, name, None) not in (None, _DEFAULTS.get(name))
