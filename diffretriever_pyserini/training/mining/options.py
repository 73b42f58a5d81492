"""What `diffretriever mine-negatives` is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Le

from ...errors import InputError
from ...settings import Count, CountFrom0, Help, OnError, Threads, validate


@dataclass(frozen=True)
class MineOptions:
    """What `diffretriever mine-negatives` was asked for; each field says what it is.

    With the method ``bm25`` an encoder only filters. Values that cannot be raise InputError.
    """

    output: Annotated[Path, Help("folder to write", "DIR")]
    pairs: Annotated[tuple[str, ...], Help("queries with positives (.jsonl, .tsv, BEIR folder)", "SOURCE")] = ()
    documents: Annotated[
        Path | None, Help("or a folder of .txt, .md and .rst files: queries are made of headings and sentences", "DIR")
    ] = None
    split: Annotated[str, Help("qrels of a BEIR folder")] = "train"
    corpus: Annotated[
        Path | None, Help("corpus.jsonl or BEIR folder to take negatives from", "PATH", default="the pairs' passages")
    ] = None
    method: Annotated[Literal["bm25", "model"], Help("who searches")] = "bm25"
    encoder: Annotated[str | None, Help("model that searches (--method model) and filters", "NAME")] = None
    device: Annotated[str, Help("for the encoder")] = "cpu"
    negatives: Annotated[Count, Help("a query")] = 15
    depth: Annotated[Count, Help("candidates a query")] = 100
    skip: Annotated[CountFrom0, Help("best candidates not used")] = 0
    max_ratio: Annotated[
        float, Gt(0), Le(1), Help("candidates above this share of the best positive's score are left out", "R")
    ] = 0.95
    words: Annotated[Count, Help("a passage of --documents")] = 100
    on_error: Annotated[OnError, Help("at a bad row")] = "stop"
    seed: Annotated[CountFrom0, Help("of the sentences that become queries")] = 42
    threads: Annotated[Threads, Help("for Lucene")] = 2

    def __post_init__(self) -> None:
        validate(self, InputError)
        if bool(self.pairs) == bool(self.documents):
            raise InputError("give either --pairs (queries with positives) or --documents (a folder of texts).")
        if self.method == "model" and not self.encoder:
            raise InputError("--method model needs --encoder, the model that searches.")
        if self.depth < self.negatives + self.skip:
            raise InputError(f"depth={self.depth} must be at least negatives + skip = {self.negatives + self.skip}.")
