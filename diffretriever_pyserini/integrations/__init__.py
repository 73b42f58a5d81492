"""This package's models inside other libraries; each of these libraries is an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .mteb import MtebModel

_HOMES = {
    "MtebModel": "mteb",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
