"""The arithmetic of the method, with values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from diffretriever_pyserini.model.method import LexicalScale, kept_positions, pool, represent, unit


def logits(*weights: list[float]) -> torch.Tensor:
    """Logits [K, V] whose log(1 + relu) are ``weights``."""
    return torch.expm1(torch.tensor(weights, dtype=torch.float64))


def impacts(values: torch.Tensor, ids: list[int] | None, **how: Any) -> dict[int, int]:
    columns = list(range(values.shape[1])) if ids is None else ids
    masks = {name: how.pop(name) for name in ("kept", "factors") if name in how}
    hidden = torch.ones(1, len(values), 2)
    _, result = represent(hidden, values[None][:, :, columns], **masks, scale=LexicalScale(**how))
    assert (result.dtype, result.shape) == (torch.int32, (1, len(columns)))
    return {column: impact for column, impact in zip(columns, result[0].tolist(), strict=True) if impact}


def test_rounding_and_cutting() -> None:
    values = logits([0.296, 1.004, 0.004, 0.996, 0.0])
    assert impacts(values, None, rounding="nearest") == {0: 30, 1: 100, 3: 100}
    assert impacts(values, None, rounding="zero") == {0: 29, 1: 100, 3: 99}
    assert impacts(values, [0, 4], rounding="zero", impact_scale=1000) == {0: 296}
    assert impacts(torch.tensor([[math.e - 1, -5.0]]), None) == {0: 100}  # log(1 + e - 1) = 1; negative logits are 0


def test_the_maximum_over_positions() -> None:
    values = logits([0.5, 0.2, 0.0], [0.1, 0.7, 0.0])
    assert impacts(values, [0, 1, 2]) == {0: 50, 1: 70}


def test_the_strongest_terms_are_kept_per_position_before_the_union() -> None:
    values = logits([0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4])
    assert impacts(values, None, top_terms=1) == {0: 90, 3: 40}
    assert impacts(values, None, top_terms=2) == {
        0: 90,
        1: 80,
        2: 30,
        3: 40,
    }  # term 2 was dropped at its stronger position
    assert impacts(values, [1, 2], top_terms=1) == {1: 80, 2: 30}, "content terms are chosen first, then the strongest"


def test_no_positions_and_no_terms() -> None:
    none_kept = torch.tensor([[False]])
    assert impacts(logits([1.0, 1.0]), [0, 1], kept=none_kept) == {}
    assert impacts(logits([1.0, 0.5], [0.2, 0.7]), [0, 1], kept=torch.tensor([[False, True]])) == {0: 20, 1: 70}
    assert impacts(logits([1.0, 1.0]), [0, 1], factors=torch.tensor([[False, True]])) == {1: 100}
    assert impacts(logits([1.0, 1.0]), []) == {}
    assert impacts(logits([0.0, 0.004]), None) == {}
    masked = torch.tensor([[-torch.inf, 1.0]])
    assert impacts(masked, None) == {1: 69}  # 100 ln 2


def test_half_precision_logits_give_weights_in_float32() -> None:
    assert impacts(torch.tensor([[300.0, 2.5]], dtype=torch.bfloat16), None) == {0: 571, 1: 125}


def test_stop_rule() -> None:
    decoded = torch.tensor([[5, 6, 7], [5, 9, 6], [9, 5, 6], [9, 9, 9], [5, 6, 9], [5, 9, 9]])
    # No stop; stop second; stop first (nothing is cut, whatever follows); all stops; stop last; two stops.
    kept = kept_positions(decoded, {9})
    assert kept.sum(dim=1).tolist() == [3, 1, 3, 3, 2, 1]
    assert (kept.int().diff(dim=1) <= 0).all(), "the kept positions are at the beginning"
    assert kept_positions(decoded, set()).all()


def test_vectors_have_unit_length_and_are_zero_where_not_kept() -> None:
    hidden = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [5.0, 12.0]]])
    vectors, _ = represent(hidden, torch.zeros(1, 3, 1), kept=torch.tensor([[True, True, False]]))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, torch.tensor([[[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]]]))
    assert not unit(torch.zeros(2)).any(), "a zero vector stays zero"


def test_pooling_is_the_mean_of_the_rows_that_are_not_zero() -> None:
    vectors = np.array([[[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]], [[0.0, 0.0]] * 3], dtype=np.float32)
    assert pool(vectors).dtype == np.float32
    np.testing.assert_allclose(pool(vectors), [[0.3, -0.1], [0.0, 0.0]], atol=1e-7)  # not normalised again
