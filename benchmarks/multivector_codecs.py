"""Ways to code the K vectors of a passage at the same bytes, and ways to propose passages.

    python benchmarks/multivector_codecs.py COLLECTION [codecs] [first] [--output FOLDER]

COLLECTION is that of benchmarks/multivector.py.

codecs  at 1/16 and 1/32 of the float16 bytes: our transform over the places, FAISS's codecs and others on each vector
        by itself, and alike vectors of a passage merged. Every passage is scored by its decoded vectors, so only the
        codec counts; ids and first stages are not in the bytes.
first   what share of the exact top 10 is in the first 100 and 500 that a first stage proposes, and milliseconds a
        query, one thread (benchmarks/multivector_first.py).

Writes codecs.md, first.md and the same as json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from multivector import DEPTH, Bench, Rows, write_table
from multivector_first import first_stages, lists_of
from tqdm import tqdm

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.indexes.multivector.build import batches_of, sample_vectors
from diffretriever_pyserini.indexes.multivector.codec import train_codec
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex, Hits, keep_best, maxsim_block
from diffretriever_pyserini.runtime.threads import torch_threads

SHARES = (16, 32)
_SAMPLE = 1 << 14  # passages
_ROUNDS, _PER_CENTROID = 10, 32  # of k-means; ours has 9 and 24
_TRAINED_ON = 1 << 16  # vectors, for coarse centroids and rotations
_DRAWN, _WORDS = 1000, 8  # queries out of passages

Coder = Callable[[np.ndarray], np.ndarray]
"""float32 vectors -> what their codes say of them."""
Made = tuple[Coder, int]
"""A coder of passages [n, K, H] or vectors [n, H], and its bytes for one of them."""


class Material:
    """What ways of coding are trained on: float32 passages [n, K, H], some of their vectors [m, H], drawn queries."""

    def __init__(self, bench: Bench):
        self.passages = sample_vectors(bench.store, min(len(bench.store), _SAMPLE))
        self.k, self.width = self.passages.shape[1:]
        self.lists = lists_of(self.k * len(bench.store))  # coarse centroids of residual codes
        self.vectors = self.some(self.passages)
        self.weights = weights(drawn_queries(bench).reshape(-1, self.width))

    @staticmethod
    def some(passages: np.ndarray) -> np.ndarray:
        """Vectors out of ``passages``, all places alike."""
        flat = passages.reshape(-1, passages.shape[2])
        return flat[np.linspace(0, len(flat) - 1, min(len(flat), _TRAINED_ON)).astype(int)]


def drawn_queries(bench: Bench) -> np.ndarray:
    """Eight words in a row out of each of 1,000 passages, read as queries: float32 [n, K_q, H]."""
    draw, texts = np.random.default_rng(5), []
    passages = list(Corpus(bench.folder / "corpus.jsonl").passages())[: len(bench.store)]
    for passage in passages[:: max(1, len(passages) // _DRAWN)]:
        words = passage.text.split()
        at = int(draw.integers(max(1, len(words) - _WORDS)))
        texts.append(" ".join(words[at : at + _WORDS]) or passage.title)
    model = DiffRetriever.from_pretrained(bench.store.spec.encoder, k_passage=bench.store.spec.k_passage)
    return model.encode(texts, side="query", batch_size=64).vectors


def weights(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W and its inverse, [H, H]: the squared error of ``x @ W`` is the expected one of the scores of ``x``.

    With C the mean of ``q q^T``, an error e of a vector costs ``E (q e)^2 = e^T C e``, so W is the root of C.
    """
    values, vectors = np.linalg.eigh((queries.T @ queries / len(queries)).astype(np.float64))
    values = values.clip(0) + 0.01 * values.mean()  # directions that few drawn queries have are not free
    root = np.sqrt(values)
    return ((vectors * root) @ vectors.T).astype(np.float32), ((vectors / root) @ vectors.T).astype(np.float32)


