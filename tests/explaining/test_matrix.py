"""Rows and columns of mask positions that say the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffretriever_pyserini.explaining.evidence import interaction
from diffretriever_pyserini.explaining.matrix import merged

X, Y = [1.0, 0.0], [0.0, 1.0]


def test_positions_that_say_the_same_are_one_row() -> None:
    query, passage = np.array([X, [1, 0.1], Y, X]), np.array([Y, [0, 0], X, [0.5, 0], [0, 0]])
    first, second = merged(interaction(query, passage))
    assert (first.name, second.name) == ("q1–q2, q4", "q3")
    assert (first.adds, second.adds) == (pytest.approx(3), 1)
    assert [cell.name for cell in first.cells] == ["p1", "p2, p5", "p3–p4"]
    # The mean over the rows of the largest of the columns.
    assert [cell.value for cell in first.cells] == [pytest.approx(0.1 / 3), None, pytest.approx(1)]
    assert [cell.best for cell in first.cells] == [False, False, True]
    assert [cell.best for cell in second.cells] == [True, False, False]


def test_empty_positions_are_one_row() -> None:
    rows = merged(interaction(np.array([X, [0, 0], [0, 0]]), np.array([X])))
    assert [(row.name, row.empty, row.adds) for row in rows] == [("q1", False, 1), ("q2–q3", True, 0)]
    assert rows[1].cells[0].value is None and not rows[1].cells[0].best


@given(st.data())
def test_rows_add_up_to_the_score(data: st.DataObject) -> None:
    numbers = st.floats(-1, 1, width=32)
    query, passage = (
        data.draw(arrays(np.float32, (data.draw(st.integers(1, 6)), 2), elements=numbers)) for _ in range(2)
    )
    pairs = interaction(query, passage)
    rows = merged(pairs)
    assert sum(row.adds for row in rows) == pytest.approx(pairs.score, abs=1e-5)
    for groups, count in ((pairs.alike_query, len(query)), (pairs.alike_passage, len(passage))):
        assert sorted(i for group in groups for i in group) == list(range(count))
    for row in rows:
        assert any(cell.best for cell in row.cells) == (row.adds > 0)
