"""Stores of random vectors that are similar within a passage, as those of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from diffretriever_pyserini.indexes.multivector.build import MultiBuild, MultiJob
from diffretriever_pyserini.indexes.multivector.index import CompressedIndex
from diffretriever_pyserini.model.representations import Representations
from diffretriever_pyserini.store.part import PartRows, write_part
from diffretriever_pyserini.store.spec import StoreSpec
from diffretriever_pyserini.store.store import ShardNote, Store

from ...model.conftest import one_thread
from ..conftest import SPEC, made_up_provenance

__all__ = ["one_thread"]


def made_up_vectors(count: int, k: int = 4, width: int = 32, seed: int = 5, empty: float = 0.0) -> np.ndarray:
    """float32 [count, k, width]: positions near passages near topics; a share ``empty`` of the positions is zero."""
    generator = np.random.default_rng(seed)
    topics = np.random.default_rng(1).standard_normal((20, width)) * np.linspace(1.5, 0.3, width)
    passages = topics[generator.integers(20, size=count)] + 0.7 * generator.standard_normal((count, width))
    vectors = passages[:, None] + 0.3 * generator.standard_normal((count, k, width)) * np.linspace(1.5, 0.3, width)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[generator.random((count, k)) < empty] = 0
    return vectors.astype(np.float32)


def write_store(
    folder: Path, vectors: np.ndarray, docids: Sequence[str] | None = None, dtype: str = "float32", rows: int = 100
) -> Store:
    """A store of ``vectors`` [n, K, H] without terms, in parts of ``rows``."""
    count, k, width = vectors.shape
    values = SPEC | {"dimension": width, "vocab_size": 9, "vectors": "all", "dtype": dtype}
    spec = StoreSpec(**values | {"provenance": made_up_provenance(k)}, rows_per_part=rows)
    spec.write(folder)
    docids = docids or [f"p{i}" for i in range(count)]
    for number, start in enumerate(range(0, count, rows)):
        batch = vectors[start : start + rows]
        no_terms = scipy.sparse.csr_matrix((len(batch), 9), dtype=np.int32)
        representations = Representations(batch, no_terms, None)  # type: ignore[arg-type]
        write_part(folder, spec, PartRows(number, len(batch), list(docids[start : start + rows])), representations)
    ShardNote(count, count, 0).write(folder, 0, 1)
    return Store(folder)


def built(store: Store, folder: Path, **options: object) -> CompressedIndex:
    """Build and open the index of ``store``."""
    MultiJob(store, MultiBuild(**options), folder.with_name(f"{folder.name}.work")).build(folder)
    return CompressedIndex(folder)


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    """1,000 passages of four vectors; a tenth of the positions is empty."""
    return made_up_vectors(1000, empty=0.1)


@pytest.fixture(scope="session")
def store(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of ``vectors``."""
    return write_store(tmp_path_factory.mktemp("vectors") / "S", vectors)


@pytest.fixture(scope="session")
def queries() -> list[np.ndarray]:
    """Thirty queries of three vectors; the last has an empty position, and one has no vector."""
    queries = made_up_vectors(30, k=3, seed=77)
    queries[-1, 1] = 0
    queries[-2] = 0
    return list(queries)
