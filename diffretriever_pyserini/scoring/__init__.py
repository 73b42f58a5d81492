"""Scores of queries against passages, and fusion of ranked lists."""

from .pairwise import cut, fuse, lexical_scores, maxsim, min_max, pooled_scores

__all__ = ["cut", "fuse", "lexical_scores", "maxsim", "min_max", "pooled_scores"]
