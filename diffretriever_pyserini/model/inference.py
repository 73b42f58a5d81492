"""Prepared texts through the backbone, a batch at a time; what a batch says is :mod:`.method`'s."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DiffRetrieverError, NumericalError
from ..runtime.threads import check_threads
from . import method
from .backbones.base import Backbone
from .backbones.packing import on_device
from .config import RetrieverConfig
from .denoising import read_positions
from .layout import Layout, TokenTable
from .tokenization import Prepared

if TYPE_CHECKING:
    import scipy.sparse
    import torch

Batch = tuple[np.ndarray, "scipy.sparse.csr_matrix"]
LOGIT_BYTES = 1 << 28  # where every logit is needed, a batch's stay below 256 MiB
COLUMN_BYTES = 1 << 30  # else the head's columns that a batch gathers stay below 1 GiB


class Inference:
    """A backbone that is run on batches and read at its K mask positions.

    Ids in ``never`` (mask, unknown word) never score as terms; ``stop_ids`` end a zero-shot answer (docs/method.md §4).
    """

    def __init__(self, backbone: Backbone, config: RetrieverConfig, never: frozenset[int], stop_ids: frozenset[int]):
        self.backbone, self.config = backbone, config
        self.never, self.stop_ids = sorted(never), stop_ids

    @property
    def needs_every_logit(self) -> bool:
        """Whether words are decoded or the whole vocabulary may score; else the text's own columns of the head do."""
        config = self.config
        return config.cut_at_stop or config.denoising_steps > 1 or config.lexical_terms == "vocabulary"

    def batches(self, prepared: Prepared, batch_size: int, token_budget: int | None = None) -> Iterator[list[int]]:
        """Texts of like length together, the longest first."""
        lengths = prepared.lengths
        order = np.argsort(-lengths, kind="stable").tolist()
        lengths = lengths[order]
        start = 0
        while start < len(order):
            size = (
                batch_size
                if token_budget is None
                else self._fitting(lengths[start : start + token_budget], token_budget)
            )
            if self.needs_every_logit:
                # A batch must also fit the logits: at K = 16 and 152k terms 32 texts are 311 MB in float32.
                size = min(size, max(1, LOGIT_BYTES // (4 * prepared.layout.k * self.backbone.vocab_size)))
            elif prepared.content is not None:
                # A long text is cut to a passage's tokens, but its words are thousands: their columns must fit too.
                row = self.backbone.hidden_size * self.backbone.model.dtype.itemsize
                widest = np.maximum.accumulate(prepared.content.lengths[order[start : start + size]])
                gathered = widest * np.arange(1, len(widest) + 1) * row
                size = max(1, int(np.count_nonzero(gathered <= COLUMN_BYTES)))
            yield order[start : start + size]
            start += size

    def _fitting(self, lengths: np.ndarray, token_budget: int) -> int:
        """How many of ``lengths``, the longest first, fit into ``token_budget``; padding counts where there is any."""
        if not self.backbone.packs:
            return max(1, token_budget // int(lengths[0]))
        return max(1, int(np.searchsorted(np.cumsum(lengths), token_budget, side="right")))

    def represent(self, prepared: Prepared, rows: list[int]) -> Callable[[], Batch]:
        """Set the device to work on one batch; the result waits for it: vectors [B, K, H] and CSR int32 [B, V].

        A GPU works on while the next batch is laid out, if the result is asked for afterwards. Then NumericalError
        is raised, too.
        """
        import torch

        config = self.config
        content = None if prepared.content is None else [prepared.content[i] for i in rows]
        columns, allowed = content_columns(content, len(rows), self.backbone.device)
        with torch.inference_mode():
            hidden, logits = self._forward(prepared, rows, None if self.needs_every_logit else columns)
            sound = _sound(hidden, logits)
            kept = method.kept_positions(logits.argmax(dim=2), self.stop_ids) if config.cut_at_stop else None
            if columns is None:
                logits[:, :, self.never] = float("-inf")
            elif self.needs_every_logit:
                logits = logits.gather(2, columns.unsqueeze(1).expand(-1, logits.shape[1], -1))
            scale = method.LexicalScale(config.top_terms, config.impact_scale, config.impact_rounding)
            arrive = _fetching(sound, *method.represent(hidden, logits, kept, allowed, scale))

        def result() -> Batch:
            sound, vectors, impacts = arrive()
            self._check(sound, rows)
            return vectors, _weights(impacts, content, self.backbone.vocab_size)

        return result

    def read(
        self, prepared: Prepared, rows: list[int], columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`forward` for the texts ``rows``; raises NumericalError for NaN or infinity."""
        hidden, logits = self._forward(prepared, rows, columns)
        self._check(_sound(hidden, logits).cpu().numpy(), rows)
        return hidden, logits

    def _forward(
        self, prepared: Prepared, rows: list[int], columns: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward([prepared.ids[i] for i in rows], prepared.layout, columns)

    def _check(self, sound: np.ndarray, rows: list[int]) -> None:
        """Raise NumericalError for the first text that is not sound."""
        if sound.all():
            return
        index = rows[int(np.flatnonzero(~sound)[0])]
        error = NumericalError(
            f"{self.config.name} answered NaN or infinity for text {index}: the weights are damaged or "
            f"{self.backbone.model.dtype} is too narrow for them; try dtype='float32'"
        )
        error.index = index
        raise error

    def forward(
        self, sequences: Sequence[Sequence[int] | np.ndarray], layout: Layout, columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out, run, and read the K mask positions of one batch of text ids.

        Hidden states [B, K, H] and logits [B, K, V], or [B, K, C] with ``columns`` [B, C]; the output head sees the K
        rows only. Texts stand one behind the other where the backbone packs, else they are padded.
        """
        import torch

        device, packs, lengths = self.backbone.device, self.backbone.packs, layout.lengths(sequences)
        table = TokenTable.packed(lengths) if packs else TokenTable.padded(lengths, self.backbone.pad_left)
        run = (self._packed if packs else self._padded)(table, layout)
        positions = on_device(table.mask_positions(layout), device)

        def read(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows = run(ids)[positions]
            return rows, self.backbone.head(rows) if columns is None else self.backbone.head_columns(rows, columns)

        ids = on_device(table.ids(layout, sequences).reshape(-1), device)
        config = self.config
        self._check_process()
        with torch.inference_mode():
            return read_positions(read, ids, positions, config.denoising_steps, config.denoising_schedule)

    def _check_process(self) -> None:
        """Raise DiffRetrieverError in a forked process where the model would hang or torch fail."""
        import torch

        if self.backbone.device.type == "cpu":
            check_threads("torch", torch.get_num_threads())
        elif self.backbone.process != os.getpid():
            raise DiffRetrieverError(
                f"the model was loaded on {self.backbone.device} before this process was forked, and no such device "
                "goes along: load it here, in a process that is started by 'spawn', 'forkserver' or subprocess."
            )

    def _packed(self, table: TokenTable, layout: Layout) -> Callable[[torch.Tensor], torch.Tensor]:
        """From ids [T] to hidden states [T, H]."""
        packing = self.backbone.packing(table.lengths)
        return lambda ids: self.backbone.packed_states(ids, packing, layout.block)

    def _padded(self, table: TokenTable, layout: Layout) -> Callable[[torch.Tensor], torch.Tensor]:
        mask = on_device(table.mask(), self.backbone.device)
        return lambda ids: self.backbone.hidden_states(ids.view(mask.shape), mask, layout.block).flatten(0, 1)


def _sound(hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Bool [B]: neither NaN nor infinity among hidden states [B, K, H] and logits [B, K, C]."""
    import torch

    return torch.isfinite(hidden).all(dim=(1, 2)) & torch.isfinite(logits).all(dim=(1, 2))


def _fetching(*tensors: torch.Tensor) -> Callable[[], list[np.ndarray]]:
    """Begin to copy ``tensors`` to the main memory; the result waits until they are there."""
    import torch

    if not tensors[0].is_cuda:  # of other devices it is not known when a copy is whole
        return lambda: [tensor.cpu().numpy() for tensor in tensors]
    held = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[np.ndarray]:
        arrived.synchronize()
        return [tensor.numpy() for tensor in held]

    return wait


def content_columns(
    content: Sequence[np.ndarray] | None, count: int, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Content ids int64 [B, C], filled up with 0, and which of them are no filling; (None, None) without a filter."""
    if content is None:
        return None, None
    lengths = np.array([len(ids) for ids in content])
    inside = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    table = np.zeros((count, inside.shape[1]), dtype=np.int64)
    table[inside] = np.concatenate(content) if len(content) else []
    return on_device(table, device), on_device(inside, device)


def _weights(impacts: np.ndarray, content: Sequence[np.ndarray] | None, vocab_size: int) -> scipy.sparse.csr_matrix:
    """CSR int32 [B, V] from impacts [B, C] of each text's content ids, or [B, V]."""
    import scipy.sparse

    rows, filled = impacts.nonzero()
    columns = filled
    if content is not None and len(rows):
        starts = np.cumsum([0, *(len(ids) for ids in content[:-1])])
        columns = np.concatenate(content)[starts[rows] + filled]
    bounds = np.searchsorted(rows, np.arange(len(impacts) + 1))
    return scipy.sparse.csr_matrix((impacts[rows, filled], columns, bounds), shape=(len(impacts), vocab_size))
