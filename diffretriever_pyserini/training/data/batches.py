"""From examples to tensors: both sides of a batch tokenised, padded, with their content tokens and masked copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...model.layout import Layout, tokenize_texts
from ...model.lexical import ContentTokens


@dataclass(frozen=True, slots=True)
class Example:
    """One query with its passages, the positive first; ``scores`` are a teacher's, in the passages' order.

    ``seed`` belongs to the row and the epoch: what is drawn for the row does not depend on the rest of the run.
    """

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    seed: int = 0


class Collator:
    """Make the arguments of :class:`~.model.MaskReader` from examples.

    Parameters
    ----------
    tokenizer, layouts : of the model; a Layout per side.
    pad_left : as the backbone wants it.
    terms : ``lexical_terms`` of the retriever; ``vocabulary`` has no content filter.
    denoise_passages : positives per batch that are also read with part of their text masked; 0 for none.
    plain : also lay out both sides as ``prefix text suffix`` without masks, for a teacher that reads plain texts.
    """

    def __init__(
        self,
        tokenizer: Any,
        layouts: dict[str, Layout],
        pad_left: bool,
        terms: str = "content",
        denoise_passages: int = 0,
        plain: bool = False,
    ):
        self.tokenizer = tokenizer
        self.layouts = layouts
        self.pad_left = pad_left
        self.denoise_passages = denoise_passages
        self.plain = plain
        # The mask's own id stays in, as in the published training; it is no word of any ordinary text.
        self._content = None if terms == "vocabulary" else ContentTokens(tokenizer, stems=terms == "stems")

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One batch: ``query`` and ``passage`` sides, ``positives`` [Nq] (their rows), and what was asked for."""
        queries = [example.query for example in examples]
        passages = [passage for example in examples for passage in example.passages]
        sizes = [len(example.passages) for example in examples]
        batch: dict[str, Any] = {
            "query": self.side(queries, "query"),
            "passage": self.side(passages, "passage"),
            "positives": torch.tensor([0, *np.cumsum(sizes[:-1])]),
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
        """``input_ids``, ``attention_mask`` [N, L] of ``texts`` and, with the content filter, ``content`` [N, C]."""
        layout = self.layouts[side]
        ids = tokenize_texts(self.tokenizer, texts, layout.text_budget)
        batch = self._pad([layout.assemble(one) for one in ids], layout.pad_id)
        if self._content is not None:
            words = [self._content(text) for text in texts]
            width = max(1, *map(len, words))
            batch["content"] = torch.tensor([[*one, *[-1] * (width - len(one))] for one in words])
        return batch

    def _pad(self, sequences: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
        width = max(map(len, sequences))
        ids = torch.full((len(sequences), width), pad_id)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            span = slice(width - len(sequence), width) if self.pad_left else slice(0, len(sequence))
            ids[i, span], mask[i, span] = torch.tensor(sequence), 1
        return {"input_ids": ids, "attention_mask": mask}

    def _plain(self, texts: Sequence[str], side: str) -> dict[str, Tensor]:
        layout = self.layouts[side]
        ids = tokenize_texts(self.tokenizer, texts, layout.text_budget)
        return self._pad([[*layout.prefix, *one, *layout.suffix] for one in ids], layout.pad_id)

    def _masked(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Positives with a random share t of their text tokens masked, t uniform on (0, 1] (LLaDA, section 2.1)."""
        layout = self.layouts["passage"]
        texts = tokenize_texts(self.tokenizer, [example.passages[0] for example in examples], layout.text_budget)
        sequences, targets, ratios = [], [], []
        for example, ids in zip(examples, texts, strict=True):
            draw = np.random.default_rng(example.seed)
            ratio = 1.0 - draw.random()
            hidden = draw.random(len(ids)) < ratio
            shown = [layout.mask_id if gone else token for token, gone in zip(ids, hidden, strict=True)]
            before, after = len(layout.prefix), len(layout.suffix) + layout.k + len(layout.tail)
            sequences.append(layout.assemble(shown))
            wanted = [token if gone else -1 for token, gone in zip(ids, hidden, strict=True)]
            targets.append([*[-1] * before, *wanted, *[-1] * after])
            ratios.append(ratio)
        batch = self._pad(sequences, layout.pad_id)
        batch["targets"] = self._pad(targets, -1)["input_ids"]
        batch["ratios"] = torch.tensor(ratios, dtype=torch.float32)
        batch["text_tokens"] = torch.tensor([len(ids) for ids in texts])
        return batch