def ways(material: Material, budget: int) -> Iterator[tuple[str, Callable[[], Made]]]:
    """Names and makers of coders of passages in about ``budget`` bytes."""
    k, width, flat = material.k, material.width, material.vectors
    size, half, lists = budget // k, width // 2, material.lists
    there, back = material.weights

    def each(make: Callable[[], Made]) -> Callable[[], Made]:
        """Of vectors, a coder of passages."""

        def made() -> Made:
            coder, each_bytes = make()
            return lambda v: coder(v.reshape(-1, width)).reshape(v.shape), k * each_bytes

        return made

    def weighed(make: Callable[[Any], Made], sample: np.ndarray) -> Callable[[], Made]:
        """Trained where distances are errors of scores."""

        def made() -> Made:
            coder, each_bytes = make(sample @ there)
            return lambda v: coder(v @ there) @ back, each_bytes

        return made

    yield "**scalar codes of rotated positions** (ours)", lambda: scalar_codes(material.passages, budget)
    yield "the same, weighed by queries", weighed(lambda v: scalar_codes(v, budget), material.passages)
    yield f"PQ{size}", each(lambda: by_faiss(f"PQ{size}", flat))
    yield f"OPQ{size},PQ{size}", each(lambda: by_faiss(f"OPQ{size},PQ{size}", flat))
    for name in (f"PCAR{width},PQ{size}", f"PCAR{half},PQ{size}"):
        yield name, each(lambda name=name: by_faiss(name, flat))  # type: ignore[misc]
    yield (
        f"weighed by queries, then PCAR{half},PQ{size}",
        each(weighed(lambda v: by_faiss(f"PCAR{half},PQ{size}", v), flat)),
    )
    yield f"residual of {lists} centroids, PQ{size}", each(lambda: by_faiss(f"IVF{lists},PQ{size}", flat))
    for bits in (1, 2):
        kept = 8 * (size - 2) // bits
        yield (
            f"residual of {lists} centroids, {bits} bit, {kept} components",
            each(lambda bits=bits, kept=kept: residuals(flat, lists, bits, kept)),  # type: ignore[misc]
        )
    for bits in (1, 2, 4):
        kept = 8 * (size - 4) // bits
        yield (
            f"RaBitQ, {bits} bit, {kept} components",
            each(lambda bits=bits, kept=kept: rabitq(flat, bits, kept)),  # type: ignore[misc]
        )
    for left in (8, 4, 2, 1):
        if left < k:
            yield (
                f"merged to {left} vectors, {coded_as(budget // left, width)}",
                lambda left=left: merged(material, left, budget // left),  # type: ignore[misc]
            )


def scalar_codes(sample: np.ndarray, budget: int) -> Made:
    """The index's codec."""
    codec = train_codec(sample, budget)
    return lambda v: codec.decode(codec.encode(v)), codec.stride


def by_faiss(name: str, sample: np.ndarray) -> Made:
    """A codec of FAISS's factory."""
    name += "np" if "PQ" in name else ""  # no polysemous training: it orders codes for another use, and takes long
    codec = faiss.index_factory(sample.shape[1], name)
    inner = faiss.downcast_index(codec.index) if isinstance(codec, faiss.IndexPreTransform) else codec
    if hasattr(inner, "pq"):
        inner.pq.cp.niter, inner.pq.cp.max_points_per_centroid = _ROUNDS, _PER_CENTROID
    if name.startswith("OPQ"):
        faiss.downcast_VectorTransform(codec.chain.at(0)).max_train_points = 256 * _PER_CENTROID
    codec.train(np.ascontiguousarray(sample))
    return lambda v: codec.sa_decode(codec.sa_encode(np.ascontiguousarray(v))), codec.sa_code_size()


def residuals(sample: np.ndarray, lists: int, bits: int, kept: int) -> Made:
    """The nearest centroid's number in two bytes, then ``bits`` a component, as in ColBERTv2 and PLAID.

    As there, cuts are quantiles and vectors get the length 1 again. Each of the ``kept`` principal components has cuts
    and levels of its own, which is kinder than one set for all.
    """
    turn = faiss.PCAMatrix(sample.shape[1], kept)
    turn.train(sample)
    inner = turn.apply(sample)
    means = faiss.Kmeans(kept, lists, niter=_ROUNDS, seed=7, min_points_per_centroid=1)
    means.train(inner)
    rest = inner - means.centroids[means.assign(inner)[1]]
    cuts = np.quantile(rest, np.arange(1, 1 << bits) / (1 << bits), axis=0).astype(np.float32)
    kinds = sum((rest > cut).astype(np.int64) for cut in cuts)
    levels = np.stack([np.where(kinds == kind, rest, 0).sum(0) / (kinds == kind).sum(0) for kind in range(1 << bits)])

    def coder(vectors: np.ndarray) -> np.ndarray:
        inner = turn.apply(np.ascontiguousarray(vectors))
        near = means.centroids[means.assign(inner)[1]]
        kinds = sum((inner - near > cut).astype(np.int64) for cut in cuts)
        found = turn.reverse_transform(near + np.take_along_axis(levels, kinds, axis=0))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return coder, 2 + kept * bits // 8


def rabitq(sample: np.ndarray, bits: int, kept: int) -> Made:
    """RaBitQ (arXiv 2405.12497; several bits: 2409.09913) about the mean, one factor of four bytes a vector.

    By its definition, as FAISS's decoder leaves out the bits after the first and the factor that its searches use.
    """
    turn = faiss.PCAMatrix(sample.shape[1], kept, 0, True)  # and a random rotation
    turn.train(sample)
    half = 1 << (bits - 1)

    def coder(vectors: np.ndarray) -> np.ndarray:
        inner = turn.apply(np.ascontiguousarray(vectors))
        widest = np.maximum(np.abs(inner).max(axis=1, keepdims=True), 1e-12)
        best, cosines = np.zeros_like(inner), np.full(len(inner), -1.0)
        for scale in np.linspace(0.3, 1, 12) if bits > 1 else (1,):
            grid = (np.floor(inner / widest / scale * half).clip(-half, half - 1) + 0.5).astype(np.float32)
            cosine = (grid * inner).sum(axis=1) / np.linalg.norm(grid, axis=1)
            better = cosine > cosines
            best[better], cosines[better] = grid[better], cosine[better]
        factor = np.square(inner).sum(axis=1) / np.maximum((best * inner).sum(axis=1), 1e-12)
        return turn.reverse_transform(best * factor[:, None].astype(np.float32))

    return coder, 4 + kept * bits // 8


def coded_as(size: int, width: int) -> str:
    """FAISS's codec of ``size`` bytes a vector."""
    return "SQfp16" if size >= 2 * width else "SQ8" if size >= width else f"PCAR{width},PQ{size}"


def merged(material: Material, left: int, size: int) -> Made:
    """Vectors of a passage merged until ``left`` remain, of ``size`` bytes each."""
    sample = merge(material.passages, left)
    coder, each = by_faiss(coded_as(size, material.width), material.some(sample))

    def all_coded(vectors: np.ndarray) -> np.ndarray:
        kept = merge(vectors, left)
        return coder(kept.reshape(-1, kept.shape[2])).reshape(kept.shape)

    return all_coded, left * each


def merge(vectors: np.ndarray, left: int) -> np.ndarray:
    """float32 [n, K, H] -> [n, left, H]: the two most alike by cosine become their groups' mean, again and again."""
    n, k, _ = vectors.shape
    sums, counts, rows = vectors.copy(), np.ones((n, k), np.float32), np.arange(n)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    alike = units @ units.transpose(0, 2, 1)
    alike[:, np.arange(k), np.arange(k)] = -np.inf
    for _ in range(k - left):
        first, second = np.divmod(alike.reshape(n, -1).argmax(axis=1), k)
        sums[rows, first] += sums[rows, second]
        counts[rows, first] += counts[rows, second]
        counts[rows, second] = 0
        units[rows, first] = sums[rows, first] / np.linalg.norm(sums[rows, first], axis=1, keepdims=True)
        fresh = np.where(np.isneginf(alike[rows, first]), -np.inf, np.einsum("nkh,nh->nk", units, units[rows, first]))
        alike[rows, first], alike[rows, :, first] = fresh, fresh
        alike[rows, second], alike[rows, :, second] = -np.inf, -np.inf
    return sums[counts > 0].reshape(n, left, -1) / counts[counts > 0].reshape(n, left, 1)


def ranked(bench: Bench, queries: np.ndarray, coder: Coder, name: str) -> list[np.ndarray]:
    """The best passages for each of ``queries`` by what ``coder`` leaves of the vectors."""
    best: list[Hits] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
    docids = ExactIndex(bench.store).docids
    flat, begin = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, queries.shape[2]))), 0
    for part in tqdm(bench.store.parts, desc=name, disable=None):
        for _, vectors in batches_of(part):
            decoded = torch.from_numpy(np.ascontiguousarray(coder(vectors), np.float32))
            scores = maxsim_block(flat, decoded, len(queries)).numpy()
            best = [keep_best(one, row, begin, DEPTH, docids) for one, row in zip(best, scores, strict=True)]
            begin += len(vectors)
    return [rows for rows, _ in best]


