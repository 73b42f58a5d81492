"""What there is to say about one query and one passage, as plain records; all numbers are those of search itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..scoring.fusion import Contribution


@dataclass(frozen=True, slots=True)
class Proposal:
    """One row of the output head at one mask position.

    Attributes
    ----------
    term : the row's name in Lucene.
    shown : the token as a person reads it.
    stem : its Porter stem, where the model counts by stems and the stem is another word than ``shown``; else None.
    probability : softmax over the whole vocabulary.
    weight : log(1 + relu(logit)), before scaling and rounding.
    own : whether it stands for a word of the text; of several forms of one stem, the weight of one counts lexically.
    special : whether it is a special token; where the model stops at these, it ends the answer.
    """

    term: str
    shown: str
    stem: str | None
    probability: float
    weight: float
    own: bool
    special: bool


@dataclass(frozen=True, slots=True)
class MaskPosition:
    """One mask position: the strongest ``proposals`` of all, and the strongest ``own`` terms of the text.

    ``kept`` is False where the model's answer had ended before (its vector is zero and its weights do not count).
    """

    proposals: tuple[Proposal, ...]
    own: tuple[Proposal, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class TextView:
    """A text as the model reads it: its first ``tokens`` tokens, ``full`` where there was room for no more."""

    text: str
    tokens: int
    full: bool
    positions: tuple[MaskPosition, ...]


@dataclass(frozen=True, slots=True)
class Interaction:
    """MaxSim of a query and a passage, pair by pair.

    Attributes
    ----------
    cells : inner products, K_q rows of K_p.
    best : for each query vector the column that it scores with; None where it scores nothing.
    gains : what each query vector adds to the score.
    empty_query, empty_passage : which vectors are zero.
    score : the sum, as :func:`scoring.maxsim` has it.
    pooled : inner product of the pooled vectors, as :func:`scoring.pooled_scores` has it.
    """

    cells: tuple[tuple[float, ...], ...]
    best: tuple[int | None, ...]
    gains: tuple[float, ...]
    empty_query: tuple[bool, ...]
    empty_passage: tuple[bool, ...]
    score: float
    pooled: float


@dataclass(frozen=True, slots=True)
class Term:
    """A term and its impacts in query and passage; 0 where a text does not have it."""

    term: str
    shown: str
    query: int
    passage: int

    @property
    def share(self) -> int:
        """What it adds to the lexical score."""
        return self.query * self.passage


@dataclass(frozen=True, slots=True)
class Overlap:
    """Terms that both texts have, by what they add; the strongest others of each, and how many there are.

    ``passage_only`` is None where only the index was asked, which does not know the passage's other terms.
    """

    matched: tuple[Term, ...]
    query_only: tuple[Term, ...]
    passage_only: tuple[Term, ...] | None
    query_terms: int
    passage_terms: int | None

    @property
    def score(self) -> int:
        """The lexical score."""
        return sum(term.share for term in self.matched)


@dataclass(frozen=True, slots=True)
class RankedEntry:
    """The passage in the result of a search.

    Attributes
    ----------
    mode, fusion, hits : of the search.
    listed : length of the final list, before it is cut to ``hits``.
    rank, score : of the passage in it; None where no list has it.
    rrf_k : constant of reciprocal ranks; None for min-max.
    contributions : of each list, in the order of fusion.
    """

    mode: str
    fusion: str | None
    hits: int
    listed: int
    rank: int | None
    score: float | None
    rrf_k: int | None
    contributions: tuple[Contribution, ...]

    @property
    def returned(self) -> bool:
        """Whether a search shows the passage."""
        return self.rank is not None and self.rank <= self.hits


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one passage and a query.

    Attributes
    ----------
    passage : None where its text is not known.
    vectors, indexed_vectors : from the text and out of the index; None where that is not known.
    similarity : mean cosine of the passage's vectors from the text and out of the index; None as above.
    dense : inner product of the query's pooled vector and the one in the FAISS index.
    terms, indexed_terms : as vectors.
    lucene_document : whether the lexical index holds the passage; None without such an index.
    result : where a search ranks the passage, and how its score adds up.
    notes : what is missing, and how to get it.
    """

    index: str
    encoder: str
    docid: str
    query: TextView
    passage: TextView | None
    vectors: Interaction | None
    indexed_vectors: Interaction | None
    similarity: float | None
    dense: float | None
    terms: Overlap | None
    indexed_terms: Overlap | None
    lucene_document: bool | None
    result: RankedEntry
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        """For notebooks: the page, in a frame of its own so that its style stays inside."""
        import html

        from .page import to_html

        page = html.escape(to_html([self]))
        return f'<iframe srcdoc="{page}" title="Explanation" style="width: 100%; height: 40em; border: 0"></iframe>'
