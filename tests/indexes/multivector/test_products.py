"""Products of factors with codes, by 8-bit integers and by float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffretriever_pyserini.indexes.multivector import products
from diffretriever_pyserini.indexes.multivector.products import Floats, Integers, integers_are_exact, products_for


@given(
    seed=st.integers(0, 1 << 20),
    rows=st.integers(1, 5),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    size=st.sampled_from([0, 1e-20, 1, 1e20]),
)
def test_a_factor_of_three_digits_is_close_to_its_own(seed: int, rows: int, lengths: list[int], size: float) -> None:
    draw = np.random.default_rng(seed)
    starts = np.cumsum([0, *lengths[:-1]])
    factors = (size * draw.standard_normal((rows, sum(lengths)))).astype(np.float32)
    digits, scales = Integers.split(factors, starts)
    assert digits.dtype == np.int8
    assert digits.min() >= -127  # so that sums of 2^17 codes fit into 32 bits
    whole = (digits.astype(int) * np.array([1 << 14, 1 << 7, 1])[:, None, None]).sum(axis=0)
    largest = np.maximum.reduceat(np.abs(factors), starts, axis=1).repeat(lengths, axis=1)
    assert (np.abs(whole * scales.repeat(lengths, axis=1) - factors) <= largest * 5e-7).all()
    sums = np.add.reduceat(whole, starts, axis=1)
    np.testing.assert_allclose(Integers.sums(digits, starts), sums, rtol=1e-6, atol=4)


@pytest.mark.parametrize("count", [1, 7, 500, 6374])
def test_integer_products_are_exact(count: int) -> None:
    """With the largest factors and codes, too, whose pairs would saturate 16 bits."""
    if not integers_are_exact():
        pytest.skip("torch has no exact products of 8-bit integers on this processor")
    draw = np.random.default_rng(count)
    codes = draw.choice(np.array([0, 1, 128, 254, 255], np.uint8), (9, count))
    digits = draw.choice(np.array([-127, -64, 0, 63, 127], np.int8), (3, count))
    product = Integers.product(torch.from_numpy(digits), Integers.codes(codes)).numpy()[0]
    high, middle, low = digits.astype(int) @ (codes.astype(int) - Integers.zero).T
    np.testing.assert_allclose(product, high * (1 << 14) + middle * (1 << 7) + low, rtol=3e-7, atol=2 * abs(high).max())


def test_integers_only_with_instructions_for_them_and_when_sums_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_integers_are_fast", lambda: True)
    monkeypatch.setattr(products, "integers_are_exact", lambda: True)
    assert products_for(768) is Integers
    assert products_for(1 << 18) is Floats
    monkeypatch.setattr(products, "integers_are_exact", lambda: False)
    assert products_for(768) is Floats
    monkeypatch.setattr(products, "_integers_are_fast", lambda: False)
    assert products_for(768) is Floats
