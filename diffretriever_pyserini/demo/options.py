"""The options of `diffretriever demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ..errors import InputError
from ..runtime.threads import processors
from ..settings import Count, Help, Threads, validate


@dataclass(frozen=True)
class DemoOptions:
    """The options of `diffretriever demo`; invalid values raise InputError."""

    output: Path
    dataset: Annotated[
        Path | None, Help("collection in BEIR layout", "DIR", default="the documentation inside this Python")
    ] = None
    encoder: Annotated[str, Help("model", "NAME")] = "diffretriever"
    device: Annotated[str, Help("cpu, cuda, cuda:1 ...")] = "cpu"
    threads: Annotated[Threads, Help("for Lucene")] = field(default_factory=lambda: min(4, processors()))
    limit: Annotated[
        Count | None,
        Help("maximum number of passages", default="all; 1000 of the documentation inside this Python"),
    ] = None

    def __post_init__(self) -> None:
        validate(self, InputError)
