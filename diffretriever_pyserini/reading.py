"""Reading the K places of prepared texts, a batch at a time: pad, run the backbone, normalise, weigh terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .backbones.base import Backbone
from .config import RetrieverConfig
from .denoising import kept_places, read_places
from .errors import NumericalError
from .lexical import batch_impacts
from .preparation import Prepared
from .prompts import Layout

if TYPE_CHECKING:
    import scipy.sparse
    import torch

LOGIT_BYTES = 1 << 28  # where every logit is needed, a batch's stay below 256 MiB
COLUMN_BYTES = 1 << 30  # else the head's columns that a batch gathers stay below 1 GiB


class PlaceReader:
    """A backbone seen through its K places.

    ``mask_id`` never scores as a term; ``stop_ids`` end a zero-shot answer (METHOD section 4).
    """

    def __init__(self, backbone: Backbone, config: RetrieverConfig, mask_id: int, stop_ids: frozenset[int]):
        self.backbone, self.config = backbone, config
        self.mask_id, self.stop_ids = mask_id, stop_ids

    @property
    def needs_every_logit(self) -> bool:
        """Whether words are decoded or the whole vocabulary may score; else the text's own columns of the head do."""
        config = self.config
        return config.cut_at_stop or config.denoising_steps > 1 or config.lexical_terms == "vocabulary"

    def batches(self, prepared: Prepared, batch_size: int, token_budget: int | None = None) -> Iterator[list[int]]:
        """Texts of like length together, the longest first."""
        lengths = prepared.lengths
        order = np.argsort(-lengths, kind="stable").tolist()
        start = 0
        while start < len(order):
            size = batch_size if token_budget is None else max(1, token_budget // int(lengths[order[start]]))
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

    def represent(self, prepared: Prepared, places: list[int]) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
        """Vectors float32 [B, K, H] and weights CSR int32 [B, V] of one batch."""
        import torch

        content = None if prepared.content is None else [prepared.content[i] for i in places]
        columns, allowed = _columns(content, len(places), self.backbone.device)
        with torch.inference_mode():
            hidden, logits = self.read(prepared, places, None if self.needs_every_logit else columns)
            kept = None
            if self.config.cut_at_stop:
                counts = kept_places(logits.argmax(dim=2), self.stop_ids)
                kept = torch.arange(prepared.layout.k) < torch.tensor(counts).unsqueeze(1)
                kept = kept.to(self.backbone.device)
            vectors = torch.nn.functional.normalize(hidden.float(), dim=-1)
            vectors = vectors if kept is None else vectors * kept.unsqueeze(2)
            if columns is None:
                logits[:, :, self.mask_id] = float("-inf")
            elif self.needs_every_logit:
                logits = logits.gather(2, columns.unsqueeze(1).expand(-1, logits.shape[1], -1))
            config = self.config
            how = (config.top_terms, config.impact_scale, config.impact_rounding)
            impacts = batch_impacts(logits, allowed, kept, *how)
        return vectors.cpu().numpy(), _weights(impacts.cpu().numpy(), content, self.backbone.vocab_size)

    def read(
        self, prepared: Prepared, places: list[int], columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`forward` for the texts at ``places``; raises NumericalError for NaN or infinity."""
        import torch

        hidden, logits = self.forward([prepared.ids[i] for i in places], prepared.layout, columns)
        bad = ~(torch.isfinite(hidden).all(dim=(1, 2)) & torch.isfinite(logits).all(dim=(1, 2)))
        if bad.any():
            index = places[int(bad.nonzero()[0])]
            error = NumericalError(
                f"{self.config.name} answered NaN or infinity for text {index}: the weights are damaged or "
                f"{self.backbone.model.dtype} is too narrow for them; try dtype='float32'"
            )
            error.index = index
            raise error
        return hidden, logits

    def forward(
        self, sequences: Sequence[Sequence[int] | np.ndarray], layout: Layout, columns: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lay out, pad, run, and read the K places of one batch of text ids.

        Hidden states [B, K, H] and logits [B, K, V], or [B, K, C] with ``columns`` [B, C]; the output head sees the K
        rows only.
        """
        import torch

        before, after = len(layout.prefix), len(layout.assemble(())) - len(layout.prefix)
        lengths = np.array([before + len(sequence) + after for sequence in sequences])
        width = int(lengths.max())
        left = self.backbone.pad_left
        table = np.full((len(sequences), width), layout.pad_id, dtype=np.int64)
        for row, sequence, length in zip(table, sequences, lengths, strict=True):
            row = row[width - length :] if left else row[:length]
            row[:before], row[before : length - after] = layout.prefix, sequence
            row[length - after :] = layout.assemble(())[before:]
        place = np.arange(width)
        inside = place >= width - lengths[:, None] if left else place < lengths[:, None]
        ids = torch.from_numpy(table).to(self.backbone.device)
        mask = torch.from_numpy(inside.astype(np.int64)).to(self.backbone.device)
        block = layout.k + len(layout.tail)
        ends = np.full((len(sequences), 1), width) if left else lengths[:, None]
        places = torch.from_numpy(ends - block + np.arange(layout.k)).to(self.backbone.device)

        def read(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            states = self.backbone.hidden_states(ids, mask, block)
            rows = states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))
            return rows, self.backbone.head(rows) if columns is None else self.backbone.head_columns(rows, columns)

        config = self.config
        with torch.inference_mode():
            return read_places(read, ids, places, config.denoising_steps, config.denoising_schedule)


def _columns(
    content: Sequence[np.ndarray] | None, count: int, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Content ids int64 [B, C], filled up with 0, and which of them are no filling; (None, None) without a filter."""
    import torch

    if content is None:
        return None, None
    lengths = np.array([len(ids) for ids in content])
    inside = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    table = np.zeros((count, inside.shape[1]), dtype=np.int64)
    table[inside] = np.concatenate(content) if len(content) else []
    return torch.from_numpy(table).to(device), torch.from_numpy(inside).to(device)


def _weights(impacts: np.ndarray, content: Sequence[np.ndarray] | None, vocab_size: int) -> scipy.sparse.csr_matrix:
    """CSR int32 [B, V] from impacts [B, C] of each text's content ids, or [B, V]."""
    import scipy.sparse

    rows, places = impacts.nonzero()
    if content is None:
        columns = places
    else:
        starts = np.cumsum([0, *(len(ids) for ids in content[:-1])])
        columns = np.concatenate(content)[starts[rows] + places] if len(rows) else places
    bounds = np.searchsorted(rows, np.arange(len(impacts) + 1))
    return scipy.sparse.csr_matrix((impacts[rows, places], columns, bounds), shape=(len(impacts), vocab_size))
