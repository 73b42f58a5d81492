"""Progress of building an index, as bars on a terminal unless the caller shows it elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Bar(Protocol):
    """The progress of one step."""

    def update(self, n: int) -> Any:
        """Count ``n`` more passages."""


Bars = Callable[[str, int], AbstractContextManager[Bar]]
"""Begins a step, given its name and its number of passages."""


def terminal_bars(quiet: bool = False, prefix: str = "") -> Bars:
    """Return bars on a terminal; ``prefix`` comes before the names of the steps."""

    def begin(name: str, passages: int) -> AbstractContextManager[Bar]:
        from tqdm.auto import tqdm

        description = f"{prefix}{name.lower()}" if prefix else name
        return tqdm(total=passages, unit=" passages", desc=description, disable=True if quiet else None)

    return begin


NO_BARS = terminal_bars(quiet=True)
