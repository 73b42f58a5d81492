"""How a corpus is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class EncodeOptions:
    """How a corpus is encoded.

    Attributes
    ----------
    shard, shards : this process takes every ``shards``-th part, from part ``shard`` on.
    rows_per_part, dtype, vectors : form of the store, see :class:`~diffretriever_pyserini.store.spec.StoreSpec`.
    on_error : ``stop`` at a bad row, or ``skip`` and list it in the part.
    max_length : tokens of prompt and text; it can only shorten the model's own.
    workers : processes that prepare texts; None chooses by the device.
    token_budget : tokens of a batch, padding counted where a model pads; None chooses by the device.
    verify : check the checksums of parts that are there already.
    """

    shard: int = 0
    shards: int = 1
    rows_per_part: int = 4096
    dtype: str = "float16"
    vectors: str = "all"
    on_error: str = "stop"
    max_length: int | None = None
    workers: int | None = None
    token_budget: int | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.shards:
            raise InputError(f"shard {self.shard} of {self.shards}: shards count from 0 to {self.shards - 1}.")
        if self.on_error not in ("stop", "skip"):
            raise InputError(f"on_error={self.on_error!r} is not one of 'stop', 'skip'.")
        for name in ("rows_per_part", "token_budget", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}={value} must be at least 1.")
        if self.workers is not None and self.workers < 0:
            raise InputError(f"workers={self.workers} must not be negative.")

    def rows_of_shard(self, rows: int) -> int:
        """How many of ``rows`` rows of a corpus are in this shard's parts."""
        starts = range(self.shard * self.rows_per_part, rows, self.shards * self.rows_per_part)
        return sum(min(self.rows_per_part, rows - start) for start in starts)
