"""Measures of published scores: with the collection's level of relevance, and as options of trec_eval."""

from __future__ import annotations

from ..evaluation.measures import parse_measure

_TREC_EVAL = {"nDCG": "ndcg_cut.{}", "R": "recall.{}", "P": "P.{}"}


def with_relevance(measure: str, relevance: int) -> str:
    """``measure`` with rel=``relevance``, if it is a binary one that does not say its own level.

    Examples
    --------
    >>> from diffretriever_pyserini.experiments.measures import with_relevance
    >>> with_relevance("R@1000", 2), with_relevance("nDCG@10", 2)
    ('R(rel=2)@1000', 'nDCG@10')
    """
    parsed = parse_measure(measure)
    if relevance == 1 or "rel" not in parsed.SUPPORTED_PARAMS or "rel" in parsed.params:
        return measure
    return str(parsed(rel=relevance))


def trec_eval_options(measure: str) -> list[str] | None:
    """Options of trec_eval that compute ``measure``, or None if it cannot."""
    parsed = parse_measure(measure)
    settings = dict(parsed.params)
    cutoff, relevance = settings.pop("cutoff", None), settings.pop("rel", 1)
    level = ["-l", str(relevance)] if relevance != 1 else []
    if settings:
        return None
    if parsed.NAME == "AP" and cutoff is None:
        return [*level, "-m", "map"]
    if parsed.NAME == "RR":
        return [*level, *(["-M", str(cutoff)] if cutoff else []), "-m", "recip_rank"]
    if parsed.NAME in _TREC_EVAL and cutoff is not None:
        return [*level, "-m", _TREC_EVAL[parsed.NAME].format(cutoff)]
    return None
