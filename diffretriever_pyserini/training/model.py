"""The trained module: a backbone with LoRA, read at the positions of its read-out with gradients.

A whole batch goes through one ``forward``. With ``chunk`` set, the texts are encoded chunk by chunk under activation
checkpointing: only the K rows of each text are kept until the loss, and the backward pass re-encodes one chunk at a
time. This is GradCache's gradient (exactly that of the whole batch) in one ordinary ``backward``, so that DDP,
DeepSpeed and FSDP see a single step; dropout draws the same masks both times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..model.backbones.base import Backbone
from ..model.backbones.causal import CausalBackbone
from ..model.generation import read_words
from ..model.layout import Layout
from ..model.readouts import has_terms, mean_states
from .losses import denoising_loss, lexical_activations

_CACHED_TOKENS = 1536  # whose activations of a small base stay in a processor's cache

Side = dict[str, Tensor]
"""``input_ids`` and ``attention_mask`` int64 [N, L], ``positions`` int64 [N, K] that are read in each row (not used for
the mean); with a content filter ``content`` int64 [N, C], padded with -1."""


class MaskReader(nn.Module):
    """K hidden states and lexical activations per text, differentiable; the output head runs on the K rows only.

    A read-out without terms (docs/method.md §8.2) has one state per text and no activations.

    Parameters
    ----------
    backbone : its ``model`` is trained in place (add LoRA first, see lora.py).
    layouts : the token layout of "query" and "passage".
    chunk : texts encoded at a time; 0 encodes a side at once and keeps its activations.
    excluded : ids that are not terms (the unknown word); content ids do not contain them.
    readout : what is read of each text.
    """

    def __init__(
        self,
        backbone: Backbone,
        layouts: dict[str, Layout],
        chunk: int = 0,
        excluded: frozenset[int] = frozenset(),
        readout: str = "mask",
    ):
        super().__init__()
        self.network = backbone.model
        self.backbone = backbone
        self.layouts = layouts
        self.chunk = chunk
        self.excluded = sorted(excluded)
        self.readout = readout
        self._dropout = base_dropout(backbone)
        backbone.pack()
        # A key-value cache is of no use here and would hold every layer's keys.
        self.network.config.use_cache = False

    def forward(
        self, query: Side | None = None, passage: Side | None = None, denoise: Side | None = None
    ) -> dict[str, Tensor]:
        """Encode both sides of a batch.

        Returns
        -------
        ``query_hidden`` float32 [Nq, Kq, H], ``query_lexical`` float32 [Nq, C] (or [Nq, V] without content filter; none
        without terms), the same for passages; with ``denoise`` (see data/batches.py) ``denoising``, that loss.
        """
        outputs: dict[str, Tensor] = {}
        for side, batch in (("query", query), ("passage", passage)):
            if batch is not None:
                names = (f"{side}_hidden", f"{side}_lexical")
                outputs |= zip(names, self._encode(side, batch), strict=False)
        if denoise is not None:
            outputs["denoising"] = self._denoise(denoise)
        return outputs

    def _encode(self, side: str, batch: Side) -> list[Tensor]:
        """Hidden states, and lexical activations of a read-out with terms."""
        if self.readout == "next_token" and self.layouts[side].k > 1:
            batch = batch | self._with_words(batch, self.layouts[side].k - 1)
        names = ("input_ids", "attention_mask", "positions", "content", "factors")
        parts = [
            self._run(self._read, side, *(batch[name][rows] if name in batch else None for name in names))
            for rows in _slices(len(batch["input_ids"]), self.chunk)
        ]
        return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]

    @torch.no_grad()
    def _with_words(self, batch: Side, count: int) -> Side:
        """``input_ids`` and ``attention_mask`` with the ``count`` words that the model says after each prompt.

        The words are those of encoding (docs/method.md §8.1), so there is no dropout; their choice has no gradient. A
        causal model reads them in one pass as it does one by one.
        """
        assert isinstance(self.backbone, CausalBackbone)
        training = self.network.training
        self.network.eval()
        ids, mask = batch["input_ids"], batch["attention_mask"]
        parts = [read_words(self.backbone, ids[rows], mask[rows], count)[1] for rows in _slices(len(ids), self.chunk)]
        self.network.train(training)
        words = torch.cat([logits.argmax(dim=2) for logits in parts])
        return {
            "input_ids": torch.cat([ids, words], dim=1),
            "attention_mask": torch.cat([mask, mask.new_ones(words.shape)], dim=1),
        }

    def _run(self, function: Any, *arguments: Any) -> Any:
        if self.chunk and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)
        return function(*arguments)

    def _read(
        self,
        side: str,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        content: Tensor | None,
        factors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        block = self.layouts[side].block
        if self.readout == "mean":
            rows = self._means(ids, mask, block).unsqueeze(1)
        else:
            rows = (self._packed if self._packs(ids) else self._padded)(ids, mask, positions, block)
        if not has_terms(self.readout):
            return (rows.float(),)
        logits = self.backbone.head(rows) if content is None else self._columns(rows, content.clamp(min=0))
        if content is None and self.excluded:
            logits = logits.index_fill(2, torch.tensor(self.excluded, device=logits.device), -torch.inf)
        return rows.float(), lexical_activations(logits, content, factors)

    def _packs(self, ids: Tensor) -> bool:
        """Whether to pack: on a GPU only for the kernels, which have no dropout; without them it would be slower."""
        if not self.backbone.packs or ids.device.type == "cpu":
            return self.backbone.packs
        return self.backbone.has_kernel and not (self.training and self._dropout)

    def _columns(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits [N, K, C] of ``columns`` [N, C], in whichever way takes less memory."""
        if columns.shape[1] * rows.shape[2] <= rows.shape[1] * self.backbone.vocab_size:
            return self.backbone.head_columns(rows, columns)
        return self.backbone.head_columns_of_all(rows, columns)

    def _means(self, ids: Tensor, mask: Tensor, block: int) -> Tensor:
        """Mean of each text's hidden states, float32 [N, H]."""
        if self._packs(ids):
            states, order, lengths = self._packed_states(ids, mask, block)
            return mean_states(states, lengths)[order.argsort()]
        ids, mask, _ = self._trim(ids, mask)
        states = self.backbone.hidden_states(ids, mask, block)
        return mean_states(states[mask.bool()], mask.sum(dim=1))

    def _padded(self, ids: Tensor, mask: Tensor, positions: Tensor, block: int) -> Tensor:
        """Hidden states [N, K, H] at ``positions`` of padded rows."""
        ids, mask, cut = self._trim(ids, mask)
        states = self.backbone.hidden_states(ids, mask, block)
        return states.gather(1, (positions - cut).unsqueeze(2).expand(-1, -1, states.shape[2]))

    def _packed(self, ids: Tensor, mask: Tensor, positions: Tensor, block: int) -> Tensor:
        """The same, computed without the padding."""
        states, order, lengths = self._packed_states(ids, mask, block)
        starts = torch.empty_like(lengths)
        starts[order] = lengths.cumsum(dim=0) - lengths
        if self.backbone.pad_left:
            starts -= ids.shape[1] - mask.sum(dim=1)
        return states[starts.unsqueeze(1) + positions]

    def _packed_states(self, ids: Tensor, mask: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states [T, H] of all tokens, texts by length; their rows in this order [N], and their lengths [N]."""
        lengths = mask.sum(dim=1)
        order = lengths.argsort(stable=True)  # texts of equal length attend together
        lengths = lengths[order]
        sizes_in_order = lengths.cpu().numpy()
        states, first = [], int(np.count_nonzero(sizes_in_order == 0))  # only without a prompt
        for sizes in _at_once(sizes_in_order[first:], ids.device.type):
            rows = order[first : first + len(sizes)]
            packing = self.backbone.packing(sizes)
            states.append(self.backbone.packed_states(ids[rows][mask[rows].bool()], packing, block))
            first += len(sizes)
        return torch.cat(states), order, lengths

    @torch.no_grad()
    def plain_embeddings(self, batch: Side) -> Tensor:
        """Unit embeddings [N, H] of plain texts: the mean over their tokens, as in the base's sentence encoder."""
        training = self.network.training
        self.network.eval()
        ids, mask = batch["input_ids"], batch["attention_mask"]
        parts = [self._means(ids[rows], mask[rows], block=0) for rows in _slices(len(ids), self.chunk)]
        self.network.train(training)
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)

    def _trim(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
        """``ids`` and ``mask`` without the columns that are padding in every row, and how many were cut on the left."""
        width = int(mask.sum(dim=1).max())
        cut = ids.shape[1] - width if self.backbone.pad_left else 0
        return ids[:, cut : cut + width], mask[:, cut : cut + width], cut

    def _denoise(self, batch: Side) -> Tensor:
        """Denoising loss of passages with part of their text masked; ``targets`` [N, L] is -1 at unmasked tokens."""
        names = ("input_ids", "attention_mask", "targets", "ratios")
        total = batch["text_tokens"].sum().clamp(min=1)
        parts = [
            self._run(self._masked_loss, *(batch[name][rows] for name in names))
            for rows in _slices(len(batch["input_ids"]), self.chunk)
        ]
        return torch.stack(parts).sum() / total

    def _masked_loss(self, ids: Tensor, mask: Tensor, targets: Tensor, ratios: Tensor) -> Tensor:
        ids, mask, cut = self._trim(ids, mask)
        targets = targets[:, cut : cut + ids.shape[1]]
        states = self.backbone.hidden_states(ids, mask, self.layouts["passage"].block)
        hidden = targets >= 0
        logits = self.backbone.head(states[hidden])
        return denoising_loss(logits, targets[hidden], ratios.unsqueeze(1).expand_as(targets)[hidden], tokens=1)


def _at_once(lengths: np.ndarray, device: str) -> list[np.ndarray]:
    """``lengths`` in pieces that are computed at once: all of them, or on a CPU what its cache holds."""
    if device != "cpu":
        return [lengths]
    pieces = (np.cumsum(lengths) - lengths) // _CACHED_TOKENS
    return np.split(lengths, np.flatnonzero(np.diff(pieces)) + 1)


def _slices(count: int, chunk: int) -> list[slice]:
    step = chunk or count
    return [slice(start, start + step) for start in range(0, count, step)]


def base_dropout(backbone: Backbone) -> float:
    """The largest dropout of the base's layers and attention."""
    return max((float(getattr(module, name)) for module, name in _dropouts(backbone)), default=0.0)


def set_base_dropout(backbone: Backbone, dropout: float) -> None:
    """Set the dropout of the base's layers and attention; that of an adapter is its own."""
    for module, name in _dropouts(backbone):
        setattr(module, name, dropout)


def _dropouts(backbone: Backbone) -> Iterator[tuple[nn.Module, str]]:
    """Modules with a dropout, and the attribute that holds it."""
    for name, module in backbone.model.named_modules():
        if isinstance(module, nn.Dropout) and "lora_dropout" not in name:
            yield module, "p"
        elif isinstance(getattr(module, "attention_dropout", None), float):
            yield module, "attention_dropout"


def use_gradient_checkpointing(backbone: Backbone) -> None:
    """Keep only each layer's input for the backward pass and recompute the rest (about a third more work)."""
    model: Any = backbone.model
    options = {"use_reentrant": False}  # the reentrant kind does not work inside a chunk's checkpoint
    if hasattr(model, "activation_checkpointing_enable"):  # its name in later releases of transformers 5
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
