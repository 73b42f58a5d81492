"""Fine-tuning (docs/method.md §6): data, losses, the trained module, the trainer, negative mining and plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import names_of

if TYPE_CHECKING:
    from .run import train
    from .settings import TrainSettings, read_settings

_HOMES = {
    "TrainSettings": "settings",
    "read_settings": "settings",
    "train": "run",
}
__all__ = [*_HOMES]
__getattr__, __dir__ = names_of(__name__, _HOMES)
