"""MaxSim cell by cell, and terms side by side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffretriever_pyserini import scoring
from diffretriever_pyserini.explaining.matches import mean_cosine, meet, overlap


@given(st.data())
def test_rows_add_up_to_maxsim(data: st.DataObject) -> None:
    numbers = st.floats(-1, 1, width=32)
    query = data.draw(arrays(np.float32, (data.draw(st.integers(1, 4)), 3), elements=numbers))
    passage = data.draw(arrays(np.float32, (data.draw(st.integers(1, 5)), 3), elements=numbers))
    met = meet(query, passage)
    assert met.score == pytest.approx(float(scoring.maxsim(query[None], passage[None])[0, 0]), abs=1e-5)
    assert sum(met.gains) == pytest.approx(met.score, abs=1e-5)
    for i, (best, gain) in enumerate(zip(met.best, met.gains, strict=True)):
        if best is None:
            assert gain == 0
        else:
            assert met.cells[i][best] == gain == max(met.cells[i])
            assert not met.empty_query[i] and not met.empty_passage[best]


def test_empty_vectors_meet_nothing() -> None:
    met = meet(np.array([[1.0, 0], [0, 0]]), np.array([[0.0, 0], [-1, 0], [0.5, 0]]))
    assert (met.best, met.gains) == ((2, None), (0.5, 0.0))
    assert (met.empty_query, met.empty_passage) == ((False, True), (True, False, False))
    below = meet(np.array([[1.0, 0]]), np.array([[0.0, 0], [-1, 0]]))
    assert (below.best, below.gains, below.score) == ((None,), (0.0,), 0.0)


def test_cosine_of_what_both_have() -> None:
    one, other = np.array([[1.0, 0], [0, 0]]), np.array([[2.0, 0], [0, 3]])
    assert mean_cosine(one, other) == 1
    assert mean_cosine(one, other[:1]) is None and mean_cosine(one[1:], other[1:]) is None


def test_terms_are_ordered_by_what_they_add() -> None:
    query, passage = {"a": 3, "b": 5, "c": 9, "d": 1}, {"b": 2, "a": 4, "x": 7, "y": 8, "z": 1}
    found = overlap(query, passage, str.upper, top=2)
    assert [(t.term, t.shown, t.share) for t in found.matched] == [("a", "A", 12), ("b", "B", 10)]
    assert found.score == 22
    assert [t.term for t in found.query_only] == ["c", "d"]
    assert found.passage_only is not None and [t.term for t in found.passage_only] == ["y", "x"]
    assert (found.query_terms, found.passage_terms) == (4, 5)
    assert overlap(query, passage, str, top=2, whole=False).passage_only is None
