"""Small stores, encoded once, and the small model that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.model.provenance import Provenance
from diffretriever_pyserini.model.representations import Representations
from diffretriever_pyserini.store.part import PartRows, write_part
from diffretriever_pyserini.store.spec import StoreSpec
from diffretriever_pyserini.store.store import ShardNote, Store

from ..encoding.conftest import passages, write_corpus
from ..model.conftest import one_thread, save_masked_lm

__all__ = ["one_thread"]


def made_up_provenance(k: int = 2, **changes: Any) -> Provenance:
    """The provenance of an encoder that does not exist."""
    layout = {"prefix": [2], "suffix": [3], "tail": [3], "k": k, "mask_id": 4, "pad_id": 0, "max_length": 64}
    values = {
        "encoder": "made-up",
        "weights": "f" * 64,
        "adapter_weights": None,
        "config": {"model_type": "bert"},
        "adapter_config": {},
        "tokenizer": {"model": "e" * 16},
        "query": layout,
        "passage": layout,
        "readout": {"impact_scale": 100, "denoising_steps": 1},
    }
    return Provenance(**values | changes)


SPEC = {
    "provenance": made_up_provenance(),
    "max_length": 64,
    "precision": "float32",
    "corpus": "none",
    "files": (),
}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random BERT with V = about 110 terms and H = 32."""
    folder = tmp_path_factory.mktemp("bert")
    save_masked_lm(folder)
    return str(folder)


@pytest.fixture(scope="session")
def model(encoder: str) -> DiffRetriever:
    """That model with K_p = 3."""
    return DiffRetriever.from_pretrained(encoder, k_passage=3)


@pytest.fixture(scope="session")
def store(model: DiffRetriever, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 120 passages in parts of 16; some have no terms."""
    folder = tmp_path_factory.mktemp("store")
    corpus = write_corpus(folder / "corpus.jsonl", passages(120))
    options = EncodeOptions(rows_per_part=16, workers=0, dtype="float32")
    encode_corpus(model, Corpus([corpus]), folder / "S", options)
    return Store(folder / "S")


def made_up_store(
    folder: Path,
    count: int = 700,
    dimension: int = 16,
    rows_per_part: int = 100,
    dtype: str = "float32",
    vectors: str = "all",
    terms: int = 40,
    docids: list[str] | None = None,
    seed: int = 5,
    most: int = 5,
    **changes: Any,
) -> Store:
    """A store of random vectors in ten loose clusters, K = 2, impacts of 1 to ``most``; every 50th has no terms.

    ``changes`` are fields of StoreSpec.
    """
    import scipy.sparse

    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((10, dimension))
    spec = StoreSpec(
        dimension=dimension,
        vocab_size=terms,
        vectors=vectors,
        dtype=dtype,
        rows_per_part=rows_per_part,
        **SPEC | changes,
    )
    spec.write(folder)
    docids = docids or [f"p{i}" for i in range(count)]
    for number, start in enumerate(range(0, count, rows_per_part)):
        n = min(rows_per_part, count - start)
        rows = centres[generator.integers(10, size=n), None] + 0.5 * generator.standard_normal((n, 2, dimension))
        rows /= np.linalg.norm(rows, axis=2, keepdims=True)
        weights = scipy.sparse.random(
            n, terms, 0.2, "csr", rng=generator, data_rvs=lambda m: generator.integers(1, most + 1, m)
        )
        keep = scipy.sparse.diags([float((start + i) % 50 != 3) for i in range(n)])
        weights = scipy.sparse.csr_matrix((keep @ weights).astype(np.int32))
        weights.eliminate_zeros()
        representations = Representations(rows.astype(np.float32), weights, None)  # type: ignore[arg-type]
        write_part(folder, spec, PartRows(number, n, docids[start : start + n]), representations)
    ShardNote(count, count, 0).write(folder, 0, 1)
    return Store(folder)


def all_pooled(store: Store) -> np.ndarray:
    """Return all pooled vectors of ``store``, float32 [N, H]."""
    return np.concatenate([part.pooled() for part in store.parts])
