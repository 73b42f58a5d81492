"""From examples to tensors: both sides of a batch tokenised, padded, with their content tokens and masked copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...model.config import RetrieverConfig
from ...model.layout import Layout, TokenTable, tokenize_texts
from ...model.lexical import ContentTokens
from ...model.readouts import has_terms, positions_read
from ...model.tokenization import terms_and_factors
from ..settings import TrainSettings
from .store import text_key


@dataclass(frozen=True, slots=True)
class Example:
    """One query with its passages, the positive first; ``scores`` are a teacher's, in the passages' order.

    ``seed`` depends on the row and the epoch only, so draws for the row do not depend on the rest of the run.
    ``positives`` are the :func:`~.store.text_key` of all known positives of the query.
    """

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    seed: int = 0
    positives: tuple[int, ...] = ()


class Collator:
    """Make the arguments of :class:`~..model.MaskReader` from examples.

    Parameters
    ----------
    tokenizer, layouts : the model's tokenizer, and a Layout per side.
    pad_left : whether the backbone expects padding on the left.
    terms : ``lexical_terms`` of the retriever; ``vocabulary`` has no content filter.
    config : of the retriever, for its ``lexical_tf``, its read-out and the text before each text; None: without.
    settings : settings of the run. They decide whether a batch also has positives with part of their text masked, and
        both sides as ``prefix text suffix`` without masks, for a teacher that reads plain texts.
    """

    def __init__(
        self,
        tokenizer: Any,
        layouts: dict[str, Layout],
        pad_left: bool,
        terms: str = "content",
        settings: TrainSettings | None = None,
        config: RetrieverConfig | None = None,
    ):
        self.tokenizer = tokenizer
        self.layouts = layouts
        self.pad_left = pad_left
        self._config = config
        self._tf = config.lexical_tf if config else None
        no_terms = config is not None and not has_terms(config.readout)
        self.denoise_passages = settings.denoising_passages if settings and settings.denoising_weight else 0
        self.plain = settings is not None and settings.distils_embeddings
        # The mask's id is not filtered out, as in the published training; ordinary texts do not contain it.
        self._content = None if no_terms or terms == "vocabulary" else ContentTokens(tokenizer, stems=terms == "stems")

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One batch: ``query`` and ``passage`` sides, ``positives`` [Nq] (their rows), and what the losses need.

        ``passage_keys`` int64 [Np, 1] are the keys of the passages' texts, ``known_keys`` int64 [Nq, C] those of all
        positives of a query, so that none of them counts as its negative.
        """
        queries = [example.query for example in examples]
        passages = [passage for example in examples for passage in example.passages]
        sizes = [len(example.passages) for example in examples]
        batch: dict[str, Any] = {
            "query": self.side(queries, "query"),
            "passage": self.side(passages, "passage"),
            "positives": torch.tensor([0, *np.cumsum(sizes[:-1])]),
            "passage_keys": torch.tensor([[text_key(passage)] for passage in passages]),
            "known_keys": _known_keys(examples),
        }
        if all(example.scores is not None for example in examples):
            batch["teacher_scores"] = torch.tensor([example.scores for example in examples])
        if self.denoise_passages:
            batch["denoise"] = self._masked(examples[: self.denoise_passages])
        if self.plain:
            batch["plain"] = {
                side: self._plain(texts, side) for side, texts in (("query", queries), ("passage", passages))
            }
        return batch

    def text_frequencies(self, texts: Iterable[str], vocab_size: int) -> np.ndarray | None:
        """In how many of ``texts`` each term occurs, int64 [vocab_size]; None without a content filter."""
        if self._content is None:
            return None
        counts = np.zeros(vocab_size, dtype=np.int64)
        for text in texts:
            counts[self._content(text)] += 1
        return counts

    def side(self, texts: Sequence[str], side: str) -> dict[str, Tensor]:
        """One side of a batch, see :data:`~..model.Side`."""
        layout = self.layouts[side]
        batch, table = self._padded(self._ids(texts, side), layout)
        in_row = positions_read(table, layout) - table.shape[1] * np.arange(len(texts))[:, None]
        batch["positions"] = torch.from_numpy(in_row)
        if self._content is not None:
            if self._tf is None:
                content = [self._content(text) for text in texts]
            else:
                pairs = [terms_and_factors(self._content, text, self._tf, side) for text in texts]
                content = [ids for ids, _ in pairs]
                batch["factors"] = _table([factors.tolist() for _, factors in pairs], 0.0)
            batch["content"] = _table(content, -1)
        return batch

    def _ids(self, texts: Sequence[str], side: str) -> list[list[int]]:
        prefix = self._config.text_prefix(side) if self._config else ""
        return tokenize_texts(self.tokenizer, [prefix + text for text in texts], self.layouts[side].text_budget)

    def _padded(
        self, texts: Sequence[Sequence[int] | np.ndarray], layout: Layout
    ) -> tuple[dict[str, Tensor], TokenTable]:
        """``input_ids`` and ``attention_mask`` [N, L] of the ids of texts, and the position of each text."""
        table = TokenTable.padded(layout.lengths(texts), self.pad_left)
        ids, mask = torch.from_numpy(table.ids(layout, texts)), torch.from_numpy(table.mask())
        return {"input_ids": ids, "attention_mask": mask}, table

    def _plain(self, texts: Sequence[str], side: str) -> dict[str, Tensor]:
        return self._padded(self._ids(texts, side), replace(self.layouts[side], k=0, tail=()))[0]

    def _masked(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Positives with a random share t of their text tokens masked, t uniform on (0, 1] (LLaDA, section 2.1)."""
        layout = self.layouts["passage"]
        texts = tokenize_texts(self.tokenizer, [example.passages[0] for example in examples], layout.text_budget)
        inputs, targets, ratios = [], [], []
        for example, text in zip(examples, texts, strict=True):
            draw = np.random.default_rng(example.seed)
            ratios.append(1.0 - draw.random())
            hidden = draw.random(len(text)) < ratios[-1]
            inputs.append(np.where(hidden, layout.masks[0], text))
            targets.append(np.where(hidden, text, -1))
        batch, table = self._padded(inputs, layout)
        padded_targets = np.full(table.size, -1, dtype=np.int64)
        for start, target in zip(table.starts + len(layout.prefix), targets, strict=True):
            padded_targets[start : start + len(target)] = target
        batch["targets"] = torch.from_numpy(padded_targets.reshape(table.shape))
        batch["ratios"] = torch.tensor(ratios, dtype=torch.float32)
        batch["text_tokens"] = torch.tensor([len(ids) for ids in texts])
        return batch


def _table(rows: Sequence[Sequence[float]], padding: float) -> Tensor:
    """``rows`` as a tensor of at least one column, filled up with ``padding``."""
    width = max(1, *map(len, rows))
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])


def _known_keys(examples: Sequence[Example]) -> Tensor:
    """Keys of the positives of each query, int64 [N, C]; equal queries share theirs, and rows are padded with a key."""
    known: dict[int, set[int]] = {}
    queries = [text_key(example.query) for example in examples]
    for key, example in zip(queries, examples, strict=True):
        known.setdefault(key, set()).update((*example.positives, text_key(example.passages[0])))
    width = max(map(len, known.values()))
    padded = {key: sorted(keys) + [min(keys)] * (width - len(keys)) for key, keys in known.items()}
    return torch.tensor([padded[key] for key in queries])
