"""The K vectors of a passage in a record of fixed size: a transform over the places, then FAISS's product quantisers.

The K vectors that one forward pass gives are alike, so most of a passage is told by what they share. Per place the mean
over passages is taken off, components are rotated to principal ones (all places alike), and the K places are rotated to
principal directions; the few coefficients that carry the energy get most bytes (:mod:`.allocation`). Everything before
the quantiser is linear, so a query meets the codes through one table of inner products.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...files.atomic import write_whole
from ...runtime.threads import Workers, processors
from .allocation import axes, balanced, code_sizes, share_out

_CENTROIDS = 256
_ROUNDS = 9  # of k-means
_SAMPLE_PER_CENTROID = 24  # at more, error and ranking stayed as they were
_ENERGY = 0.999  # of the components that are kept where no number is asked for
_STEP = 32  # components are kept in multiples of this, so that many code sizes divide them
_KEY = "codec"
_RANGES = np.linspace(0.3, 1, 29)  # of the values' own range, tried for single components
_BATCH = 2048


@dataclass(frozen=True)
class Tier:
    """Coefficients that have codes of one size, and share a quantiser after scaling.

    Attributes
    ----------
    coefficients : which of the J, in order.
    scales : float32, root mean square of each; what is quantised has the energy 1.
    order : int64 [d], components as the quantiser takes them.
    centroids : float32 [bytes, 256, d / bytes].
    """

    coefficients: list[int]
    scales: np.ndarray
    order: np.ndarray
    centroids: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of one coefficient."""
        return len(self.centroids)

    @cached_property
    def scale_and_start(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of each component, float32 [d]: a code of one component says start + scale * code; None for other codes."""
        if self.centroids.shape[2] != 1:
            return None
        levels = self.centroids[:, :, 0]
        start, scale = levels[:, 0], (levels[:, -1] - levels[:, 0]) / (_CENTROIDS - 1)
        even = start[:, None] + scale[:, None] * np.arange(_CENTROIDS, dtype=np.float32)
        room = np.abs(levels).max(initial=0) * 1e-5  # an index of an earlier version has uneven levels
        return (scale, start) if np.abs(even - levels).max(initial=0) <= room else None

    def codes(self, values: np.ndarray) -> np.ndarray:
        """The nearest codes, uint8 [n, bytes], of float32 [n, d] in the order of ``order``."""
        if self.scale_and_start is None:
            return self.quantizer.compute_codes(values)
        scale, start = self.scale_and_start  # rounding, where FAISS would compare with 256 levels
        numbers = np.rint((values - start) / np.maximum(scale, np.finfo(np.float32).tiny))
        return numbers.clip(0, _CENTROIDS - 1).astype(np.uint8)

    @cached_property
    def quantizer(self) -> Any:
        """FAISS's product quantiser with these centroids."""
        import faiss

        d = self.centroids.shape[0] * self.centroids.shape[2]
        quantizer = faiss.ProductQuantizer(d, self.size, 8)
        faiss.copy_array_to_vector(self.centroids.reshape(-1), quantizer.centroids)
        return quantizer


@dataclass(frozen=True)
class PlaceCodec:
    """K vectors of width H <-> one record of ``stride`` bytes.

    Attributes
    ----------
    means : float32 [K, H], taken off each place.
    components : float32 [d, H], orthonormal rows.
    directions : float32 [K, J], orthonormal columns over the places.
    tiers : codes of the J coefficients.
    """

    means: np.ndarray
    components: np.ndarray
    directions: np.ndarray
    tiers: tuple[Tier, ...]

    @property
    def k(self) -> int:
        """Vectors of a passage."""
        return len(self.means)

    @property
    def dimension(self) -> int:
        """H."""
        return self.means.shape[1]

    @property
    def mask_bytes(self) -> int:
        """Bytes at the end of a record that say which places hold a vector."""
        return -(-self.k // 8)

    @property
    def stride(self) -> int:
        """Bytes of a record."""
        return sum(len(tier.coefficients) * tier.size for tier in self.tiers) + self.mask_bytes

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, K, H] -> uint8 [n, stride]."""
        parts = [self._encode(vectors[at : at + _BATCH]) for at in range(0, len(vectors), _BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, self.stride), np.uint8)

    def _encode(self, vectors: np.ndarray) -> np.ndarray:
        filled, there = fill(vectors)
        coefficients = project(filled, self.means, self.components, self.directions)
        columns = []
        for tier in self.tiers:
            values = coefficients[:, tier.coefficients] / tier.scales[:, None]
            values = np.ascontiguousarray(values.reshape(-1, len(tier.order))[:, tier.order])
            columns.append(tier.codes(values).reshape(len(vectors), -1))
        return np.concatenate([*columns, np.packbits(there, axis=1)], axis=1)

    def decode(self, records: np.ndarray) -> np.ndarray:
        """uint8 [n, stride] -> float32 [n, K, H]; places without a vector are zero again."""
        if not len(records):
            return np.empty((0, *self.means.shape), np.float32)
        coefficients = np.zeros((len(records), self.directions.shape[1], len(self.components)), np.float32)
        at = 0
        for tier in self.tiers:
            width = len(tier.coefficients) * tier.size
            codes = np.ascontiguousarray(records[:, at : at + width].reshape(-1, tier.size))
            values = np.empty((len(codes), len(tier.order)), np.float32)
            values[:, tier.order] = tier.quantizer.decode(codes)
            shape = (len(records), len(tier.coefficients), -1)
            coefficients[:, tier.coefficients] = values.reshape(shape) * tier.scales[:, None]
            at += width
        inner = np.einsum("kj,njd->nkd", self.directions, coefficients, optimize=True)
        return (inner @ self.components + self.means) * self.places(records)[:, :, None]

    def places(self, records: np.ndarray) -> np.ndarray:
        """Bool [n, K]: which places hold a vector."""
        return np.unpackbits(records[:, -self.mask_bytes :], axis=1, count=self.k).astype(bool)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save

        tensors = {"means": self.means, "components": self.components, "directions": self.directions}
        for number, tier in enumerate(self.tiers):
            tensors[f"{number}.scales"] = tier.scales
            tensors[f"{number}.order"] = tier.order
            tensors[f"{number}.centroids"] = tier.centroids
        header = json.dumps([tier.coefficients for tier in self.tiers])
        write_whole(path, save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, {_KEY: header}))


def read_codec(path: Path) -> PlaceCodec:
    """The codec in ``path``; InputError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            get = file.get_tensor
            tiers = tuple(
                Tier(coefficients, *(get(f"{number}.{name}") for name in ("scales", "order", "centroids")))
                for number, coefficients in enumerate(json.loads(file.metadata()[_KEY]))
            )
            return PlaceCodec(get("means"), get("components"), get("directions"), tiers)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); build the index again.") from error


