"""Why a passage has its place in a ranked list: what the model proposes, what met what, and how it was added up."""

from diffretriever_pyserini.explaining.explanation import Explanation
from diffretriever_pyserini.explaining.gather import explain

__all__ = ["Explanation", "explain"]
