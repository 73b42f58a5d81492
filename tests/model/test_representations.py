"""Impacts for Lucene from the weights."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from diffretriever_pyserini import Representations


class Letters:
    """A stub for TermNames: row 0 is "a"."""

    def name(self, row: int) -> str:
        return "abc"[row]


def test_impacts_are_plain_ints_in_order() -> None:
    weights = scipy.sparse.csr_matrix(np.array([[0, 7, 3], [0, 0, 0], [120_000, 0, 0]], dtype=np.int32))
    reps = Representations(np.zeros((3, 1, 2), np.float32), weights, Letters())
    assert reps.impacts == [{"b": 7, "c": 3}, {}, {"a": 120_000}]
    assert all(type(value) is int for impacts in reps.impacts for value in impacts.values())
    assert len(reps) == 3
    assert reps.pooled.shape == (3, 2)


def test_no_texts() -> None:
    reps = Representations(np.zeros((0, 4, 2), np.float32), scipy.sparse.csr_matrix((0, 3), dtype=np.int32), Letters())
    assert (len(reps), reps.pooled.shape, reps.impacts) == (0, (0, 2), [])
