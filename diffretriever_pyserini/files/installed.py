"""The folders that are installed with the package, but lie beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def installed_folder(name: str) -> Path:
    """Return ``docs``, ``examples`` or ``prebuilt_configs``: in the package, or beside it (editable, or PYTHONPATH)."""
    return _PACKAGE / name if (_PACKAGE / name).is_dir() else _PACKAGE.parent / name
