"""Says at once what takes seconds, such as loading a model; commands show it on a terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_logger = logging.getLogger("diffretriever_pyserini.waiting")


def waiting_for(what: str) -> None:
    """Say ``what`` is about to begin. Only :func:`shown` shows it, or a program that shows logs of the level INFO."""
    _logger.info("%s", what)


@contextmanager
def shown(quiet: bool = False) -> Iterator[None]:
    """Show each on a line of standard error while the block runs, if that is a terminal and unless ``quiet``."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    handler, level = logging.StreamHandler(sys.stderr), _logger.level
    handler.setFormatter(logging.Formatter("%(message)s ..."))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
        _logger.setLevel(level)
