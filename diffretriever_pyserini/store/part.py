"""One part of a store: a safetensors file with the vectors, weights and ids of some passages, and its own checksum."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files.atomic import write_whole
from ..model.method import pool
from ..model.representations import Representations
from .spec import SPEC, StoreSpec

if TYPE_CHECKING:
    import scipy.sparse

_KEY = "diffretriever"  # the header's one entry: with several, their order would change from run to run
_LEAST = 1e-12
# What reading a part with a flipped bit in its header raises.
_DAMAGES = (ValueError, LookupError, TypeError, AttributeError, OverflowError)


def part_path(folder: Path, number: int) -> Path:
    """Where part ``number`` lies; a thousand of them a folder."""
    return folder / "parts" / f"{number // 1000:05d}" / f"part-{number:08d}.safetensors"


@dataclass
class PartRows:
    """The corpus rows of one part: ids of its passages, in order, and (where, reason) of the rows that gave none.

    ``rows`` are all of them.
    """

    number: int
    rows: int = 0
    docids: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def write_part(folder: Path, spec: StoreSpec, part: PartRows, representations: Representations) -> Path:
    """Write ``part`` with the representations of its passages. The same input gives the same bytes."""
    from safetensors.numpy import save

    tensors = _encoded(representations.vectors if spec.vectors == "all" else representations.pooled[:, None], spec)
    weights = representations.weights
    tensors["terms"] = weights.indices.astype(np.int32)
    tensors["impacts"] = weights.data.astype(impact_dtype(spec))
    tensors["bounds"] = weights.indptr.astype(np.int64)
    names = [docid.encode() for docid in part.docids]
    tensors["docids"] = np.frombuffer(b"".join(names), dtype=np.uint8)
    tensors["docid_bounds"] = np.cumsum([0, *map(len, names)], dtype=np.int64)
    header = {
        "spec": spec.digest,
        "part": part.number,
        "rows": part.rows,
        "passages": len(part.docids),
        "skipped": [list(one) for one in part.skipped],
    }
    header["sha256"] = checksum(tensors, header)
    path = part_path(folder, part.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(tensors, {_KEY: json.dumps(header, sort_keys=True)}))
    return path


def impact_dtype(spec: StoreSpec) -> Any:
    """uint16, unless the model's scale could pass it (a float32 logit is at most e^89)."""
    return np.uint16 if 89 * spec.impact_scale < 1 << 16 else np.int32


def checksum(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> str:
    """SHA-256 over names, shapes and bytes of ``tensors`` and over the header without the checksum itself."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _encoded(vectors: np.ndarray, spec: StoreSpec) -> dict[str, np.ndarray]:
    """``vectors`` [N, K, H] in the store's type; int8 has a float32 scale a vector."""
    if spec.dtype != "int8":
        return {"vectors": vectors.astype(spec.dtype)}
    return int8_vectors(vectors)


def int8_vectors(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """``vectors`` int8 [N, K, H] and ``scales`` float32 [N, K], whose product is nearly ``vectors`` [N, K, H]."""
    scales = np.abs(vectors).max(axis=2, initial=0) / 127
    whole = np.rint(vectors / np.maximum(scales, _LEAST)[:, :, None])
    return {"vectors": whole.astype(np.int8), "scales": scales.astype(np.float32)}


@dataclass(frozen=True)
class Part:
    """A part on disk; arrays are read through memory maps when they are asked for."""

    path: Path
    spec: StoreSpec

    @cached_property
    def _layout(self) -> tuple[int, dict[str, Any]]:
        """Where the data begins, and safetensors' own header."""
        try:
            whole = self.path.stat().st_size
            with self.path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if size > whole:
                    raise ValueError("its length is wrong")
                header = json.loads(file.read(size))
            end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
            if whole != 8 + size + end:
                raise ValueError("it is cut short")
            return 8 + size, header
        except (OSError, *_DAMAGES) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: damaged ({error}); run `diffretriever encode` again to redo it.")

    @cached_property
    def header(self) -> dict[str, Any]:
        """``spec``, ``part``, ``rows``, ``passages``, ``skipped`` and ``sha256``.

        Raises
        ------
        InputError
            For a damaged part, and for one of a store with another spec.
        """
        try:
            header = json.loads(self._layout[1]["__metadata__"][_KEY])
            missing = {"spec", "part", "rows", "passages", "skipped", "sha256"} - set(header)
            if missing:
                raise ValueError(f"its header lacks {min(missing)}")
        except _DAMAGES as error:
            raise error if isinstance(error, InputError) else self._damaged(error) from error
        if header["spec"] != self.spec.digest:
            raise InputError(
                f"{self.path}: a part of another store (its encoder, corpus or form differs from {SPEC}); run "
                "`diffretriever encode` again to redo it."
            )
        return header

    def array(self, name: str) -> np.ndarray:
        """A tensor by name, read-only and memory-mapped (empty ones are plain arrays)."""
        start, header = self._layout
        entry = header[name]
        kind = {"F16": "<f2", "F32": "<f4", "I8": "i1", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2"}
        shape, dtype = tuple(entry["shape"]), np.dtype(kind[entry["dtype"]])
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", start + entry["data_offsets"][0], shape)

    def __len__(self) -> int:
        return int(self.header["passages"])

    @property
    def docids(self) -> list[str]:
        """Ids in the corpus's order."""
        text, bounds = self.array("docids").tobytes(), self.array("docid_bounds").tolist()
        return [text[a:b].decode() for a, b in itertools.pairwise(bounds)]

    def vectors(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """float32 [n, K, H] of passages ``start`` to ``stop`` (K = 1 where only pooled vectors were kept)."""
        vectors = np.asarray(self.array("vectors")[start:stop], dtype=np.float32)
        if self.spec.dtype == "int8":
            vectors *= self.array("scales")[start:stop, :, None]
        return vectors

    def pooled(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """float32 [n, H]: mean of each passage's non-zero vectors (docs/method.md §4)."""
        vectors = self.vectors(start, stop)
        return pool(vectors) if self.spec.vectors == "all" else vectors[:, 0]

    def pieces(self, limit: int) -> Iterator[tuple[int, int]]:
        """Bounds of pieces whose vectors take at most ``limit`` bytes in float32 (or are one passage's)."""
        size = max(1, limit // (4 * self.spec.stored_k * self.spec.dimension))
        return ((start, min(start + size, len(self))) for start in range(0, len(self), size))

    @property
    def weights(self) -> scipy.sparse.csr_matrix:
        """CSR int32 [n, V]: impacts by token id."""
        import scipy.sparse

        table = (self.array("impacts").astype(np.int32), self.array("terms"), self.array("bounds"))
        return scipy.sparse.csr_matrix(table, shape=(len(self), self.spec.vocab_size))

    def verify(self) -> None:
        """Read everything and compare checksums; InputError names the part where they differ."""
        names = [name for name in self._layout[1] if name != "__metadata__"]
        try:
            found = checksum({name: self.array(name) for name in names}, self.header)
        except _DAMAGES as error:
            raise error if isinstance(error, InputError) else self._damaged(error) from error
        if found != self.header["sha256"]:
            raise InputError(f"{self.path}: the checksum is wrong; run `diffretriever encode` again to redo it.")
