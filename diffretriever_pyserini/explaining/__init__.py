"""Why a search gives a passage its rank: tokens proposed, vectors compared, terms matched, lists fused."""

from .explain import explain
from .records import Explanation

__all__ = ["Explanation", "explain"]
