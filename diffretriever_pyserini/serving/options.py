"""The options of a collection, and of searching it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from ..errors import InputError
from ..settings import Batch, Effort, Help, validate

Datatype = Literal["float32", "float16", "turbo16", "turbo8"]
Quantization = Literal["int8", "turbo", "binary"]


@dataclass(frozen=True)
class ExportOptions:
    """How a store becomes a collection. Invalid values raise InputError.

    ``datatype`` and ``quantization`` are fixed when a collection is created; None keeps those of an existing one.

    Examples
    --------
    >>> from diffretriever_pyserini.serving import ExportOptions
    >>> ExportOptions(quantization="int8").datatype is None
    True
    """

    datatype: Annotated[
        Datatype | None, Help("how the engine keeps the K vectors", default="float32, which is exact")
    ] = None
    quantization: Annotated[
        Quantization | None,
        Help("also keep the pooled vectors so in memory, and the exact ones on the disk", default="none"),
    ] = None
    texts: Annotated[
        tuple[str, ...], Help("the corpus of the store: its titles and texts become payload", "CORPUS")
    ] = ()
    batch_size: Annotated[
        Batch | None, Help("passages per request", default="so many that a request has about 16 MB")
    ] = None
    rebuild: Annotated[bool, Help("delete an existing collection of this name first")] = False

    def __post_init__(self) -> None:
        validate(self, InputError)


@dataclass(frozen=True)
class QdrantSearch:
    """How the pooled vectors of a collection are searched. Invalid values raise InputError."""

    scan: Annotated[bool, Help("compare all pooled vectors exactly, without Qdrant's graph")] = False
    ef: Effort | None = None

    def __post_init__(self) -> None:
        validate(self, InputError)
