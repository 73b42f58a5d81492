"""A part of a store: a safetensors file with the vectors, term weights and ids of some passages, and a checksum."""

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

_KEY = "diffretriever"  # the header's only entry: the order of several would change between runs
_EPSILON = 1e-12
# Raised while reading a part with a flipped bit in its header.
_DAMAGE_ERRORS = (ValueError, LookupError, TypeError, AttributeError, OverflowError)


def part_path(folder: Path, number: int) -> Path:
    """Return the path of part ``number``; a folder holds a thousand parts."""
    return folder / "parts" / f"{number // 1000:05d}" / f"part-{number:08d}.safetensors"


@dataclass
class PartRows:
    """The corpus rows of a part.

    Attributes
    ----------
    number : of the part.
    rows : number of rows.
    docids : ids of the passages, in order.
    skipped : (file and line, reason) of each row without a passage.
    digest : SHA-256 of the rows themselves; empty where they are not known.
    """

    number: int
    rows: int = 0
    docids: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    digest: str = ""


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
        "skipped": [list(row) for row in part.skipped],
        "corpus": part.digest,
    }
    header["sha256"] = checksum(tensors, header)
    path = part_path(folder, part.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(tensors, {_KEY: json.dumps(header, sort_keys=True)}))
    return path


def impact_dtype(spec: StoreSpec) -> Any:
    """Return uint16, unless the model's impacts could exceed it (a float32 logit is at most e^89)."""
    return np.uint16 if 89 * spec.impact_scale < 1 << 16 else np.int32


def checksum(tensors: dict[str, np.ndarray], header: dict[str, Any]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of ``tensors`` and of the header without its checksum."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _encoded(vectors: np.ndarray, spec: StoreSpec) -> dict[str, np.ndarray]:
    """Return ``vectors`` [N, K, H] in the store's type; int8 has a float32 scale per vector."""
    if spec.dtype != "int8":
        return {"vectors": vectors.astype(spec.dtype)}
    return int8_vectors(vectors)


def int8_vectors(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Return ``vectors`` int8 [N, K, H] and ``scales`` float32 [N, K]; their product approximates ``vectors``."""
    scales = np.abs(vectors).max(axis=2, initial=0) / 127
    rounded = np.rint(vectors / np.maximum(scales, _EPSILON)[:, :, None])
    return {"vectors": rounded.astype(np.int8), "scales": scales.astype(np.float32)}


@dataclass(frozen=True)
class Part:
    """A part on disk; its arrays are memory-mapped when first read."""

    path: Path
    spec: StoreSpec

    @cached_property
    def _layout(self) -> tuple[int, dict[str, Any]]:
        """The offset of the data, and safetensors' header."""
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
        except (OSError, *_DAMAGE_ERRORS) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: damaged ({error}); run `diffretriever encode` again to replace it.")

    @cached_property
    def header(self) -> dict[str, Any]:
        """``spec``, ``part``, ``rows``, ``passages``, ``skipped``, ``corpus`` (digest of the rows) and ``sha256``.

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
        except _DAMAGE_ERRORS as error:
            raise error if isinstance(error, InputError) else self._damaged(error) from error
        if header["spec"] != self.spec.digest:
            raise InputError(
                f"{self.path}: a part of another store (its encoder, corpus or format differs from {SPEC}); run "
                "`diffretriever encode` again to replace it."
            )
        return header

    def array(self, name: str) -> np.ndarray:
        """Return a tensor by name, read-only and memory-mapped (an empty one is a plain array)."""
        start, header = self._layout
        entry = header[name]
        dtypes = {"F16": "<f2", "F32": "<f4", "I8": "i1", "I32": "<i4", "I64": "<i8", "U8": "u1", "U16": "<u2"}
        shape, dtype = tuple(entry["shape"]), np.dtype(dtypes[entry["dtype"]])
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", start + entry["data_offsets"][0], shape)

    def __len__(self) -> int:
        return int(self.header["passages"])

    def made_from(self, digest: str) -> bool:
        """Whether rows of the corpus with this ``digest`` made the part; parts of earlier versions do not know."""
        return self.header.get("corpus") in (None, "", digest)

    @property
    def docids(self) -> list[str]:
        """The ids, in the order of the corpus."""
        text, bounds = self.array("docids").tobytes(), self.array("docid_bounds").tolist()
        return [text[a:b].decode() for a, b in itertools.pairwise(bounds)]

    def vectors(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return float32 [n, K, H] of passages ``start`` to ``stop`` (K = 1 if only pooled vectors are stored)."""
        vectors = np.asarray(self.array("vectors")[start:stop], dtype=np.float32)
        if self.spec.dtype == "int8":
            vectors *= self.array("scales")[start:stop, :, None]
        return vectors

    def pooled(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return float32 [n, H]: the mean of each passage's non-zero vectors (docs/method.md §4)."""
        vectors = self.vectors(start, stop)
        return pool(vectors) if self.spec.vectors == "all" else vectors[:, 0]

    def pieces(self, limit: int) -> Iterator[tuple[int, int]]:
        """Yield bounds of batches whose vectors take at most ``limit`` bytes in float32, but at least one passage."""
        size = max(1, limit // (4 * self.spec.stored_k * self.spec.dimension))
        return ((start, min(start + size, len(self))) for start in range(0, len(self), size))

    @property
    def weights(self) -> scipy.sparse.csr_matrix:
        """Impacts by token id, CSR int32 [n, V]."""
        import scipy.sparse

        table = (self.array("impacts").astype(np.int32), self.array("terms"), self.array("bounds"))
        return scipy.sparse.csr_matrix(table, shape=(len(self), self.spec.vocab_size))

    def verify(self) -> None:
        """Read the whole part and compare its checksum; InputError if it differs."""
        names = [name for name in self._layout[1] if name != "__metadata__"]
        try:
            computed = checksum({name: self.array(name) for name in names}, self.header)
        except _DAMAGE_ERRORS as error:
            raise error if isinstance(error, InputError) else self._damaged(error) from error
        if computed != self.header["sha256"]:
            raise InputError(f"{self.path}: the checksum is wrong; run `diffretriever encode` again to replace it.")
