"""The records of an explanation of one query and one passage; all numbers are those of the search itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..scoring.fusion import Contribution


@dataclass(frozen=True, slots=True)
class Proposal:
    """One row of the output head at one mask position.

    Attributes
    ----------
    term : the row's name in Lucene.
    shown : the token in readable form.
    probability : softmax over the whole vocabulary.
    weight : log(1 + relu(logit)), before scaling and rounding.
    own : whether it is a lexical term of the text.
    special : whether it is a special token; where the model stops at these, it ends the answer.
    """

    term: str
    shown: str
    probability: float
    weight: float
    own: bool
    special: bool


@dataclass(frozen=True, slots=True)
class MaskPosition:
    """One mask position: the strongest ``proposals``, and the strongest ``own`` terms of the text.

    ``kept`` is False after the end of the model's answer (the vector is zero and the weights do not count).
    """

    proposals: tuple[Proposal, ...]
    own: tuple[Proposal, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class TextView:
    """A text as the model reads it: its first ``tokens`` tokens; ``full`` where that is the maximum length.

    ``positions`` is empty for a model that proposes nothing, see :func:`evidence.proposes`.
    """

    text: str
    tokens: int
    full: bool
    positions: tuple[MaskPosition, ...]


@dataclass(frozen=True, slots=True)
class Interaction:
    """MaxSim of a query and a passage: the interaction matrix and its sum.

    Attributes
    ----------
    cells : inner products, K_q rows of K_p.
    best : for each query vector the column of its largest inner product; None where it adds nothing.
    gains : what each query vector adds to the score.
    empty_query, empty_passage : which vectors are zero.
    alike_query, alike_passage : the positions in groups that say the same, see :func:`evidence.alike`.
    score : the sum, as in :func:`scoring.maxsim`.
    pooled : inner product of the pooled vectors, as in :func:`scoring.pooled_scores`.
    """

    cells: tuple[tuple[float, ...], ...]
    best: tuple[int | None, ...]
    gains: tuple[float, ...]
    empty_query: tuple[bool, ...]
    empty_passage: tuple[bool, ...]
    alike_query: tuple[tuple[int, ...], ...]
    alike_passage: tuple[tuple[int, ...], ...]
    score: float
    pooled: float


@dataclass(frozen=True, slots=True)
class Term:
    """A term and its impacts in query and passage; 0 in a text that lacks it.

    Attributes
    ----------
    term, shown : its name in Lucene, and the token in readable form.
    query, passage : the impacts.
    query_words, passage_words : lower-cased words that the term is, or is a piece or the stem of, in order of the text;
        empty for a text that lacks it or is not known, and for terms that the model added.
    """

    term: str
    shown: str
    query: int
    passage: int
    query_words: tuple[str, ...] = ()
    passage_words: tuple[str, ...] = ()

    @property
    def share(self) -> int:
        """The product of both impacts, which the term adds to the lexical score."""
        return self.query * self.passage


@dataclass(frozen=True, slots=True)
class Overlap:
    """The terms of both texts in order of what they add; the strongest others of each text, and the total numbers.

    ``passage_only`` is None for terms from the index, which gives only the passage's impacts for the query's terms.
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
    rank, score : those of the passage in the final list; None where no list has it.
    rrf_k : constant of reciprocal ranks; None for min-max.
    contributions : one per list, in the order of fusion.
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
        """Whether the search returns the passage."""
        return self.rank is not None and self.rank <= self.hits


@dataclass(frozen=True, slots=True)
class Explanation:
    """The explanation of one passage's rank for a query.

    Attributes
    ----------
    passage : None where its text is not known.
    vectors, indexed_vectors : from the text and from the index; None where unknown.
    similarity : mean cosine of the passage's vectors from the text and from the index; None where unknown.
    dense : inner product of the query's pooled vector and the one in the FAISS index.
    terms, indexed_terms : from the text and from the index; None where unknown.
    lucene_document : whether the passage is in the lexical index; None without such an index.
    frequencies : sentences on what term frequency changes (``lexical_tf``).
    result : the passage's rank, and how its score adds up.
    notes : what is missing and how to get it.
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
    frequencies: tuple[str, ...]
    result: RankedEntry
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        """For notebooks: the page, in a frame of its own so that its style stays inside."""
        import html

        from .page import to_html

        page = html.escape(to_html([self]))
        return f'<iframe srcdoc="{page}" title="Explanation" style="width: 100%; height: 40em; border: 0"></iframe>'
