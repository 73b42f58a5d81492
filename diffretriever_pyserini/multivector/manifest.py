"""``multi.json``: what a folder of compressed vectors holds. It is replaced last, so a change is made whole or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..provenance import Provenance, read_provenance
from ..store.files import read_json, write_json
from ..store.spec import SPEC

FORMAT = 2
MANIFEST = "multi.json"
CODEC = "codec.safetensors"
SEGMENTS = "segments"
LOCK = "lock"
FIRST = "candidates-0.faiss"  # the first stage as it was built; each change gives it a higher number


@dataclass(frozen=True)
class Manifest:
    """The encoder and the files of a multi-vector index.

    Attributes
    ----------
    provenance, dimension : as in the store that it was made of.
    stride : bytes of a passage's record.
    candidate_bytes : bytes of its code in the first stage.
    candidates : file of the first stage.
    segments : (folder, passages) in order.
    deleted : file with the numbers of deleted passages, or None.
    refine : ``int8`` where the vectors are kept on disk, else None.
    recall : how much of the exact ranking was found, measured when the index was built.
    """

    provenance: Provenance
    dimension: int
    stride: int
    candidate_bytes: int
    candidates: str
    segments: list[tuple[str, int]]
    deleted: str | None = None
    deleted_count: int = 0
    refine: str | None = None
    recall: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def encoder(self) -> str:
        """Name of the encoder."""
        return self.provenance.encoder

    @property
    def k_passage(self) -> int:
        """Vectors of a passage."""
        return self.provenance.k_passage

    @property
    def rows(self) -> int:
        """Passages in the segments, deleted ones counted."""
        return sum(count for _, count in self.segments)

    @property
    def passages(self) -> int:
        """Passages that can be found."""
        return self.rows - self.deleted_count

    @property
    def changed(self) -> bool:
        """Whether passages were added or deleted since the index was built."""
        return self.candidates != FIRST or self.deleted is not None

    def write(self, folder: Path) -> None:
        """Replace ``multi.json``."""
        write_json(folder / MANIFEST, asdict(self) | {"provenance": self.provenance.record()})


def is_multi(folder: str | Path) -> bool:
    """Whether ``folder`` holds a multi-vector index."""
    return Path(folder, MANIFEST).is_file()


def holds_vectors(folder: str | Path) -> bool:
    """Whether ``folder`` holds several vectors a passage: a multi-vector index, or a store."""
    return is_multi(folder) or Path(folder, SPEC).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest in ``folder``; InputError where there is none, or one that this version cannot read."""
    path = folder / MANIFEST
    if not path.is_file():
        inside = folder / "multi"
        hint = f"did you mean {inside}?" if is_multi(inside) else "make one with `diffretriever index --multi`."
        raise InputError(f"{folder} is no multi-vector index ({MANIFEST} is missing): {hint}")
    values = read_json(path)
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: format {values.get('format')!r} is not {FORMAT}; build the index again.")
    made = read_provenance(values.get("provenance"), path)
    try:
        segments = [(str(name), int(count)) for name, count in values.pop("segments")]
        return Manifest(segments=segments, **values | {"provenance": made})
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); build the index again.") from error
