"""Opening the searchers of an index, in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..errors import BUILD_AGAIN, InputError
from .folder import IndexFolder
from .options import BM25
from .searchers import DenseSearcher, LexicalSearcher, MultiSearcher, Searcher, open_vectors
from .shards import ShardedSearcher
from .texts import TextSearcher

if TYPE_CHECKING:
    from ..indexes.options import MultiOptions
    from .encoder import EncoderIdentity


class OpensSearchers(Protocol):
    """Opens the searchers of an index, here or elsewhere."""

    def open(self, index: IndexFolder, signal: str) -> Searcher:
        """Open the searcher of ``signal``."""


@dataclass(frozen=True)
class Opener:
    """How searchers are opened. It can be sent to another process.

    Attributes
    ----------
    encoder : the encoder that must have made the index; None where only BM25 is searched.
    parameters : FAISS's own for searching, ``nprobe`` or ``efSearch``.
    multi_options : how many candidates a multi-vector searcher considers.
    device : where MaxSim over a store is computed.
    """

    encoder: EncoderIdentity | None
    parameters: Mapping[str, int] = field(default_factory=dict)
    multi_options: MultiOptions | None = None
    device: str = "cpu"

    def open(self, index: IndexFolder, signal: str) -> Searcher:
        """Open the searcher of ``signal``, over all shards if ``index`` has some.

        Raises
        ------
        InputError
            Where there is none, or it belongs to another index or encoder.
        """
        index.mode(signal)
        if signal == BM25:
            return TextSearcher(*index.folders(signal))
        if self.encoder is None:
            raise InputError(f"{index.name} was opened for {BM25} alone, without its encoder: open it without a mode.")
        if index.shards:
            return ShardedSearcher([self.open(shard, signal) for shard in index.shards])
        (folder,) = index.folders(signal)
        if signal == "lexical":  # Lucene leaves out passages without terms, so their number says nothing
            return LexicalSearcher(folder, self.encoder)
        searcher: Searcher
        if signal == "dense":
            searcher = DenseSearcher(folder, self.encoder, self.parameters)
        else:
            vectors = open_vectors(folder, self.multi_options, index.parts)
            searcher = MultiSearcher(folder, self.encoder, vectors, self.device)
        if index.passages not in (None, searcher.documents):
            raise InputError(
                f"{folder} holds {searcher.documents} passages, but the index was built from {index.passages}: "
                f"it is damaged or was replaced; {BUILD_AGAIN}."
            )
        return searcher
