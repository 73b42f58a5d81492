"""Runs prepared texts through the backbone in batches; :mod:`.method` makes representations of the outputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConfigError, DiffRetrieverError, NumericalError
from ..runtime.threads import check_threads
from . import method
from .backbones.base import Backbone
from .backbones.causal import CausalBackbone
from .backbones.packing import on_device
from .config import RetrieverConfig
from .denoising import read_positions
from .generation import read_words
from .layout import Layout, TokenTable
from .readouts import has_terms, mean_states, no_terms, positions_read
from .tokenization import Prepared

if TYPE_CHECKING:
    import scipy.sparse
    import torch

Batch = tuple[np.ndarray, "scipy.sparse.csr_matrix"]
LOGIT_BYTES = 1 << 28  # limit for the logits of a batch, if every logit is needed
COLUMN_BYTES = 1 << 30  # limit for the columns of the head that a batch gathers, if not every logit is needed


class Reading(NamedTuple):
    """What is read of B texts.

    Attributes
    ----------
    hidden : float [B, K, H], after the final norm; float32 for the mean of all positions.
    logits : float [B, K, V], or [B, K, C] of chosen columns; zero for a read-out without terms.
    kept : bool [B, K], the positions that count, where words were read one by one; None where that is not yet known.
    """

    hidden: torch.Tensor
    logits: torch.Tensor
    kept: torch.Tensor | None = None


class Inference:
    """Runs a backbone on batches and reads it at the K positions of its read-out.

    Ids in ``excluded`` (mask, unknown word) never count as terms; ``stop_ids`` end a zero-shot answer
    (docs/method.md §4).
    """

    def __init__(self, backbone: Backbone, config: RetrieverConfig, excluded: frozenset[int], stop_ids: frozenset[int]):
        self.backbone, self.config = backbone, config
        self.excluded, self.stop_ids = sorted(excluded), stop_ids

        self.has_terms = has_terms(config.readout)

    @property
    def needs_every_logit(self) -> bool:
        """Whether words are decoded or the whole vocabulary counts; else the text's own columns of the head suffice."""
        config = self.config
        if not self.has_terms or config.lexical_terms == "vocabulary":
            return self.has_terms
        if config.readout == "next_token":
            return max(config.k_query, config.k_passage) > 1
        return config.cut_at_stop or config.denoising_steps > 1

    @property
    def decodes(self) -> bool:
        """Whether every logit of every position is read, and the text's own columns are taken out later."""
        return self.config.readout == "mask" and self.needs_every_logit

    def _logits_per_text(self, k: int) -> int:
        """How many logits of one text are in memory at the same time, where every one is needed."""
        one_by_one = self.config.readout == "next_token" and self.config.lexical_terms != "vocabulary"
        return self.backbone.vocab_size * (1 if one_by_one else k)

    def batches(self, prepared: Prepared, batch_size: int, token_budget: int | None = None) -> Iterator[list[int]]:
        """Batches of texts with similar lengths, the longest first."""
        lengths = prepared.lengths
        order = np.argsort(-lengths, kind="stable").tolist()
        lengths = lengths[order]
        start = 0
        while start < len(order):
            size = batch_size
            if token_budget is not None:
                size = self._fitting(lengths[start : start + token_budget], token_budget, prepared.layout)
            if self.needs_every_logit:
                # The logits must fit, too: with K = 16 and 152k terms, those of 32 texts take 311 MB in float32.
                size = min(size, max(1, LOGIT_BYTES // (4 * self._logits_per_text(prepared.layout.k))))
            if prepared.content is not None and not self.decodes:
                # The columns must fit, too: a long text is cut to max_length tokens, but has thousands of words.
                row = self.backbone.hidden_size * self.backbone.model.dtype.itemsize
                widest = np.maximum.accumulate(prepared.content.lengths[order[start : start + size]])
                gathered = widest * np.arange(1, len(widest) + 1) * row
                size = max(1, int(np.count_nonzero(gathered <= COLUMN_BYTES)))
            yield order[start : start + size]
            start += size

    def _reads_words(self, layout: Layout) -> bool:
        """Whether positions are read one after another; the batch is then padded."""
        return self.config.readout == "next_token" and layout.k > 1

    def _fitting(self, lengths: np.ndarray, token_budget: int, layout: Layout) -> int:
        """How many of ``lengths``, the longest first, fit into ``token_budget``, including padding if there is any."""
        if not self.backbone.packs or self._reads_words(layout):
            return max(1, token_budget // max(1, int(lengths[0])))
        return max(1, int(np.searchsorted(np.cumsum(lengths), token_budget, side="right")))

    def represent(self, prepared: Prepared, rows: list[int]) -> Callable[[], Batch]:
        """Start one batch on the device; the returned function waits for vectors [B, K, H] and CSR int32 [B, V].

        If it is called later, a GPU works while the next batch is prepared. It raises NumericalError if the model
        returned NaN or infinity.
        """
        import torch

        config = self.config
        content = None if prepared.content is None else [prepared.content[i] for i in rows]
        values = None if prepared.factors is None else [prepared.factors[i] for i in rows]
        columns, factors = content_columns(content, values, len(rows), self.backbone.device)
        with torch.inference_mode():
            hidden, logits, kept = self._forward(prepared, rows, None if self.decodes else columns)
            finite = _finite(hidden, logits)
            if self.decodes and config.cut_at_stop:
                kept = method.kept_positions(logits.argmax(dim=2), self.stop_ids)
            if columns is None:
                logits[:, :, self.excluded] = float("-inf")
            elif self.decodes:
                logits = logits.gather(2, columns.unsqueeze(1).expand(-1, logits.shape[1], -1))
            scale = method.LexicalScale(config.top_terms, config.impact_scale, config.impact_rounding)
            if config.lexical_tf is not None:
                scale = method.tf_limits(prepared.side, scale)
            fetch = _start_fetching(finite, *method.represent(hidden, logits, kept, factors, scale))

        def result() -> Batch:
            finite, vectors, impacts = fetch()
            self._check(finite, rows)
            return vectors, _weights(impacts, content, self.backbone.vocab_size)

        return result

    def read(self, prepared: Prepared, rows: list[int], columns: torch.Tensor | None = None) -> Reading:
        """:meth:`forward` for the texts ``rows``.

        Raises NumericalError for NaN or infinity, and ConfigError for a read-out without logits.
        """
        if why := no_terms(self.config.name, self.config.readout):
            raise ConfigError(f"{why}.")
        reading = self._forward(prepared, rows, columns)
        self._check(_finite(reading.hidden, reading.logits).cpu().numpy(), rows)
        return reading

    def _forward(self, prepared: Prepared, rows: list[int], columns: torch.Tensor | None) -> Reading:
        return self.forward([prepared.ids[i] for i in rows], prepared.layout, columns)

    def _check(self, finite: np.ndarray, rows: list[int]) -> None:
        """Raise NumericalError for the first text that is not ``finite``."""
        if finite.all():
            return
        index = rows[int(np.flatnonzero(~finite)[0])]
        error = NumericalError(
            f"{self.config.name} returned NaN or infinity for text {index}: the weights are damaged, or "
            f"{self.backbone.model.dtype} is too narrow for them. Try dtype='float32'."
        )
        error.index = index
        raise error

    def forward(
        self, sequences: Sequence[Sequence[int] | np.ndarray], layout: Layout, columns: torch.Tensor | None = None
    ) -> Reading:
        """Lay out, run and read one batch of text ids.

        The logits are [B, K, V], or [B, K, C] with ``columns`` [B, C]. The output head runs on the positions that are
        read only. Texts are packed one after another if the backbone packs, else padded.
        """
        import torch

        self._check_process()
        lengths = layout.lengths(sequences)
        with torch.inference_mode():
            if not self.has_terms:
                return self._one_vector(sequences, layout, lengths)
            if self._reads_words(layout):
                return self._words(sequences, layout, lengths, columns)
            return self._positions(sequences, layout, lengths, columns)

    def _positions(
        self, sequences: Sequence[Any], layout: Layout, lengths: np.ndarray, columns: torch.Tensor | None
    ) -> Reading:
        """All positions from one pass, or as many as there are denoising steps."""
        table, ids, run = self._laid_out(sequences, layout, lengths)
        positions = on_device(positions_read(table, layout), self.backbone.device)

        def read(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows = run(ids)[positions]
            return rows, self.backbone.head(rows) if columns is None else self.backbone.head_columns(rows, columns)

        config = self.config
        return Reading(*read_positions(read, ids, positions, config.denoising_steps, config.denoising_schedule))

    def _words(
        self, sequences: Sequence[Any], layout: Layout, lengths: np.ndarray, columns: torch.Tensor | None
    ) -> Reading:
        """K positions, one after another."""
        assert isinstance(self.backbone, CausalBackbone)
        device, table = self.backbone.device, TokenTable.padded(lengths, left=True)
        stops = on_device(np.array(sorted(self.stop_ids)), device) if self.config.cut_at_stop else None
        ids, mask = on_device(table.ids(layout, sequences), device), on_device(table.mask(), device)
        return Reading(*read_words(self.backbone, ids, mask, layout.k, stops, columns))

    def _one_vector(self, sequences: Sequence[Any], layout: Layout, lengths: np.ndarray) -> Reading:
        """The mean of all positions, or the last one; zero for a text without tokens."""
        import torch

        device = self.backbone.device
        hidden = torch.zeros((len(sequences), 1, self.backbone.hidden_size), device=device)
        filled = np.flatnonzero(lengths)
        if len(filled):
            table, ids, run = self._laid_out([sequences[i] for i in filled.tolist()], layout, lengths[filled])
            states = run(ids)
            if self.config.readout == "mean":
                tokens = states[on_device(table.mask().reshape(-1).astype(bool), device)]
                read = mean_states(tokens, on_device(table.lengths, device)).unsqueeze(1)
            else:
                read = states[on_device(positions_read(table, layout), device)].float()
            hidden[on_device(filled, device)] = read
        return Reading(hidden, hidden.new_zeros((len(sequences), 1, 1)))

    def _laid_out(
        self, sequences: Sequence[Any], layout: Layout, lengths: np.ndarray
    ) -> tuple[TokenTable, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """The table of a batch, its ids [T], and the function from ids to hidden states [T, H]."""
        packs = self.backbone.packs
        table = TokenTable.packed(lengths) if packs else TokenTable.padded(lengths, self.backbone.pad_left)
        run = (self._packed if packs else self._padded)(table, layout)
        return table, on_device(table.ids(layout, sequences).reshape(-1), self.backbone.device), run

    def _check_process(self) -> None:
        """Raise DiffRetrieverError in a forked process, where the model would hang or torch would fail."""
        import torch

        if self.backbone.device.type == "cpu":
            check_threads("torch", torch.get_num_threads())
        elif self.backbone.process != os.getpid():
            raise DiffRetrieverError(
                f"the model was loaded on {self.backbone.device} before this process was forked, and a forked process "
                "cannot use it. Load the model in a process started by 'spawn', 'forkserver' or subprocess."
            )

    def _packed(self, table: TokenTable, layout: Layout) -> Callable[[torch.Tensor], torch.Tensor]:
        """From ids [T] to hidden states [T, H]."""
        packing = self.backbone.packing(table.lengths)
        return lambda ids: self.backbone.packed_states(ids, packing, layout.block)

    def _padded(self, table: TokenTable, layout: Layout) -> Callable[[torch.Tensor], torch.Tensor]:
        mask = on_device(table.mask(), self.backbone.device)
        return lambda ids: self.backbone.hidden_states(ids.view(mask.shape), mask, layout.block).flatten(0, 1)


def _finite(hidden: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Bool [B]: no NaN or infinity in the hidden states [B, K, H] and logits [B, K, C] of a text."""
    import torch

    return torch.isfinite(hidden).all(dim=(1, 2)) & torch.isfinite(logits).all(dim=(1, 2))


def _start_fetching(*tensors: torch.Tensor) -> Callable[[], list[np.ndarray]]:
    """Start to copy ``tensors`` to main memory; the returned function waits for the copies."""
    import torch

    if not tensors[0].is_cuda:  # other devices do not report when a copy is complete
        return lambda: [tensor.cpu().numpy() for tensor in tensors]
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[np.ndarray]:
        copied.synchronize()
        return [tensor.numpy() for tensor in copies]

    return wait


def content_columns(
    content: Sequence[np.ndarray] | None, factors: Sequence[np.ndarray] | None, count: int, device: torch.device
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Content ids int64 [B, C] and the ``factors`` of their weights [B, C] (True without), both padded with 0.

    (None, None) without a filter.
    """
    if content is None:
        return None, None
    lengths = np.array([len(ids) for ids in content])
    inside = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    table = np.zeros((count, inside.shape[1]), dtype=np.int64)
    table[inside] = np.concatenate(content) if len(content) else []
    values = inside
    if factors is not None:
        values = np.zeros(inside.shape, np.float32)
        values[inside] = np.concatenate(factors) if len(factors) else []
    return on_device(table, device), on_device(values, device)


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
