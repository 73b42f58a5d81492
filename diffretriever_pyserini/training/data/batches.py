"""From examples to tensors: both sides of a batch tokenised, padded, with their content tokens and masked copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...model.layout import Layout, TokenTable, tokenize_texts
from ...model.lexical import ContentTokens
from ..settings import TrainSettings
from .store import text_key


@dataclass(frozen=True, slots=True)
class Example:
    """One query with its passages, the positive first; ``scores`` are a teacher's, in the passages' order.

    ``seed`` belongs to the row and the epoch: what is drawn for the row does not depend on the rest of the run.
    ``positives`` are the :func:`~.store.text_key` of all positives that the query is known to have.
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
    tokenizer, layouts : of the model; a Layout per side.
    pad_left : as the backbone wants it.
    terms : ``lexical_terms`` of the retriever; ``vocabulary`` has no content filter.
    settings : of the run: whether positives are also read with part of their text masked, and both sides also laid out
        as ``prefix text suffix`` without masks, for a teacher that reads plain texts.
    """

    def __init__(
        self,
        tokenizer: Any,
        layouts: dict[str, Layout],
        pad_left: bool,
        terms: str = "content",
        settings: TrainSettings | None = None,
    ):
        self.tokenizer = tokenizer
        self.layouts = layouts
        self.pad_left = pad_left
        self.denoise_passages = settings.denoising_passages if settings and settings.denoising_weight else 0
        self.plain = settings is not None and settings.distils_embeddings
        # The mask's own id stays in, as in the published training; it is no word of any ordinary text.
        self._content = None if terms == "vocabulary" else ContentTokens(tokenizer, stems=terms == "stems")

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One batch: ``query`` and ``passage`` sides, ``positives`` [Nq] (their rows), and what was asked for.

        ``passage_keys`` int64 [Np, 1] name the passages' texts, ``known_keys`` int64 [Nq, C] those of every positive of
        a query, so that none of them counts as its negative.
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

    def side(self, texts: Sequence[str], side: str) -> dict[str, Tensor]:
        """One side of a batch, see :data:`~..model.Side`."""
        layout = self.layouts[side]
        batch, table = self._padded(tokenize_texts(self.tokenizer, texts, layout.text_budget), layout)
        in_row = table.mask_positions(layout) - table.shape[1] * np.arange(len(texts))[:, None]
        batch["positions"] = torch.from_numpy(in_row)
        if self._content is not None:
            words = [self._content(text) for text in texts]
            width = max(1, *map(len, words))
            batch["content"] = torch.tensor([[*one, *[-1] * (width - len(one))] for one in words])
        return batch

    def _padded(
        self, texts: Sequence[Sequence[int] | np.ndarray], layout: Layout
    ) -> tuple[dict[str, Tensor], TokenTable]:
        """``input_ids`` and ``attention_mask`` [N, L] of the ids of texts, and where each of them lies."""
        table = TokenTable.padded(layout.lengths(texts), self.pad_left)
        ids, mask = torch.from_numpy(table.ids(layout, texts)), torch.from_numpy(table.mask())
        return {"input_ids": ids, "attention_mask": mask}, table

    def _plain(self, texts: Sequence[str], side: str) -> dict[str, Tensor]:
        layout = self.layouts[side]
        ids = tokenize_texts(self.tokenizer, texts, layout.text_budget)
        return self._padded(ids, replace(layout, k=0, tail=()))[0]

    def _masked(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Positives with a random share t of their text tokens masked, t uniform on (0, 1] (LLaDA, section 2.1)."""
        layout = self.layouts["passage"]
        texts = tokenize_texts(self.tokenizer, [example.passages[0] for example in examples], layout.text_budget)
        shown, targets, ratios = [], [], []
        for example, text in zip(examples, texts, strict=True):
            draw = np.random.default_rng(example.seed)
            ratios.append(1.0 - draw.random())
            hidden = draw.random(len(text)) < ratios[-1]
            shown.append(np.where(hidden, layout.mask_id, text))
            targets.append(np.where(hidden, text, -1))
        batch, table = self._padded(shown, layout)
        wanted = np.full(table.size, -1, dtype=np.int64)
        for start, target in zip(table.starts + len(layout.prefix), targets, strict=True):
            wanted[start : start + len(target)] = target
        batch["targets"] = torch.from_numpy(wanted.reshape(table.shape))
        batch["ratios"] = torch.tensor(ratios, dtype=torch.float32)
        batch["text_tokens"] = torch.tensor([len(ids) for ids in texts])
        return batch


def _known_keys(examples: Sequence[Example]) -> Tensor:
    """Keys of the positives of each query, of equal queries together, int64 [N, C]; filled up with one of them."""
    known: dict[int, set[int]] = {}
    asked = [text_key(example.query) for example in examples]
    for key, example in zip(asked, examples, strict=True):
        known.setdefault(key, set()).update((*example.positives, text_key(example.passages[0])))
    width = max(map(len, known.values()))
    filled = {key: sorted(keys) + [min(keys)] * (width - len(keys)) for key, keys in known.items()}
    return torch.tensor([filled[key] for key in asked])
