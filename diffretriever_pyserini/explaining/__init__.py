"""Why a search gives a passage its rank: lists fused, terms matched, vectors compared, tokens proposed."""

from .explain import explain
from .page import to_html
from .records import Explanation

__all__ = ["Explanation", "explain", "to_html"]
