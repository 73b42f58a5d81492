"""What the shards of a collection share: quantisers trained on a sample of all, so equal vectors get equal codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store.store import Store
from .faiss import DensePlan, trained_index

DENSE_QUANTISER = "dense.empty"


@dataclass(frozen=True)
class Trained:
    """Quantisers in ``folder``, trained for a collection of ``passages``."""

    folder: Path
    passages: int


def dense_index(plan: DensePlan, store: Store, gpu: bool, trained: Trained | None) -> Any:
    """Return the FAISS index of ``plan``, empty, and trained on ``store`` or as ``trained``."""
    import faiss

    if trained is None or not plan.sample:
        return trained_index(plan, store, gpu)
    return faiss.read_index(str(trained.folder / DENSE_QUANTISER))
