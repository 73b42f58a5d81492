"""The recorded cases: texts, checkpoints and tensors of the published implementation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever

BASES = ("tiny-dream", "tiny-llada")
SIDES = {"q": "query", "p": "passage"}


def side_and_k(key: str) -> tuple[str, int]:
    """("query", 4) for "q_k4"."""
    side, k = key.split("_k")
    return SIDES[side], int(k)


class Goldens:
    """Everything in the conformance folder, loaded once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.texts: list[str] = json.loads((folder / "texts.json").read_text())["texts"]
        self.case = cache(self._case)
        self.facts = cache(self._facts)
        self._models: dict[tuple, DiffRetriever] = {}

    def _case(self, name: str) -> dict[str, np.ndarray]:
        import torch
        from safetensors.torch import load_file

        tensors = load_file(self.folder / "cases" / f"{name}.safetensors")
        return {k: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for k, t in tensors.items()}

    def _facts(self, name: str):
        return json.loads((self.folder / "cases" / f"{name}.json").read_text())

    def model(self, name: str, setting: str, **overrides) -> DiffRetriever:
        """Checkpoint ``name`` with K of ``setting`` ("q_k4") on both sides."""
        _, k = side_and_k(setting)
        overrides = {"max_length": 128, "k_query": k, "k_passage": k} | overrides
        key = (name, *sorted(overrides.items()))
        if key not in self._models:
            self._models[key] = DiffRetriever.from_pretrained(self.folder / "checkpoints" / name, **overrides)
        return self._models[key]


@pytest.fixture(scope="session")
def goldens(conformance_dir: Path) -> Goldens:
    return Goldens(conformance_dir)


def dense_rows(indices: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """[N, V] from the padded lists of indices and values of a case; index -1 and value 0 are padding."""
    full = np.zeros((len(indices), width), dtype=np.float64)
    for row, (ids, amounts) in enumerate(zip(indices, values, strict=True)):
        used = (ids >= 0) & (amounts != 0)
        full[row, ids[used]] = amounts[used]
    return full
