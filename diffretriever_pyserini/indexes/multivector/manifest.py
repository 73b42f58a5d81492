"""``multi.json``: the contents of a multi-vector index."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import BUILD_AGAIN, InputError
from ...files.atomic import read_json, write_json
from ...model.provenance import Provenance, read_provenance
from ...settings import Count, record_from
from ...store.spec import SPEC

FORMAT = 3
MANIFEST = "multi.json"
CODEC = "codec.safetensors"
CANDIDATES = "candidates.faiss"


@dataclass(frozen=True)
class Manifest:
    """The encoder and the files of a multi-vector index.

    Attributes
    ----------
    provenance, dimension, passages : as in its store.
    stride : bytes of a passage's record.
    codec : SHA-256 of the codec's file, which decodes the records.
    candidate_bytes : bytes of a passage's code in the first stage.
    refine : ``int8`` if the vectors are stored on disk, else None.
    recall : how much of the exact ranking of a sample the index returns, see :func:`.measure.measure_recall`.
    """

    provenance: Provenance
    dimension: Count
    passages: Count
    stride: Count
    codec: str
    candidate_bytes: Count
    refine: str | None = None
    recall: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def encoder(self) -> str:
        """Name of the encoder."""
        return self.provenance.encoder

    @property
    def k_passage(self) -> int:
        """The number of vectors per passage."""
        return self.provenance.k_passage

    def facts(self) -> dict[str, Any]:
        """Return the entry in ``index.json``."""
        return {"bytes_per_passage": self.stride + self.candidate_bytes, "recall": self.recall}

    def write(self, folder: Path) -> None:
        """Write ``multi.json``."""
        write_json(folder / MANIFEST, asdict(self) | {"provenance": self.provenance.record()})


def is_multi(folder: str | Path) -> bool:
    """Whether ``folder`` holds a multi-vector index."""
    return Path(folder, MANIFEST).is_file()


def holds_vectors(folder: str | Path) -> bool:
    """Whether ``folder`` holds several vectors per passage: a multi-vector index, or a store."""
    return is_multi(folder) or Path(folder, SPEC).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in ``folder``; InputError if there is none, or this version cannot read it."""
    path = folder / MANIFEST
    if not path.is_file():
        subfolder = folder / "multi"
        hint = f"did you mean {subfolder}?" if is_multi(subfolder) else "make one with `diffretriever index --multi`."
        raise InputError(f"{folder} is no multi-vector index ({MANIFEST} is missing): {hint}")
    values = read_json(path, BUILD_AGAIN)
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: format {values.get('format')!r} is not {FORMAT}; {BUILD_AGAIN}.")
    provenance = read_provenance(values.get("provenance"), path)
    return record_from(Manifest, values | {"provenance": provenance}, path, BUILD_AGAIN)


_LEAST_PASSAGES = 1000  # the top 100 of fewer passages are a large share of them


def recall_text(recall: dict[str, Any]) -> str:
    """Return :attr:`Manifest.recall` in words."""
    if recall["passages"] < _LEAST_PASSAGES:
        return f"exact ranking: {recall['passages']:,} passages are too few to say how much of it is returned"
    return (
        f"of the exact top 10, {recall['top10_in_top100']:.1%} are in its top 100 (measured on {recall['queries']} "
        f"queries and {recall['passages']:,} passages, both drawn from the collection)"
    )