def train_codec(sample: np.ndarray, budget: int, dim: int | None = None) -> PlaceCodec:
    """A codec for passages like ``sample``.

    Parameters
    ----------
    sample : float32 [n, K, H].
    budget : bytes of a record, the mask of places included.
    dim : components that are kept; None keeps 99.9 % of the energy.

    Raises
    ------
    InputError
        For a budget in which nothing can be told, or ``dim`` beyond H.
    """
    n, k, width = sample.shape
    if dim is not None and not 1 <= dim <= width:
        raise InputError(f"dim={dim}: the vectors have {width} components, so 1 to {width} can be kept.")
    filled, _ = fill(sample)
    means = filled.mean(axis=0)
    components = _components(filled, means, dim)
    inner = project(filled, means, components, np.eye(k, dtype=np.float32))
    directions, energies = axes(np.einsum("nkd,njd->kj", inner, inner, optimize=True) / n)
    sizes = share_out(energies.tolist(), len(components), budget - -(-k // 8))
    if not any(sizes) and not energies.any():  # passages that are all the same: any code says all
        sizes[0] = min((size for size in code_sizes(len(components)) if size <= budget - -(-k // 8)), default=0)
    kept = [j for j, size in enumerate(sizes) if size]
    if not kept:
        raise InputError(f"{budget} bytes a passage are too few for vectors of {width} components: give more.")
    directions = directions[:, kept]
    coefficients = np.einsum("kj,nkd->njd", directions, inner, optimize=True)
    by_size: dict[int, list[int]] = {}
    for place, j in enumerate(kept):
        by_size.setdefault(sizes[j], []).append(place)
    tiers = tuple(_train_tier(coefficients, places, size) for size, places in by_size.items())
    return PlaceCodec(means, components, directions, tiers)


def fill(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Zero vectors replaced by their passage's mean (float32 [n, K, H]), and which were not zero (bool [n, K])."""
    there = vectors.any(axis=2)
    if there.all():
        return vectors, there
    means = vectors.sum(axis=1) / np.maximum(there.sum(axis=1), 1)[:, None]
    return np.where(there[:, :, None], vectors, means[:, None]), there


def project(vectors: np.ndarray, means: np.ndarray, components: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Coefficients float32 [n, J, d] of ``vectors`` [n, K, H]."""
    mixed = np.einsum("kj,nkh->njh", directions, vectors - means, optimize=True)
    return mixed @ components.T


def _components(filled: np.ndarray, means: np.ndarray, dim: int | None) -> np.ndarray:
    """Principal components of all places together, float32 [d, H], strongest first."""
    width = filled.shape[2]
    flat = (filled - means).reshape(-1, width)
    energies, vectors = np.linalg.eigh((flat.T @ flat).astype(np.float64))
    energies, vectors = energies[::-1].clip(0), vectors[:, ::-1]
    if dim is None:
        needed = int(np.searchsorted(np.cumsum(energies), _ENERGY * energies.sum())) + 1
        dim = min(width, -(-needed // _STEP) * _STEP)
    vectors = vectors[:, :dim]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dim)])
    return np.ascontiguousarray((vectors * signs).T, dtype=np.float32)


def _train_tier(coefficients: np.ndarray, places: list[int], size: int) -> Tier:
    values = coefficients[:, places]
    scales = np.sqrt(np.square(values).sum(axis=2).mean(axis=0)).astype(np.float32)
    scales = np.maximum(scales, np.float32(1e-12))
    flat = (values / scales[:, None]).reshape(-1, values.shape[2])
    order = balanced(flat.var(axis=0), size)
    most = _CENTROIDS * _SAMPLE_PER_CENTROID
    flat = np.ascontiguousarray(flat[np.linspace(0, len(flat) - 1, min(most, len(flat))).astype(int)][:, order])
    if len(flat) < _CENTROIDS:
        flat = np.resize(flat, (_CENTROIDS, flat.shape[1]))
    if size == flat.shape[1]:
        centroids = np.stack([even_levels(column) for column in flat.T])
        return Tier(places, scales, order, centroids[:, :, None])
    parts = np.array_split(np.arange(flat.shape[1]).reshape(size, -1), min(size, processors()))
    with Workers() as workers:  # sub-quantisers are trained one by one: some of them in each thread
        trained = workers.map(lambda part: _centroids(np.ascontiguousarray(flat[:, part.ravel()]), len(part)), parts)
    return Tier(places, scales, order, np.concatenate(trained))


def _centroids(sample: np.ndarray, size: int) -> np.ndarray:
    """float32 [size, 256, d / size] of a product quantiser for ``sample`` [n, d]."""
    import faiss

    quantizer: Any = faiss.ProductQuantizer(sample.shape[1], size, 8)
    quantizer.cp.niter, quantizer.cp.min_points_per_centroid = _ROUNDS, 1
    quantizer.train(sample)
    return faiss.vector_to_array(quantizer.centroids).reshape(size, _CENTROIDS, -1)


def even_levels(values: np.ndarray) -> np.ndarray:
    """256 levels at equal distances for single components, float32 ascending: a score then needs no table.

    The range around the median is the one with the least squared error; beyond it values are cut.
    """
    values = np.sort(values.astype(np.float64))
    middle, numbers = np.median(values), np.arange(_CENTROIDS)
    best, least = np.full(_CENTROIDS, middle), np.inf
    for share in _RANGES:
        low, high = middle + share * (values[[0, -1]] - middle)
        step = max((high - low) / (_CENTROIDS - 1), np.finfo(np.float32).tiny)
        codes = np.clip(np.round((values - low) / step), 0, _CENTROIDS - 1)
        error = float(np.square(low + step * codes - values).sum())
        if error < least:
            best, least = low + step * numbers, error
    return best.astype(np.float32)
