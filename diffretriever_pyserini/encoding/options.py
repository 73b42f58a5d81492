"""The options of encoding a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ..errors import InputError
from ..settings import Count, CountFrom0, Help, OnError, validate


@dataclass(frozen=True)
class EncodeOptions:
    """The options of encoding a corpus; invalid values raise InputError.

    Examples
    --------
    >>> from diffretriever_pyserini import EncodeOptions
    >>> EncodeOptions(dtype="int8", on_error="skip").rows_per_part
    4096
    """

    shard: Annotated[CountFrom0, Help("number of this shard, from 0", "I", option="shard-id")] = 0
    shards: Annotated[Count, Help("number of shards: this process takes every Nth part", option="shard-num")] = 1
    rows_per_part: Annotated[Count, Help("corpus rows per part", option="part-size")] = 4096
    dtype: Annotated[
        Literal["float16", "float32", "int8"], Help("type of the stored vectors", option="store-dtype")
    ] = "float16"
    vectors: Annotated[Literal["all", "pooled"], Help("all K vectors per passage, or the pooled one")] = "all"
    on_error: Annotated[OnError, Help("what to do at a bad row; skip lists it in its part")] = "stop"
    max_length: Annotated[
        Count | None, Help("tokens of prompt and text; can only shorten the model's value", default="the model's value")
    ] = None
    workers: Annotated[CountFrom0 | None, Help("processes that prepare texts", default="by the device")] = None
    token_budget: Annotated[
        Count | None, Help("tokens per batch, with padding if the model pads", default="by the device")
    ] = None
    verify: Annotated[bool, Help("do not verify the checksums of existing parts")] = True

    def __post_init__(self) -> None:
        validate(self, InputError)
        if self.shard >= self.shards:
            raise InputError(f"shard {self.shard} of {self.shards}: shards are numbered from 0 to {self.shards - 1}.")

    def rows_of_shard(self, rows: int) -> int:
        """Return how many of the ``rows`` rows of a corpus are in this shard's parts."""
        starts = range(self.shard * self.rows_per_part, rows, self.shards * self.rows_per_part)
        return sum(min(self.rows_per_part, rows - start) for start in starts)
