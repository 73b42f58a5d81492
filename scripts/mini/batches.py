"""Batches of pairs whose passages are similar, so that in-batch negatives are hard without mining."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

from mini.texts import Ragged

VOCABULARY = 30522


def inverse_document_frequency(content: list[Ragged]) -> np.ndarray:
    """ln((N + 1) / (df + 1/2)) of every token id over the training passages, float64 [V]."""
    counts = np.zeros(VOCABULARY)
    total = 0
    for ragged in content:
        np.add.at(counts, ragged.values, 1)
        total += len(ragged)
    return np.log((total + 1) / (counts + 0.5))


def neighbour_leaves(content: Ragged, idf: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Groups of about ``size`` similar passages: leaves of a tree of median splits along random tf-idf directions."""
    rows = np.repeat(np.arange(len(content)), np.diff(content.starts))
    table = sp.csr_matrix((idf[content.values], (rows, content.values)), shape=(len(content), VOCABULARY))
    norms = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
    table = sp.diags(1 / np.maximum(norms, 1e-9)) @ table
    leaves: list[np.ndarray] = []
    stack = [np.arange(len(content))]
    while stack:
        members = stack.pop()
        if len(members) <= size:
            leaves.append(members)
            continue
        # The direction between two members splits more sharply than a random one.
        first, second = rng.choice(members, 2, replace=False)
        projection = np.asarray((table[members] @ (table[first] - table[second]).T).todense()).ravel()
        order = np.argsort(projection + 1e-9 * rng.standard_normal(len(projection)))
        half = len(members) // 2
        stack += [members[order[:half]], members[order[half:]]]
    return leaves


def epoch(
    leaves: dict[str, list[np.ndarray]], batch: int, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (source, indices of ``batch`` pairs): shuffled leaves of one source, sources in proportion to size."""
    plan = []
    for name, groups in leaves.items():
        order = np.concatenate([groups[i] for i in rng.permutation(len(groups))])
        plan += [(name, order[start : start + batch]) for start in range(0, len(order) - batch + 1, batch)]
    if not plan:
        raise SystemExit(f"No source has {batch} pairs; give a larger --scale or a smaller --batch.")
    for i in rng.permutation(len(plan)):
        yield plan[i]
