"""From texts to token ids and content ids, without the model, so that worker processes can do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from ..errors import ConfigError, PanicError, panics_as_errors, reason
from ..settings import parsed
from .backbones.loading import load_tokenizer
from .config import LexicalTf, RetrieverConfig, check_side
from .layout import Layout, build_layout, tokenize_texts
from .lexical import ContentTokens
from .method import tf_factors
from .readouts import has_terms


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different lengths in two flat arrays: row i is ``values[bounds[i]:bounds[i + 1]]``."""

    values: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int] | np.ndarray], dtype: type = np.int32) -> Ragged:
        """Concatenate ``rows``, as int32 unless ``dtype`` says otherwise."""
        bounds = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=bounds[1:])
        return cls(np.fromiter(chain.from_iterable(rows), dtype, int(bounds[-1])), bounds)

    @classmethod
    def joined(cls, pieces: Sequence[Ragged]) -> Ragged:
        """The rows of all ``pieces``."""
        bounds = np.concatenate([[0], np.cumsum(np.concatenate([piece.lengths for piece in pieces]))])
        return cls(np.concatenate([piece.values for piece in pieces]), bounds.astype(np.int64))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.bounds[i] : self.bounds[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 [N]."""
        return np.diff(self.bounds)


@dataclass(frozen=True, slots=True)
class Prepared:
    """N texts of one side.

    Attributes
    ----------
    ids : token ids, cut to the layout's budget.
    content : ids of each text's terms, none for a read-out without terms; None for a whole-vocabulary model.
    factors : float32, of the weights of these terms (``lexical_tf``); None for a model without such factors.
    """

    layout: Layout
    ids: Ragged
    content: Ragged | None
    factors: Ragged | None = None
    side: str = "passage"

    @classmethod
    def joined(cls, pieces: Sequence[Prepared]) -> Prepared:
        """The texts of all ``pieces``."""

        def ragged(name: str) -> Any:
            parts = [getattr(piece, name) for piece in pieces]
            return None if parts[0] is None else Ragged.joined(parts)

        first = pieces[0]
        return cls(first.layout, ragged("ids"), ragged("content"), ragged("factors"), first.side)

    def take(self, rows: Sequence[int]) -> Prepared:
        """The texts ``rows``."""

        def ragged(table: Ragged | None) -> Any:
            return None if table is None else Ragged.of([table[i] for i in rows], table.values.dtype.type)

        return Prepared(self.layout, ragged(self.ids), ragged(self.content), ragged(self.factors), self.side)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens that the model reads per text, including masks and tail, int64 [N]."""
        return self.ids.lengths + len(self.layout.assemble(()))


def terms_and_factors(content: ContentTokens, text: str, tf: LexicalTf, side: str) -> tuple[list[int], np.ndarray]:
    """Ids of the terms of ``text``, and the factors float32 of their weights (docs/method.md §4.1)."""
    terms, counts, length = content.counted(text)
    return terms, tf_factors(np.array(counts), length, tf, side)


class Preparer:
    """Tokenise and split texts as a retriever of ``config`` does; a worker process needs nothing else."""

    def __init__(self, config: RetrieverConfig, tokenizer: Any = None):
        self.config = config
        self.tokenizer = load_tokenizer(config) if tokenizer is None else tokenizer
        self.layouts = {side: build_layout(config, self.tokenizer, side) for side in ("query", "passage")}

    @cached_property
    def content(self) -> ContentTokens:
        """Content token ids of a text (docs/method.md §4)."""
        config = self.config
        stems = config.lexical_terms == "stems"
        masks = self.layouts["query"].masks
        return ContentTokens(self.tokenizer, masks, max_chars=config.max_lexical_chars, stems=stems)

    def layout(self, side: str, max_length: int | None = None) -> Layout:
        """Token layout of ``side``; ``max_length`` can only shorten it. Raises ConfigError if it leaves no text."""
        if max_length is not None:
            max_length = parsed(max_length, int, ConfigError, "max_length")
        what = f"{self.config.name}, {side} side"
        layout = self.layouts[check_side(side)].shortened(max_length, what)
        prefix = self.config.text_prefix(side)
        if prefix and len(tokenize_texts(self.tokenizer, [prefix], layout.text_budget)[0]) >= layout.text_budget:
            raise ConfigError(f"{what}: the text prefix {prefix!r:.60} leaves no token for the text; raise max_length.")
        return layout

    def __call__(self, texts: Sequence[str], side: str, max_length: int | None = None) -> Prepared:
        """Ids and content ids of ``texts``.

        Raises ConfigError if ``max_length`` leaves no token for text, or the tokenizer fails at one.
        """
        layout = self.layout(side, max_length)
        try:
            return self._prepared(texts, layout, side)
        except PanicError:
            for text in texts:  # one by one, to name the text
                try:
                    self._prepared([text], layout, side)
                except PanicError as error:
                    raise ConfigError(
                        f"{self.config.name}: the tokenizer failed at the text {text!r:.60} ({reason(error)}); check "
                        "its tokenizer.json."
                    ) from error
            raise

    def _prepared(self, texts: Sequence[str], layout: Layout, side: str) -> Prepared:
        with panics_as_errors():
            if not has_terms(self.config.readout):
                prefix = self.config.text_prefix(side)
                texts = [prefix + text for text in texts]
                ids = Ragged.of(tokenize_texts(self.tokenizer, texts, layout.text_budget))
                return Prepared(layout, ids, Ragged.of([()] * len(texts)), side=side)
            ids = Ragged.of(tokenize_texts(self.tokenizer, texts, layout.text_budget))
            if self.config.lexical_terms == "vocabulary":
                return Prepared(layout, ids, None, side=side)
            tf = self.config.lexical_tf
            if tf is None:
                return Prepared(layout, ids, Ragged.of([self.content(text) for text in texts]), side=side)
            content, factors = [], []
            for text in texts:
                terms, of_terms = terms_and_factors(self.content, text, tf, side)
                content.append(terms)
                factors.append(of_terms)
            return Prepared(layout, ids, Ragged.of(content), Ragged.of(factors, np.float32), side)
