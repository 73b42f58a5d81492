"""Options of `diffretriever mine-negatives`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Le

from ...errors import InputError
from ...settings import Count, CountFrom0, Help, OnError, Threads, validate


@dataclass(frozen=True)
class MineOptions:
    """Options of `diffretriever mine-negatives`; each field has its help text.

    With the method ``bm25`` an encoder only filters. Raises InputError for values out of range.
    """

    output: Annotated[Path, Help("folder to write", "DIR")]
    pairs: Annotated[
        tuple[str, ...], Help("queries with positives (.jsonl, .tsv, BEIR folder, irds:NAME)", "SOURCE")
    ] = ()
    documents: Annotated[
        Path | None, Help("or a folder of .txt, .md and .rst files: headings and sentences become queries", "DIR")
    ] = None
    split: Annotated[str, Help("split of a BEIR folder's qrels")] = "train"
    corpus: Annotated[
        Path | None,
        Help("corpus.jsonl, BEIR folder or irds:NAME to take negatives from", "PATH", default="the pairs' passages"),
    ] = None
    method: Annotated[Literal["bm25", "model"], Help("what searches for candidates")] = "bm25"
    encoder: Annotated[str | None, Help("model that searches (--method model) and filters", "NAME")] = None
    device: Annotated[str, Help("device of the encoder")] = "cpu"
    negatives: Annotated[Count, Help("negatives per query")] = 15
    depth: Annotated[Count, Help("candidates per query")] = 100
    skip: Annotated[CountFrom0, Help("number of best candidates to skip")] = 0
    max_ratio: Annotated[
        float, Gt(0), Le(1), Help("candidates above this share of the best positive's score are left out", "R")
    ] = 0.95
    words: Annotated[Count, Help("words per passage of --documents")] = 100
    on_error: Annotated[OnError, Help("what to do at a bad row")] = "stop"
    seed: Annotated[CountFrom0, Help("seed of the choice of sentences")] = 42
    threads: Annotated[Threads, Help("threads of Lucene")] = 2

    def __post_init__(self) -> None:
        validate(self, InputError)
        if bool(self.pairs) == bool(self.documents):
            raise InputError("give either --pairs (queries with positives) or --documents (a folder of texts).")
        if self.method == "model" and not self.encoder:
            raise InputError("--method model needs --encoder, the model that searches.")
        if self.depth < self.negatives + self.skip:
            raise InputError(f"depth={self.depth} must be at least negatives + skip = {self.negatives + self.skip}.")
