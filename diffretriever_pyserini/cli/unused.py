"""Options of a search that have no effect in its mode."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..indexes.options import MultiOptions

DEVICE = "cpu"
_OF_MODEL = ("encoder", "device", "dtype", "max_length", "k_query")
_OF_MULTI = ("candidates", "refine")
_OF_VECTORS = ("nprobe", "ef_search", "scan")
_DEFAULTS = {"device": DEVICE, "refine": MultiOptions.refine, "scan": False}


def refuse_unused(arguments: argparse.Namespace, folder: Any, of_vectors: Sequence[str]) -> None:
    """Raise InputError for an option, other than its default, that no signal of the search uses.

    SearchOptions checks its own. ``of_vectors`` are the signals that search pooled vectors.
    """
    mode = folder.mode(arguments.mode)
    signals = folder.signals(mode)
    for names, users in (
        (_OF_MODEL, ("dense", "multi", "lexical")),
        (_OF_MULTI, ("multi",)),
        (_OF_VECTORS, of_vectors),
    ):
        given = [name for name in names if getattr(arguments, name, None) not in (None, _DEFAULTS.get(name))]
        if given and not set(users) & set(signals):
            option = f"--{given[0].replace('_', '-')}"
            raise InputError(f"{option} has no effect: mode {mode} searches {' and '.join(signals)}.")
