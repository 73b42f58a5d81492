"""The scores of docs/method.md §5 against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from diffretriever_pyserini import InputError, scoring

NAN = np.nan
FINITE = st.floats(-4, 4, width=32)


def rows(*values: list) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_pooled_is_a_dot_product() -> None:
    scores = scoring.pooled_scores(rows([1, 2], [0, -1]), rows([3, 4], [5, 0.5], [0, 0]))
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, [[11, 6, 0], [-4, -0.5, 0]])


def test_maxsim_by_hand() -> None:
    query = rows([[1, 0], [0, 1]])
    passages = rows([[0.5, 0.2], [0.1, 0.7]], [[-1, -1], [-0.5, 0.25]])
    # First: max(.5, .1) + max(.2, .7); second: its first best is negative and counts 0.
    np.testing.assert_allclose(scoring.maxsim(query, passages), [[1.2, 0.25]], rtol=1e-6)


def test_maxsim_is_not_divided_by_k() -> None:
    query = np.ones((1, 4, 1), dtype=np.float32)
    np.testing.assert_array_equal(scoring.maxsim(query, np.ones((1, 2, 1))), [[4]])


@given(arrays(np.float32, (3, 1, 4), elements=FINITE), arrays(np.float32, (5, 1, 4), elements=FINITE))
@settings(max_examples=30, deadline=None)
def test_maxsim_at_k_1_is_the_dot_product_clamped_at_0(queries: np.ndarray, passages: np.ndarray) -> None:
    dot = scoring.pooled_scores(queries[:, 0], passages[:, 0])
    np.testing.assert_allclose(scoring.maxsim(queries, passages), np.maximum(dot, 0), atol=1e-5)


@given(arrays(np.float32, (2, 3, 4), elements=FINITE), arrays(np.float32, (4, 5, 4), elements=FINITE), st.randoms())
@settings(max_examples=30, deadline=None)
def test_maxsim_ignores_the_order_of_vectors_zero_rows_and_chunks(
    queries: np.ndarray, passages: np.ndarray, rng
) -> None:
    expected = scoring.maxsim(queries, passages)
    order = rng.sample(range(5), 5)
    np.testing.assert_allclose(scoring.maxsim(queries, passages[:, order]), expected, atol=1e-5)
    padded = np.concatenate([passages, np.zeros((4, 2, 4), np.float32)], axis=1)
    np.testing.assert_allclose(scoring.maxsim(queries, padded), expected, atol=1e-5)
    padded = np.concatenate([queries, np.zeros((2, 1, 4), np.float32)], axis=1)
    np.testing.assert_allclose(scoring.maxsim(padded, passages), expected, atol=1e-5)
    np.testing.assert_allclose(scoring.maxsim(queries, passages, chunk=3), expected, atol=1e-5)


def test_zero_rows_score_zero() -> None:
    zero = np.zeros((1, 2, 3), dtype=np.float32)
    assert scoring.maxsim(zero, np.ones((1, 2, 3)))[0, 0] == 0
    # A passage whose only real vector points away gains nothing from its zero row either.
    assert scoring.maxsim(np.ones((1, 1, 3)), np.stack([[-np.ones(3), np.zeros(3)]]))[0, 0] == 0


def test_lexical_is_an_exact_integer_product() -> None:
    queries = scipy.sparse.csr_matrix(np.array([[0, 2, 300], [0, 0, 0]], dtype=np.int32))
    passages = scipy.sparse.csr_matrix(np.array([[7, 5, 50_000], [1, 0, 0]], dtype=np.int32))
    scores = scoring.lexical_scores(queries, passages)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, [[15_000_010, 0], [0, 0]])


def test_lexical_does_not_overflow_int32() -> None:
    one = scipy.sparse.csr_matrix(np.array([[100_000]], dtype=np.int32))
    assert scoring.lexical_scores(one, one)[0, 0] == np.float32(1e10)


def test_fuse_by_hand() -> None:
    # Dense spans 1..3, lexical 0..10: (0, .5, 1) and (1, 0, .5), a half of each.
    np.testing.assert_allclose(scoring.fuse(rows([1, 2, 3]), rows([10, 0, 5])), [[0.5, 0.25, 0.75]])
    np.testing.assert_allclose(scoring.fuse(rows([1, 2, 3]), rows([10, 0, 5]), weight=0.9), [[0.1, 0.45, 0.95]])
    np.testing.assert_allclose(scoring.fuse(rows([1, 2, 3]), rows([10, 0, 5]), weight=1), [[0, 0.5, 1]])
    np.testing.assert_allclose(scoring.fuse(rows([1, 2, 3]), rows([10, 0, 5]), weight=0), [[1, 0, 0.5]])


def test_fuse_gives_nan_where_neither_list_has_the_passage() -> None:
    scores = scoring.fuse(rows([4, NAN, 2, NAN]), rows([NAN, 3, 1, NAN]))
    # A passage missing from one list counts 0 there.
    np.testing.assert_allclose(scores, [[0.5, 0.5, 0, NAN]])


def test_fuse_cuts_both_lists_at_depth() -> None:
    dense, lexical = rows([4, 3, 2, 1]), rows([0, 0, 8, 9])
    # Dense keeps the first two, lexical the last two.
    np.testing.assert_allclose(scoring.fuse(dense, lexical, depth=2), [[0.5, 0, 0, 0.5]])
    # Depth 3: the third lexical rank is a tie of two zeros, which goes to the earlier passage.
    expected = [[0.5, 0.25, 8 / 18, 0.5]]
    np.testing.assert_allclose(scoring.fuse(dense, lexical, depth=3), expected, rtol=1e-6)


def test_ties_at_the_cut_go_to_the_earlier_passage() -> None:
    np.testing.assert_array_equal(scoring.cut(rows([1, 5, 1, 1]), 2), [[1, 5, NAN, NAN]])
    np.testing.assert_array_equal(scoring.cut(rows([NAN, 5, NAN, 1]), 3), [[NAN, 5, NAN, 1]])
    assert scoring.cut(rows([3, 2]), 2).tolist() == [[3, 2]]


def test_short_lexical_lists_have_their_minimum_at_zero() -> None:
    # One positive lexical score among all passages: the others are in the list with 0, so the hit adds the full 0.5.
    np.testing.assert_allclose(scoring.fuse(rows([1, 1, 1]), rows([0, 7, 0])), [[0, 0.5, 0]])


def test_equal_scores_and_a_single_hit_do_not_divide_by_zero() -> None:
    np.testing.assert_array_equal(scoring.fuse(rows([2, 2]), rows([0, 0])), [[0, 0]])
    np.testing.assert_array_equal(scoring.fuse(rows([2, NAN]), rows([NAN, NAN])), [[0, NAN]])
    np.testing.assert_array_equal(scoring.fuse(rows([2]), rows([3])), [[0]])


def test_nothing_to_fuse() -> None:
    assert scoring.fuse(np.zeros((2, 0)), np.zeros((2, 0))).shape == (2, 0)
    assert scoring.fuse(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    assert np.isnan(scoring.fuse(rows([NAN, NAN]), rows([NAN, NAN]))).all()


@given(arrays(np.float32, (3, 6), elements=st.one_of(FINITE, st.just(NAN))), st.integers(1, 7), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_fused_scores_are_between_0_and_1_per_query(dense: np.ndarray, depth: int, weight: float) -> None:
    lexical = np.round(np.abs(dense[:, ::-1]))
    scores = scoring.fuse(dense, lexical, weight, depth)
    assert scores.dtype == np.float32
    assert np.nanmin(scores, initial=0) >= 0
    assert np.nanmax(scores, initial=0) <= 1 + 1e-6
    one_by_one = np.concatenate(
        [scoring.fuse(d[None], s[None], weight, depth) for d, s in zip(dense, lexical, strict=True)]
    )
    np.testing.assert_array_equal(scores, one_by_one)
    assert (~np.isnan(scoring.cut(dense, depth))).sum(axis=1).max() <= depth


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scoring.pooled_scores(rows([1, 2]), rows([1, 2, 3])), "dimension of the queries .2. .* passages .3."),
        (lambda: scoring.pooled_scores(rows([[1, 2]]), rows([1, 2])), "2 dimensions"),
        (lambda: scoring.maxsim(np.ones((1, 1, 2)), np.ones((1, 1, 3))), "use one model for both"),
        (lambda: scoring.lexical_scores(scipy.sparse.eye(2).tocsr(), scipy.sparse.eye(3).tocsr()), "vocabulary"),
        (lambda: scoring.fuse(rows([1, 2]), rows([1])), "differ in shape"),
        (lambda: scoring.fuse(rows([1]), rows([1]), weight=1.5), "weight=1.5"),
        (lambda: scoring.fuse(rows([1]), rows([1]), depth=0), "depth=0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_tensors_of_any_precision_are_accepted() -> None:
    import torch

    queries, passages = rows([1, 2], [0, -1]), rows([3, 4], [5, 0.5], [0, 0])
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        tensors = [torch.tensor(one, dtype=dtype, requires_grad=True) for one in (queries, passages)]
        scores = scoring.pooled_scores(*tensors)
        np.testing.assert_array_equal(scores, scoring.pooled_scores(queries, passages))
        np.testing.assert_array_equal(
            scoring.maxsim(*(one[:, None] for one in tensors)), scoring.maxsim(queries[:, None], passages[:, None])
        )
        tensor = torch.tensor(scores, dtype=dtype)
        np.testing.assert_array_equal(scoring.fuse(tensor, tensor), scoring.fuse(scores, scores))
        np.testing.assert_array_equal(scoring.min_max(tensor), scoring.min_max(scores))
        np.testing.assert_array_equal(scoring.cut(tensor, 1), scoring.cut(scores, 1))
    with pytest.raises(InputError, match="expected an array of numbers"):
        scoring.pooled_scores([["a"]], [["b"]])
