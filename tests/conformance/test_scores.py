"""Scores and fusion against the reference scripts, run end to end in float32."""

from __future__ import annotations

import numpy as np
import pytest

from diffretriever_pyserini import scoring

from .conftest import BASES, Goldens

GRID = ((1, 1), (4, 4), (4, 16))
PATHS = {
    "scores": {"cut_at_stop": False, "impact_rounding": "nearest"},
    "scores_zeroshot": {},
}


def encode(goldens: Goldens, model: str, path: str, k: tuple[int, int]):
    settings = {"k_query": k[0], "k_passage": k[1], **PATHS[path]}
    retriever = goldens.model(model, "q_k1", **settings)
    return retriever.encode(goldens.texts, side="query"), retriever.encode(goldens.texts, side="passage")


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", GRID)
def test_scores_of_all_passages(goldens: Goldens, model: str, path: str, k: tuple[int, int]) -> None:
    case = goldens.case(f"{model}.{path}")
    prefix = f"float32/kq{k[0]}_kp{k[1]}/top12"
    queries, passages = encode(goldens, model, path, k)
    single = scoring.pooled_scores(queries.pooled, passages.pooled)
    lexical = scoring.lexical_scores(queries.weights, passages.weights)
    np.testing.assert_allclose(single, case[f"{prefix}/single_dense"], atol=1e-5)
    recorded = case[f"{prefix}/sparse_max"]
    # A weight at a rounding boundary changes a sum by up to the largest weight of the other side.
    np.testing.assert_allclose(lexical, np.nan_to_num(recorded), atol=2 * passages.weights.max())
    assert np.mean(lexical == np.nan_to_num(recorded)) > 0.9
    modes = {"single": single}
    if k != (1, 1):
        modes["multi"] = scoring.maxsim(queries.vectors, passages.vectors)
        np.testing.assert_allclose(modes["multi"], case[f"{prefix}/multi_dense"], atol=1e-5)
    for mode, dense in modes.items():
        fused = scoring.fuse(dense, recorded)
        np.testing.assert_allclose(fused, case[f"{prefix}/fusion_{mode}_sparse_max"], atol=1e-5)


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("k", GRID)
def test_fusion_of_short_lists(goldens: Goldens, model: str, path: str, k: tuple[int, int]) -> None:
    case, facts = goldens.case(f"{model}.{path}"), goldens.facts(f"{model}.{path}")["info"]
    prefix = f"float32/kq{k[0]}_kp{k[1]}"
    for mode in ("single",) if k == (1, 1) else ("single", "multi"):
        dense = case[f"{prefix}/top12/{mode}_dense"]
        fused = scoring.fuse(dense, case[f"{prefix}/top12/sparse_max"], depth=5)
        recorded = case[f"{prefix}/top5/fusion_{mode}_sparse_max"]
        tied = set()
        for signal in (f"{mode}_dense", "sparse_max", f"fusion_{mode}_sparse_max"):
            tied |= set(facts[f"{prefix}/top5/{signal}"].get("queries_tied_at_cutoff", []))
        rows = [i for i in range(12) if f"t{i:02}" not in tied and i not in tied]
        assert rows, "every query has a tie at the cut: nothing was compared"
        for i in rows:
            returned = ~np.isnan(recorded[i])
            np.testing.assert_allclose(fused[i][returned], recorded[i][returned], atol=1e-5)
