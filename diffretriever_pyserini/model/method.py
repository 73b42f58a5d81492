"""The method on one screen: from the backbone's outputs at K mask positions to vectors and impacts (docs/method.md §4).

    hidden [N, K, H], logits [N, K, C]    after the final norm, and of the output head, at the K mask positions
    kept    = kept_positions(decoded)     zero-shot models only: up to the first special token
    vectors = unit(hidden) * kept         K dense vectors per text
    pooled  = pool(vectors)               one dense vector per text
    weights = term_weights(logits)        log(1 + relu(logit)) of each of the text's own terms, at each position
    weights = weights * tf_factors(…)     not in the paper, and off for its models: how often a term occurs (§4.1)
    impacts = to_impacts(weights)         the strongest per position, x 100, as integers, the maximum over the positions

Pure functions on torch tensors of any device; :func:`pool` takes numpy arrays. layout.py (token ids) and denoising.py
(one or several forward passes) come first. inference.py only forms batches. Training uses the same functions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from .config import LexicalTf


# Their product is below 2^24, also after rounding. Usual: 1,000 to 5,000 in a query, 50 to 300 for a term.
_QUERY_TOTAL, _PASSAGE_LARGEST = 15_000, 1 << 10


@dataclass(frozen=True)
class LexicalScale:
    """How weights become impacts: terms kept per position, factor, and ``zero`` (cut) or ``nearest`` rounding.

    ``largest`` limits an impact, and ``total`` the sum of a text's impacts, which are scaled down to it; None does not.
    """

    top_terms: int = 128
    impact_scale: int = 100
    rounding: str = "nearest"
    largest: int | None = None
    total: int | None = None


def represent(
    hidden: torch.Tensor,
    logits: torch.Tensor,
    kept: torch.Tensor | None = None,
    factors: torch.Tensor | None = None,
    scale: LexicalScale | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both representations of N texts.

    Parameters
    ----------
    hidden : float [N, K, H], after the final norm.
    logits : float [N, K, C], the head's logits of C terms.
    kept : bool [N, K], False for positions that are cut (:func:`kept_positions`); None keeps all.
    factors : bool or float [N, C], of the terms' weights; 0 for padding columns. None is 1 for all.
    scale : None is the scale of the paper.

    Returns
    -------
    Vectors float32 [N, K, H] of unit length (zero where not kept) and impacts int32 [N, C].
    """
    vectors, weights = unit(hidden), term_weights(logits)
    if kept is not None:
        vectors, weights = vectors * kept.unsqueeze(2), weights * kept.unsqueeze(2)
    if factors is not None:
        weights = weights * factors.unsqueeze(1)
    return vectors, to_impacts(weights, scale or LexicalScale())


def unit(hidden: torch.Tensor) -> torch.Tensor:
    """``hidden`` [..., H] at unit length, float32."""
    from torch.nn.functional import normalize

    return normalize(hidden.float(), dim=-1)


def term_weights(logits: torch.Tensor) -> torch.Tensor:
    """log(1 + relu(logit)), float32, in the shape of ``logits``."""
    import torch

    return torch.log1p(torch.relu(logits.float()))


def tf_factors(counts: np.ndarray, length: int, tf: LexicalTf, side: str) -> np.ndarray:
    """Factors float32 [C] of terms that occur ``counts`` times in a text of ``length`` content words.

    A passage's are BM25's saturation, 1 for a single occurrence in a text of average length; a query's are a power.
    """
    counts = counts.astype(np.float32)
    if side == "query":
        return counts ** np.float32(tf.query_exponent)
    damping = np.float32(tf.k1 * (1 - tf.b + tf.b * length / tf.average_length))
    factors: np.ndarray = counts * np.float32(tf.k1 + 1) / (counts + damping)
    return factors


def tf_limits(side: str, scale: LexicalScale) -> LexicalScale:
    """``scale`` with limits for factors of any size: a score, a sum of products, stays below 2^24.

    Up to there float32 is exact, in which Lucene adds. A finer scale than the paper's 100 has no limits.
    """
    if scale.impact_scale > LexicalScale.impact_scale:
        return scale
    return replace(scale, total=_QUERY_TOTAL) if side == "query" else replace(scale, largest=_PASSAGE_LARGEST)


def to_impacts(weights: torch.Tensor, scale: LexicalScale) -> torch.Tensor:
    """Impacts int32 [N, C] of ``weights`` float32 [N, K, C], 0 for none; weights are rounded only here."""
    import torch

    if weights.shape[2] > scale.top_terms:
        strongest, columns = weights.topk(scale.top_terms, dim=2)
        weights = torch.zeros_like(weights).scatter_(2, columns, strongest)
    scaled = weights * scale.impact_scale
    if scale.largest is not None:
        scaled = scaled.clamp(max=scale.largest)
    if scale.total is not None:
        sums = scaled.amax(dim=1).sum(dim=1).clamp(min=scale.total)
        scaled = scaled * (scale.total / sums)[:, None, None]
    rounded = scaled.round() if scale.rounding == "nearest" else scaled.trunc()
    return rounded.amax(dim=1).to(torch.int32)


def kept_positions(decoded: torch.Tensor, stop_ids: Collection[int]) -> torch.Tensor:
    """Zero-shot stop rule: which positions of ``decoded`` int64 [N, K] (one token id each) count, bool [N, K].

    The first special token ends the answer and does not count itself. If it is at the first position, all count.
    """
    import torch

    stop = torch.tensor(sorted(stop_ids), dtype=torch.int64).to(decoded.device, non_blocking=decoded.is_cuda)
    stops = torch.isin(decoded, stop)
    return (stops.cumsum(dim=1) == 0) | stops[:, :1]


def pool(vectors: np.ndarray) -> np.ndarray:
    """One vector per text: the mean of its non-zero rows, not normalised again. float32 [N, K, H] -> float32 [N, H]."""
    counts = np.any(vectors != 0, axis=2).sum(axis=1, keepdims=True)
    return (vectors.sum(axis=1) / np.maximum(counts, 1)).astype(np.float32)
