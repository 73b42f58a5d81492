"""Why a passage has its place in a ranked list: what the model proposes, what met what, and how it was added up."""

from .explanation import Explanation
from .gather import explain

__all__ = ["Explanation", "explain"]
