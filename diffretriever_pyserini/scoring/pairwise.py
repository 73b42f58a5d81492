"""The scores of docs/method.md §5 as small pure functions: from numpy arrays to float32 [queries, passages]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import scipy.sparse

    Array = np.ndarray

_LEAST_RANGE = 1e-9


def pooled_scores(queries: Array, passages: Array) -> Array:
    """Dense single: dot products of pooled vectors.

    Parameters
    ----------
    queries, passages : float [Nq, H] and [Np, H].

    Returns
    -------
    float32 [Nq, Np]

    Raises
    ------
    InputError
        For arrays of the wrong number of dimensions, or of two widths.

    Examples
    --------
    >>> import numpy as np
    >>> from diffretriever_pyserini import scoring
    >>> print(scoring.pooled_scores(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])))
    [[0.5 0. ]]
    """
    queries, passages = _floats(queries, 2), _floats(passages, 2)
    _require_equal("dimension", queries.shape[1], passages.shape[1])
    return queries @ passages.T


def maxsim(queries: Array, passages: Array, chunk: int = 1024) -> Array:
    """Dense multi (MaxSim): sum over query vectors of max(0, best passage vector), not divided by K.

    Parameters
    ----------
    queries, passages : float [Nq, Kq, H] and [Np, Kp, H]; zero rows score 0.
    chunk : passages scored at a time, in a memory of Nq * Kq * chunk * Kp floats.

    Returns
    -------
    float32 [Nq, Np]

    Raises
    ------
    InputError
        For arrays of the wrong number of dimensions, or of two widths.

    Examples
    --------
    >>> import numpy as np
    >>> from diffretriever_pyserini import scoring
    >>> query = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> passages = np.array([[[1.0, 0.0]], [[0.5, 0.75]]])
    >>> print(scoring.maxsim(query, passages))
    [[1.   1.25]]
    """
    queries, passages = _floats(queries, 3), _floats(passages, 3)
    _require_equal("dimension", queries.shape[2], passages.shape[2])
    n_queries, k_query, width = queries.shape
    n_passages, k_passage, _ = passages.shape
    scores = np.zeros((n_queries, n_passages), dtype=np.float32)
    flat = queries.reshape(-1, width)
    for start in range(0, n_passages, chunk):
        block = passages[start : start + chunk]
        products = flat @ block.reshape(-1, width).T
        best = products.reshape(n_queries, k_query, len(block), k_passage).max(axis=3)
        scores[:, start : start + chunk] = np.maximum(best, 0).sum(axis=1)
    return scores


def lexical_scores(queries: scipy.sparse.csr_matrix, passages: scipy.sparse.csr_matrix) -> Array:
    """Lexical: the integer dot product that a Lucene impact index computes.

    Parameters
    ----------
    queries, passages : CSR int [Nq, V] and [Np, V].

    Returns
    -------
    float32 [Nq, Np], exact up to 2**24.

    Raises
    ------
    InputError
        For arrays of the wrong number of dimensions, or of two widths.

    Examples
    --------
    >>> from scipy.sparse import csr_matrix
    >>> from diffretriever_pyserini import scoring
    >>> print(scoring.lexical_scores(csr_matrix([[2, 0, 1]]), csr_matrix([[3, 1, 0], [0, 0, 4]])))
    [[6. 4.]]
    """
    _require_equal("vocabulary", queries.shape[1], passages.shape[1])
    product = queries.astype(np.int64) @ passages.astype(np.int64).T
    return product.toarray().astype(np.float32)


def fuse(dense: Array, lexical: Array, weight: float = 0.5, depth: int = 1000) -> Array:
    """Hybrid: per query, scale both lists of the best ``depth`` passages to [0, 1] by min-max and add them.

    Parameters
    ----------
    dense, lexical : float [Nq, Np], scores of every passage; NaN where a passage is not in that list.
    weight : share of the dense list; the lexical list has ``1 - weight``.
    depth : length of each list before fusion; ties at the cut go to the earlier passage.

    Returns
    -------
    float32 [Nq, Np], NaN where neither list contains the passage. A passage missing from one list counts 0 there; the
    range of a list is at least 1e-9.

    Raises
    ------
    InputError
        For scores of different shapes, a weight outside 0 to 1, or a depth below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from diffretriever_pyserini import scoring
    >>> print(scoring.fuse(np.array([[0.9, 0.5, 0.1]]), np.array([[0.0, 10.0, 5.0]])))
    [[0.5  0.75 0.25]]
    """
    dense, lexical = _floats(dense, 2), _floats(lexical, 2)
    if dense.shape != lexical.shape:
        raise InputError(f"the two score matrices differ in shape: dense {dense.shape}, lexical {lexical.shape}.")
    if not 0 <= weight <= 1:
        raise InputError(f"weight={weight} must be between 0 (lexical only) and 1 (dense only).")
    if depth < 1:
        raise InputError(f"depth={depth} must be at least 1.")
    scaled = [min_max(cut(scores, depth)) for scores in (dense, lexical)]
    missing = np.isnan(scaled[0]) & np.isnan(scaled[1])
    fused = weight * np.nan_to_num(scaled[0]) + (1 - weight) * np.nan_to_num(scaled[1])
    return np.where(missing, np.nan, fused).astype(np.float32)


def cut(scores: Array, depth: int) -> Array:
    """``scores`` with NaN except for each row's best ``depth``; ties at the cut go to the earlier passage.

    Parameters
    ----------
    scores : float [Nq, Np]; the result has the same shape and type.
    depth : how many stay.

    Examples
    --------
    >>> import numpy as np
    >>> from diffretriever_pyserini import scoring
    >>> print(scoring.cut(np.array([[0.1, 0.9, 0.5]]), depth=2))
    [[nan 0.9 0.5]]
    """
    scores = _as_array(scores)
    if scores.shape[1] <= depth:
        return scores
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=1, kind="stable")
    top = np.full_like(scores, np.nan)
    best = order[:, :depth]
    np.put_along_axis(top, best, np.take_along_axis(scores, best, axis=1), axis=1)
    return top


def min_max(scores: Array, floors: Array | None = None) -> Array:
    """Each row of ``scores`` [N, D] scaled to [0, 1] as float64; NaN stays, and a range is at least 1e-9.

    Parameters
    ----------
    scores : float [N, D].
    floors : float [N, 1], the minimum per row; NaN for the lowest score of the row, as without ``floors``.

    Examples
    --------
    >>> import numpy as np
    >>> from diffretriever_pyserini import scoring
    >>> print(scoring.min_max(np.array([[1.0, 3.0, 2.0]])))
    [[0.  1.  0.5]]
    """
    scores = _as_array(scores)
    if scores.size == 0:
        return scores.astype(np.float64)
    low, high = low_and_high(scores, floors)
    return (scores.astype(np.float64) - low) / np.maximum(high - low, _LEAST_RANGE)


def low_and_high(scores: Array, floors: Array | None = None) -> tuple[Array, Array]:
    """Minimum (``floors`` unless NaN) and maximum of each row, float64 [N, 1]; both are 0 for a row of NaN only."""
    wide = scores.astype(np.float64)
    listed = ~np.isnan(wide)
    low = np.where(listed, wide, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(listed, wide, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    low, high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)
    return low if floors is None else np.where(np.isnan(floors), low, floors), high


def _as_array(values: Array) -> Array:
    """``values`` as an array; torch tensors, which may be on a GPU or in bfloat16, become float32."""
    tensor: Any = values
    return tensor.detach().cpu().float().numpy() if hasattr(tensor, "detach") else np.asarray(values)


def _floats(values: Array, dimensions: int) -> Array:
    try:
        array = np.asarray(_as_array(values), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected an array of numbers with {dimensions} dimensions, not {values!r:.60}.") from error
    if array.ndim != dimensions:
        raise InputError(f"expected an array with {dimensions} dimensions, got shape {array.shape}.")
    return array


def _require_equal(what: str, queries: int, passages: int) -> None:
    if queries != passages:
        raise InputError(
            f"{what} of the queries ({queries}) and of the passages ({passages}) differ; use one model for both."
        )
