"""Why a search gives a passage its rank: tokens proposed, vectors compared, terms matched, lists fused."""

from .explain import explain
from .page import to_html
from .records import Explanation

__all__ = ["Explanation", "explain", "to_html"]