def codecs(bench: Bench) -> Rows:
    """Agreement with the exact ranking by way of coding."""
    material = Material(bench)
    chosen = np.arange(len(bench.queries))[:: max(1, len(bench.queries) // bench.options.scored)]
    rows: Rows = [["way of coding", "bytes a passage", "10 in 100", "10 in 10", "100 in 100", "s to train"]]
    for share in SHARES:
        rows.append([f"*1/{share}*", *[""] * 5])
        for name, make in ways(material, bench.float16_bytes // share):
            started = time.perf_counter()
            coder, size = make()
            seconds = time.perf_counter() - started
            found = ranked(bench, bench.queries[chosen], coder, f"1/{share} {name}")
            shares = [bench.overlap(found, *pair, chosen) for pair in ((10, DEPTH), (10, 10), (DEPTH, DEPTH))]
            rows.append([name, str(size), *(f"{value:.4f}" for value in shares), f"{seconds:.0f}"])
            print(f"1/{share}", *rows[-1], sep=" | ", flush=True)
    return rows


BENCHMARKS: dict[str, Callable[[Bench], Rows]] = {"codecs": codecs, "first": first_stages}


def main() -> None:
    """Run the chosen benchmarks and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, help="folder with corpus.jsonl, queries.tsv, qrels.tsv and store/")
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="default: both")
    parser.add_argument("--queries", type=int, default=330, help="of a collection at most (default: %(default)s)")
    parser.add_argument("--scored", type=int, default=200, help="queries for codecs, evenly chosen of these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/multivector"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    with torch_threads(options.threads):
        for name in options.which or BENCHMARKS:
            write_table(bench, name, BENCHMARKS[name](bench))


if __name__ == "__main__":
    main()
