"""Runs against a baseline: gains and losses per query, and tests of significance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from .metrics import Evaluation

if TYPE_CHECKING:
    import numpy as np

DRAWS = 10_000
_ROUNDING = 1e-9
_CELLS = 1 << 20  # signed deltas held in memory at a time


@dataclass(frozen=True)
class Comparison:
    """One run against the baseline by one measure.

    Attributes
    ----------
    run, measure : what is compared.
    deltas : query id → the run's value minus the baseline's, over all judged queries.
    p_t, p_random : two-sided p-values of the paired t-test and of the randomisation test; ``p_t`` is None where the
        test does not exist (a single query).
    p_t_holm, p_random_holm : the same after Holm's correction over all runs that are compared by this measure; None
        before :func:`compare` has corrected them, and where there is no p-value.
    """

    run: str
    measure: str
    deltas: dict[str, float]
    p_t: float | None
    p_random: float
    p_t_holm: float | None = None
    p_random_holm: float | None = None

    @property
    def difference(self) -> float:
        """Mean of the deltas; above 0 the run is better than the baseline."""
        return math.fsum(self.deltas.values()) / len(self.deltas)

    @property
    def won(self) -> int:
        """Queries on which the run is better than the baseline."""
        return sum(delta > 0 for delta in self.deltas.values())

    @property
    def lost(self) -> int:
        """Queries on which the run is worse than the baseline."""
        return sum(delta < 0 for delta in self.deltas.values())

    @property
    def tied(self) -> int:
        """Queries on which both are equal."""
        return len(self.deltas) - self.won - self.lost

    def extremes(self, count: int = 5) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """The ``count`` largest gains and the ``count`` largest losses as (query id, delta), the largest first."""
        rising = sorted(self.deltas.items(), key=lambda item: (item[1], item[0]))
        falling = sorted(self.deltas.items(), key=lambda item: (-item[1], item[0]))
        gains = [item for item in falling if item[1] > 0]
        return gains[:count], [item for item in rising if item[1] < 0][:count]


def compare(
    baseline: Evaluation, others: Mapping[str, Evaluation], draws: int = DRAWS, seed: int = 0
) -> list[Comparison]:
    """Compare ``others`` (name → evaluation) with ``baseline``, by measure in the baseline's order.

    All judged queries count; a query without results counts 0. Holm's correction is over the runs within one measure.

    Raises
    ------
    InputError
        When the evaluations have different queries or measures, and so come from different judgements.
    """
    compared: list[Comparison] = []
    for measure, before in baseline.per_query.items():
        family: list[Comparison] = []
        for run, evaluation in others.items():
            after = evaluation.per_query.get(measure)
            if after is None or after.keys() != before.keys():
                raise InputError(
                    f"{run} was not measured by {measure} over the same queries as the baseline; "
                    "use the same judgements for both."
                )
            deltas = {qid: _delta(after[qid], value) for qid, value in before.items()}
            values = list(deltas.values())
            family.append(Comparison(run, measure, deltas, paired_t(values), randomisation(values, draws, seed)))
        corrected_t = holm([one.p_t for one in family])
        corrected = holm([one.p_random for one in family])
        compared += [
            dataclasses.replace(one, p_t_holm=p_t, p_random_holm=p_random)
            for one, p_t, p_random in zip(family, corrected_t, corrected, strict=True)
        ]
    return compared


def _delta(after: float, before: float) -> float:
    """The difference; 0 where it is no more than rounding, so that equal rankings tie."""
    return 0.0 if abs(after - before) < _ROUNDING else after - before


def paired_t(deltas: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's paired t-test over ``deltas``; 1 where all are 0, None for a single query."""
    from scipy import stats

    if not any(deltas):
        return 1.0
    if len(deltas) < 2:
        return None
    if len(set(deltas)) == 1:
        return 0.0  # no variance; scipy returns the same with a warning
    return float(stats.ttest_1samp(deltas, 0.0).pvalue)


def randomisation(deltas: Sequence[float], draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided p-value of Fisher's randomisation test (Smucker, Allan and Carterette, 2007).

    If the runs did not differ, each delta could equally have the opposite sign. The p-value is the share of sign
    patterns whose mean is at least as far from 0 as the observed one. If there are at most ``draws`` patterns, all are
    counted; else ``draws`` random ones (reproducible by ``seed``) and the observed one, so p is never 0.
    """
    import numpy as np
    from scipy import stats

    values = np.array([delta for delta in deltas if delta], dtype=np.float64)  # the sign of a 0 does not matter
    if len(values) < 2:
        return 1.0
    # Sums in another order differ by rounding; scipy's own tolerance is relative to a sum that may be near 0.
    bound = abs(values.sum()) - _ROUNDING * np.abs(values).sum()

    def as_far(signed: np.ndarray, axis: int) -> np.ndarray:
        return (np.abs(signed.sum(axis=axis)) >= bound).astype(np.float64)

    options = {"alternative": "greater", "n_resamples": draws, "batch": max(1, _CELLS // len(values))}
    if 2 ** min(len(values), 60) <= draws:
        return float(stats.permutation_test((values,), as_far, permutation_type="samples", **options).pvalue)
    generator = np.random.default_rng(seed)

    def flipped(size: tuple[int, ...]) -> np.ndarray:
        return values * (1 - 2 * generator.integers(0, 2, size, dtype=np.int8))

    # permutation_test draws too, but takes 15 times as long for the 7,000 queries of MS MARCO.
    return float(stats.monte_carlo_test(values, flipped, as_far, **options).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of ``p_values``, in the given order; a None stays None and is not counted."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        corrected[i] = highest
    return corrected
