"""Comparisons checked by hand, by scipy, and by counting every sign pattern."""

from __future__ import annotations

import itertools
import math
import random
import tracemalloc

import pytest
from scipy import stats

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.evaluation.comparison import DRAWS, Comparison, compare, holm, paired_t, randomisation
from diffretriever_pyserini.evaluation.metrics import Evaluation


def evaluation(**measures: dict[str, float]) -> Evaluation:
    return Evaluation(measures, [], [])


def exact(deltas: list[float]) -> float:
    """The randomisation test by its definition, one sign pattern at a time."""
    observed = abs(sum(deltas))
    patterns = list(itertools.product((1, -1), repeat=len(deltas)))
    far = [abs(sum(s * d for s, d in zip(signs, deltas, strict=True))) >= observed - 1e-9 for signs in patterns]
    return sum(far) / len(patterns)


def test_randomisation_by_hand() -> None:
    # 1 + 2 + 3 = 6 is reached by two of eight patterns: all plus and all minus.
    assert randomisation([1.0, 2.0, 3.0]) == 2 / 8
    # |1 - 2 + 3| = 2; of the sums 6, 4, 2, 0, 0, -2, -4, -6 six are as far from 0.
    assert randomisation([1.0, -2.0, 3.0]) == 6 / 8
    # 0.1 + 0.2 - 0.3 is 0 up to rounding, so all eight patterns are as far from 0.
    assert randomisation([0.1, 0.2, -0.3]) == 1.0
    # In any order of summation, two patterns are as far from 0: - - - and the observed one.
    assert randomisation([0.1, 0.2, 0.3]) == randomisation([0.3, 0.2, 0.1]) == 2 / 8
    assert randomisation([0.5]) == 1.0
    assert randomisation([0.0, 0.0]) == 1.0


@pytest.mark.parametrize("n", range(1, 11))
def test_randomisation_is_exact_for_few_queries(n: int) -> None:
    generator = random.Random(n)
    deltas = [generator.choice([-0.5, -0.1, 0.0, 0.1, 0.2, 0.5, 1.0]) for _ in range(n)]
    assert randomisation(deltas) == pytest.approx(exact(deltas))


def test_random_draws_come_near_the_exact_value() -> None:
    generator = random.Random(5)
    deltas = [generator.gauss(0.15, 0.5) for _ in range(12)]
    drawn = randomisation(deltas, draws=4000, seed=1)  # fewer than the 2 ** 12 = 4,096 patterns
    assert drawn == pytest.approx(exact(deltas), abs=0.03)
    assert drawn == randomisation(deltas, draws=4000, seed=1)
    assert drawn != exact(deltas)
    assert randomisation(deltas, draws=4096) == pytest.approx(exact(deltas))


def test_p_is_never_0() -> None:
    assert randomisation([0.3] * 60, draws=1000) == 1 / 1001


def binomial(plus: int, minus: int) -> float:
    """Exact p-value where every delta is 1 or -1: both tails of a binomial distribution."""
    n, far = plus + minus, max(plus, minus)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(far, n + 1)) / 2**n)


@pytest.mark.parametrize(("plus", "minus"), [(6, 3), (12, 5), (30, 18), (120, 90), (1030, 970)])
@pytest.mark.parametrize("unit", [1.0, 0.1])
def test_equal_deltas_are_a_binomial_test(plus: int, minus: int, unit: float) -> None:
    # 0.1 is not a binary fraction: if rounding broke ties, most patterns as far as the observed one would be missed.
    expected = binomial(plus, minus)
    error = 0.0 if plus + minus <= 13 else 4 * math.sqrt(expected * (1 - expected) / DRAWS) + 1 / DRAWS
    assert randomisation([unit] * plus + [-unit] * minus) == pytest.approx(expected, abs=max(error, 1e-12))


def test_many_queries_are_drawn_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffretriever_pyserini.evaluation import comparison as module

    generator = random.Random(3)
    deltas = [generator.gauss(0.02, 0.3) for _ in range(300)]
    whole = randomisation(deltas)
    monkeypatch.setattr(module, "_CELLS", 300 * 999)
    assert randomisation(deltas) == pytest.approx(whole, abs=0.02)
    assert whole == pytest.approx(stats.ttest_1samp(deltas, 0).pvalue, abs=0.03)


