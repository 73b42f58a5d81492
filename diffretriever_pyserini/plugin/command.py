"""The command of Pyserini that this process runs."""

from __future__ import annotations

import sys


def pyserini_command() -> str | None:
    """``pyserini.encode`` in ``python -m pyserini.encode``; None in any other program."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec is not None else ""
    return name if name.startswith("pyserini.") else None
