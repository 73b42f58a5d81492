"""The representations of N texts (docs/method.md §4)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .method import pool

if TYPE_CHECKING:
    import scipy.sparse

    from .lexical import TermNames


@dataclass(frozen=True, repr=False)
class Representations:
    """Both representations of N texts.

    Attributes
    ----------
    vectors : float32 [N, K, H], each row of unit length, or zero if the position was cut or the text is empty.
    weights : CSR int32 [N, V], impacts by token id (V = rows of the output head); none for a read-out without terms.

    Examples
    --------
    >>> from diffretriever_pyserini import DiffRetriever
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> documents = model.encode_document(["Paris is in France."])
    >>> documents.pooled.shape == (1, model.dimension)
    True
    >>> sorted(documents.impacts[0])
    ['france', 'paris']
    """

    vectors: np.ndarray
    weights: scipy.sparse.csr_matrix
    _names: TermNames = field(repr=False, compare=False)

    def __repr__(self) -> str:
        (n, k, h), (_, v) = self.vectors.shape, self.weights.shape
        weights = f"weights int32 [{n}, {v}] with {self.weights.nnz} non-zero"
        return f"Representations({n} texts, vectors float32 [{n}, {k}, {h}], {weights})"

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def pooled(self) -> np.ndarray:
        """float32 [N, H]: mean of each text's non-zero vectors, not normalised again."""
        return pool(self.vectors)

    @property
    def impacts(self) -> list[dict[str, int]]:
        """One ``{term: impact}`` per text for Lucene: ints of at least 1, terms as :class:`~.lexical.TermNames`."""
        bounds, columns, values = self.weights.indptr, self.weights.indices, self.weights.data
        return [
            {self._names.name(c): int(v) for c, v in zip(columns[a:b].tolist(), values[a:b].tolist(), strict=True)}
            for a, b in itertools.pairwise(bounds.tolist())
        ]


class MaskOutputs(NamedTuple):
    """At the K positions: float32 ``hidden`` [N, K, H] after the final norm, float32 ``logits`` [N, K, V]."""

    hidden: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True, slots=True)
class QueryRepresentation:
    """One query, for all searchers: pooled ``vector`` float32 [H], ``impacts`` {term: int}, ``vectors`` [K_q, H].

    BM25 reads only the ``text``, so a query :meth:`of_text` went through no model.
    """

    vector: np.ndarray
    impacts: dict[str, int]
    vectors: np.ndarray
    text: str = ""

    @classmethod
    def of_text(cls, text: str) -> QueryRepresentation:
        """A query without vectors and impacts."""
        return cls(np.empty(0, np.float32), {}, np.empty((0, 0), np.float32), text)
