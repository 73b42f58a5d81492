"""Beyond one machine: Ray runs shards of encoding, indexing and searching (extra ``ray``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .encoding import EncodeTask, encode_on_ray
    from .indexing import build_on_ray
    from .options import ClusterOptions
    from .searching import open_on_ray

_HOMES = {
    "ClusterOptions": "options",
    "EncodeTask": "encoding",
    "build_on_ray": "indexing",
    "encode_on_ray": "encoding",
    "open_on_ray": "searching",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
