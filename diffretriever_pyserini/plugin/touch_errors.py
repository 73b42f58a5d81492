"""The touch point that prints our errors in Pyserini's commands as one sentence, as `diffretriever` does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType

from ..errors import DiffRetrieverError, sentence, trace_wanted
from .command import pyserini_command


def say_plainly() -> Callable[[], None]:
    """Replace ``sys.excepthook`` by one that prints a :class:`DiffRetrieverError` without its traceback.

    Only in ``python -m pyserini...``, and only unless DIFFRETRIEVER_TRACEBACK is set; other programs keep tracebacks.
    """
    original = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        command = pyserini_command()
        if command is not None and isinstance(error, DiffRetrieverError) and not trace_wanted():
            print(f"{command}: error: {sentence(error)}", file=sys.stderr)
        else:
            original(kind, error, trace)

    sys.excepthook = hook

    def undo() -> None:
        if sys.excepthook is hook:
            sys.excepthook = original

    return undo
