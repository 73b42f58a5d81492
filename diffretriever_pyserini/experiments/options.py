"""The options of reproducing an experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ..errors import InputError
from ..indexes.options import DenseKind
from ..runtime.threads import processors
from ..settings import Help, Threads, validate


@dataclass(frozen=True)
class ReproduceOptions:
    """Where and with what an experiment runs; invalid values raise InputError."""

    output: Path
    encoder: Annotated[
        str | None, Help("in place of the experiment's model, such as a YAML file with a converted adapter", "NAME")
    ] = None
    device: Annotated[str, Help("cpu, cuda, cuda:1 ...")] = "cpu"
    dtype: Annotated[
        str | None, Help("of the model: float32, bfloat16, float16", default="float32 on the CPU, else bfloat16")
    ] = None
    dense: Annotated[DenseKind, Help("kind of the FAISS index; flat is exact, sq8 takes a quarter of its memory")] = (
        "flat"
    )
    threads: Annotated[Threads, Help("of FAISS and Lucene")] = field(default_factory=processors)

    def __post_init__(self) -> None:
        validate(self, InputError)