def test_memory_does_not_grow_with_draws_and_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffretriever_pyserini.evaluation import comparison as module

    monkeypatch.setattr(module, "_CELLS", 1 << 16)
    deltas = [random.Random(3).gauss(0, 0.3) + i * 1e-4 for i in range(2000)]
    randomisation(deltas[:30], draws=10)  # imports scipy before memory is measured
    tracemalloc.start()
    try:
        randomisation(deltas, draws=5000)  # all signed deltas at once would take 80 MB
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_paired_t_is_scipys_paired_test(seed: int) -> None:
    generator = random.Random(seed)
    before = [generator.random() for _ in range(9)]
    after = [value + generator.gauss(0.1, 0.2) for value in before]
    deltas = [b - a for a, b in zip(before, after, strict=True)]
    assert paired_t(deltas) == pytest.approx(stats.ttest_rel(after, before).pvalue)


def test_paired_t_by_hand() -> None:
    # Deltas 1, 2, 3: t = 2 / (1 / sqrt 3) = 3.4641; with 2 degrees of freedom p = 1 - t / sqrt(t ** 2 + 2).
    assert paired_t([1.0, 2.0, 3.0]) == pytest.approx(1 - 12**0.5 / 14**0.5)
    assert paired_t([0.0, 0.0]) == 1.0
    assert paired_t([0.5, 0.5]) == 0.0
    assert paired_t([0.5]) is None


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.01]) == pytest.approx([0.04, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


def test_compare_counts_every_judged_query() -> None:
    before = evaluation(
        AP={"q1": 0.5, "q2": 0.0, "q3": 1.0, "q4": 0.25}, RR={"q1": 1.0, "q2": 0.0, "q3": 1.0, "q4": 1.0}
    )
    better = evaluation(
        AP={"q1": 1.0, "q2": 0.0, "q3": 0.75, "q4": 0.5}, RR={"q1": 1.0, "q2": 1.0, "q3": 1.0, "q4": 1.0}
    )
    worse = evaluation(AP={"q1": 0.0, "q2": 0.0, "q3": 0.0, "q4": 0.0}, RR=dict.fromkeys(("q1", "q2", "q3", "q4"), 0.0))
    comparisons = compare(before, {"better": better, "worse": worse})
    assert [(comparison.measure, comparison.run) for comparison in comparisons] == [
        ("AP", "better"),
        ("AP", "worse"),
        ("RR", "better"),
        ("RR", "worse"),
    ]
    first, second = comparisons[:2]
    assert first.deltas == {"q1": 0.5, "q2": 0.0, "q3": -0.25, "q4": 0.25}
    assert (first.won, first.tied, first.lost) == (2, 1, 1)
    assert first.difference == pytest.approx(0.125)
    assert first.p_t == pytest.approx(stats.ttest_rel(list(better.per_query["AP"].values()), [0.5, 0, 1, 0.25]).pvalue)
    assert first.p_random == pytest.approx(exact([0.5, 0.0, -0.25, 0.25]))
    assert [first.p_t_holm, second.p_t_holm] == pytest.approx(holm([first.p_t, second.p_t]))
    assert [first.p_random_holm, second.p_random_holm] == pytest.approx(holm([first.p_random, second.p_random]))


def test_rounding_is_a_tie() -> None:
    (comparison,) = compare(evaluation(AP={"q": 0.3}), {"x": evaluation(AP={"q": 0.1 + 0.2})})
    assert (comparison.won, comparison.tied, comparison.lost) == (0, 1, 0)


def test_other_queries_or_measures_are_refused() -> None:
    for other in (evaluation(AP={"q2": 1.0}), evaluation(RR={"q1": 1.0})):
        with pytest.raises(InputError, match="x was not measured by AP over the same queries"):
            compare(evaluation(AP={"q1": 1.0}), {"x": other})


def test_extremes_are_sorted_with_ties_in_order_of_id() -> None:
    deltas = {"b": 0.5, "a": 0.5, "c": 0.1, "d": 0.0, "f": -0.3, "e": -0.3, "g": -0.9}
    gains, losses = Comparison("x", "AP", deltas, None, 1.0).extremes(2)
    assert gains == [("a", 0.5), ("b", 0.5)]
    assert losses == [("g", -0.9), ("e", -0.3)]
    assert Comparison("x", "AP", {"d": 0.0}, None, 1.0).extremes() == ([], [])
