"""Codecs for the K vectors of a passage at the same bytes, and first stages that propose passages.

    python benchmarks/multivector_codecs.py COLLECTION [codecs] [first] [--output FOLDER]

COLLECTION is that of benchmarks/multivector.py.

codecs  at 1/16 and 1/32 of the float16 bytes: our transform over the mask positions, FAISS's codecs and others on each
        vector separately, and similar vectors of a passage merged. Every passage is scored by its decoded vectors, so
        only the codec counts; ids and first stages are not in the bytes.
first   the share of the exact top 10 in the first 100 and 500 proposals of a first stage, and milliseconds per query,
        one thread (benchmarks/multivector_first.py).

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
from diffretriever_pyserini.indexes.multivector.exact import ExactIndex, RowHits, keep_best, maxsim_block
from diffretriever_pyserini.runtime.threads import torch_threads

SHARES = (16, 32)
_SAMPLE = 1 << 14  # passages
_ROUNDS, _PER_CENTROID = 10, 32  # of k-means
_TRAINED_ON = 1 << 16  # vectors, for coarse centroids and rotations
_DRAWN, _WORDS = 1000, 8  # queries drawn from passages

Coder = Callable[[np.ndarray], np.ndarray]
"""float32 vectors -> the same vectors, coded and decoded."""
Trained = tuple[Coder, int]
"""A coder of passages [n, K, H] or vectors [n, H], and its bytes for one of them."""


class TrainingData:
    """Training data of the codecs: float32 passages [n, K, H], a sample of their vectors [m, H], drawn queries."""

    def __init__(self, bench: Bench):
        self.passages = sample_vectors(bench.store, min(len(bench.store), _SAMPLE))
        self.k, self.width = self.passages.shape[1:]
        self.lists = lists_of(self.k * len(bench.store))  # coarse centroids of residual codes
        self.vectors = self.sample(self.passages)
        self.weights = weights(drawn_queries(bench).reshape(-1, self.width))

    @staticmethod
    def sample(passages: np.ndarray) -> np.ndarray:
        """A sample of the vectors of ``passages``, from all positions equally."""
        flat = passages.reshape(-1, passages.shape[2])
        return flat[np.linspace(0, len(flat) - 1, min(len(flat), _TRAINED_ON)).astype(int)]


def drawn_queries(bench: Bench) -> np.ndarray:
    """Eight consecutive words of each of 1,000 passages, encoded as queries: float32 [n, K_q, H]."""
    draw, texts = np.random.default_rng(5), []
    passages = list(Corpus(bench.folder / "corpus.jsonl").passages())[: len(bench.store)]
    for passage in passages[:: max(1, len(passages) // _DRAWN)]:
        words = passage.text.split()
        start = int(draw.integers(max(1, len(words) - _WORDS)))
        texts.append(" ".join(words[start : start + _WORDS]) or passage.title)
    model = DiffRetriever.from_pretrained(bench.store.spec.encoder, k_passage=bench.store.spec.k_passage)
    return model.encode(texts, side="query", batch_size=64).vectors


def weights(queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """W and its inverse, [H, H]: the squared error of ``x @ W`` is the expected squared error of the scores of ``x``.

    With C the mean of ``q q^T``, an error e of a vector costs ``E (q e)^2 = e^T C e``, so W is the root of C.
    """
    values, vectors = np.linalg.eigh((queries.T @ queries / len(queries)).astype(np.float64))
    values = values.clip(0) + 0.01 * values.mean()  # so that directions of few queries count too
    root = np.sqrt(values)
    return ((vectors * root) @ vectors.T).astype(np.float32), ((vectors / root) @ vectors.T).astype(np.float32)


def codec_trainers(data: TrainingData, budget: int) -> Iterator[tuple[str, Callable[[], Trained]]]:
    """Names and trainers of coders of passages in about ``budget`` bytes."""
    k, width, flat = data.k, data.width, data.vectors
    size, half, lists = budget // k, width // 2, data.lists
    forward, inverse = data.weights

    def each(train: Callable[[], Trained]) -> Callable[[], Trained]:
        """A coder of passages from a coder of vectors."""

        def trained() -> Trained:
            coder, vector_bytes = train()
            return lambda v: coder(v.reshape(-1, width)).reshape(v.shape), k * vector_bytes

        return trained

    def weighted(train: Callable[[Any], Trained], sample: np.ndarray) -> Callable[[], Trained]:
        """A coder that is trained in a space where distances are errors of scores."""

        def trained() -> Trained:
            coder, size = train(sample @ forward)
            return lambda v: coder(v @ forward) @ inverse, size

        return trained

    yield "**scalar codes of rotated positions** (ours)", lambda: scalar_codes(data.passages, budget)
    yield "the same, weighted by queries", weighted(lambda v: scalar_codes(v, budget), data.passages)
    yield f"PQ{size}", each(lambda: by_faiss(f"PQ{size}", flat))
    yield f"OPQ{size},PQ{size}", each(lambda: by_faiss(f"OPQ{size},PQ{size}", flat))
    for name in (f"PCAR{width},PQ{size}", f"PCAR{half},PQ{size}"):
        yield name, each(lambda name=name: by_faiss(name, flat))  # type: ignore[misc]
    yield (
        f"weighted by queries, then PCAR{half},PQ{size}",
        each(weighted(lambda v: by_faiss(f"PCAR{half},PQ{size}", v), flat)),
    )
    yield f"residual of {lists} centroids, PQ{size}", each(lambda: by_faiss(f"IVF{lists},PQ{size}", flat))
    for bits in (1, 2):
        components = 8 * (size - 2) // bits
        yield (
            f"residual of {lists} centroids, {bits} bit, {components} components",
            each(lambda bits=bits, components=components: residuals(flat, lists, bits, components)),  # type: ignore[misc]
        )
    for bits in (1, 2, 4):
        components = 8 * (size - 4) // bits
        yield (
            f"RaBitQ, {bits} bit, {components} components",
            each(lambda bits=bits, components=components: rabitq(flat, bits, components)),  # type: ignore[misc]
        )
    for count in (8, 4, 2, 1):
        if count < k:
            yield (
                f"merged to {count} vectors, {codec_name(budget // count, width)}",
                lambda count=count: merged(data, count, budget // count),  # type: ignore[misc]
            )


def scalar_codes(sample: np.ndarray, budget: int) -> Trained:
    """The index's codec."""
    codec = train_codec(sample, budget)
    return lambda v: codec.decode(codec.encode(v)), codec.stride


def by_faiss(name: str, sample: np.ndarray) -> Trained:
    """A codec of FAISS's factory."""
    name += "np" if "PQ" in name else ""  # without polysemous training, which is slow and not needed here
    codec = faiss.index_factory(sample.shape[1], name)
    inner = faiss.downcast_index(codec.index) if isinstance(codec, faiss.IndexPreTransform) else codec
    if hasattr(inner, "pq"):
        inner.pq.cp.niter, inner.pq.cp.max_points_per_centroid = _ROUNDS, _PER_CENTROID
    if name.startswith("OPQ"):
        faiss.downcast_VectorTransform(codec.chain.at(0)).max_train_points = 256 * _PER_CENTROID
    codec.train(np.ascontiguousarray(sample))
    return lambda v: codec.sa_decode(codec.sa_encode(np.ascontiguousarray(v))), codec.sa_code_size()


def residuals(sample: np.ndarray, lists: int, bits: int, components: int) -> Trained:
    """The nearest centroid's number in two bytes, then ``bits`` per component, as in ColBERTv2 and PLAID.

    As there, cuts are quantiles and decoded vectors are normalised. Unlike there, each of the principal ``components``
    has its own cuts and levels, which favours this codec.
    """
    rotation = faiss.PCAMatrix(sample.shape[1], components)
    rotation.train(sample)
    inner = rotation.apply(sample)
    means = faiss.Kmeans(components, lists, niter=_ROUNDS, seed=7, min_points_per_centroid=1)
    means.train(inner)
    rest = inner - means.centroids[means.assign(inner)[1]]
    cuts = np.quantile(rest, np.arange(1, 1 << bits) / (1 << bits), axis=0).astype(np.float32)
    kinds = sum((rest > cut).astype(np.int64) for cut in cuts)
    levels = np.stack([np.where(kinds == kind, rest, 0).sum(0) / (kinds == kind).sum(0) for kind in range(1 << bits)])

    def coder(vectors: np.ndarray) -> np.ndarray:
        inner = rotation.apply(np.ascontiguousarray(vectors))
        near = means.centroids[means.assign(inner)[1]]
        kinds = sum((inner - near > cut).astype(np.int64) for cut in cuts)
        decoded = rotation.reverse_transform(near + np.take_along_axis(levels, kinds, axis=0))
        return decoded / np.linalg.norm(decoded, axis=1, keepdims=True)

    return coder, 2 + components * bits // 8


def rabitq(sample: np.ndarray, bits: int, components: int) -> Trained:
    """RaBitQ (arXiv 2405.12497; several bits: 2409.09913) about the mean, one factor of four bytes per vector.

    Implemented from its definition, since FAISS's decoder ignores the bits after the first and the factor.
    """
    rotation = faiss.PCAMatrix(sample.shape[1], components, 0, True)  # followed by a random rotation
    rotation.train(sample)
    half = 1 << (bits - 1)

    def coder(vectors: np.ndarray) -> np.ndarray:
        inner = rotation.apply(np.ascontiguousarray(vectors))
        widest = np.maximum(np.abs(inner).max(axis=1, keepdims=True), 1e-12)
        best, cosines = np.zeros_like(inner), np.full(len(inner), -1.0)
        for scale in np.linspace(0.3, 1, 12) if bits > 1 else (1,):
            grid = (np.floor(inner / widest / scale * half).clip(-half, half - 1) + 0.5).astype(np.float32)
            cosine = (grid * inner).sum(axis=1) / np.linalg.norm(grid, axis=1)
            better = cosine > cosines
            best[better], cosines[better] = grid[better], cosine[better]
        factor = np.square(inner).sum(axis=1) / np.maximum((best * inner).sum(axis=1), 1e-12)
        return rotation.reverse_transform(best * factor[:, None].astype(np.float32))

    return coder, 4 + components * bits // 8


def codec_name(size: int, width: int) -> str:
    """Name of FAISS's codec of ``size`` bytes per vector."""
    if size >= 2 * width:
        return "SQfp16"
    return "SQ8" if size >= width else f"PCAR{width},PQ{size}"


def merged(data: TrainingData, count: int, size: int) -> Trained:
    """Vectors of a passage merged until ``count`` remain, of ``size`` bytes each."""
    sample = merge(data.passages, count)
    coder, vector_bytes = by_faiss(codec_name(size, data.width), data.sample(sample))

    def merge_and_code(vectors: np.ndarray) -> np.ndarray:
        means = merge(vectors, count)
        return coder(means.reshape(-1, means.shape[2])).reshape(means.shape)

    return merge_and_code, count * vector_bytes


def merge(vectors: np.ndarray, count: int) -> np.ndarray:
    """float32 [n, K, H] -> [n, count, H]: the two groups of highest cosine are replaced by their mean, repeatedly."""
    n, k, _ = vectors.shape
    sums, counts, rows = vectors.copy(), np.ones((n, k), np.float32), np.arange(n)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
    alike = units @ units.transpose(0, 2, 1)
    alike[:, np.arange(k), np.arange(k)] = -np.inf
    for _ in range(k - count):
        first, second = np.divmod(alike.reshape(n, -1).argmax(axis=1), k)
        sums[rows, first] += sums[rows, second]
        counts[rows, first] += counts[rows, second]
        counts[rows, second] = 0
        units[rows, first] = sums[rows, first] / np.linalg.norm(sums[rows, first], axis=1, keepdims=True)
        updated = np.where(np.isneginf(alike[rows, first]), -np.inf, np.einsum("nkh,nh->nk", units, units[rows, first]))
        alike[rows, first], alike[rows, :, first] = updated, updated
        alike[rows, second], alike[rows, :, second] = -np.inf, -np.inf
    return sums[counts > 0].reshape(n, count, -1) / counts[counts > 0].reshape(n, count, 1)


def ranked(bench: Bench, queries: np.ndarray, coder: Coder, name: str) -> list[np.ndarray]:
    """The best passages for each of ``queries`` by the vectors that ``coder`` returns."""
    best: list[RowHits] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
    docids = ExactIndex(bench.store).docids
    flat, start = torch.from_numpy(np.ascontiguousarray(queries.reshape(-1, queries.shape[2]))), 0
    for part in tqdm(bench.store.parts, desc=name, disable=None):
        for _, vectors in batches_of(part):
            decoded = torch.from_numpy(np.ascontiguousarray(coder(vectors), np.float32))
            scores = maxsim_block(flat, decoded, len(queries)).numpy()
            best = [keep_best(top, row, start, DEPTH, docids) for top, row in zip(best, scores, strict=True)]
            start += len(vectors)
    return [rows for rows, _ in best]


def codecs(bench: Bench) -> Rows:
    """Agreement with the exact ranking by codec."""
    data = TrainingData(bench)
    chosen = np.arange(len(bench.queries))[:: max(1, len(bench.queries) // bench.options.scored)]
    rows: Rows = [["codec", "bytes per passage", "10 in 100", "10 in 10", "100 in 100", "s to train"]]
    for share in SHARES:
        rows.append([f"*1/{share}*", *[""] * 5])
        for name, train in codec_trainers(data, bench.float16_bytes // share):
            started = time.perf_counter()
            coder, size = train()
            seconds = time.perf_counter() - started
            rankings = ranked(bench, bench.queries[chosen], coder, f"1/{share} {name}")
            shares = [bench.overlap(rankings, *pair, chosen) for pair in ((10, DEPTH), (10, 10), (DEPTH, DEPTH))]
            rows.append([name, str(size), *(f"{value:.4f}" for value in shares), f"{seconds:.0f}"])
            print(f"1/{share}", *rows[-1], sep=" | ", flush=True)
    return rows


BENCHMARKS: dict[str, Callable[[Bench], Rows]] = {"codecs": codecs, "first": first_stages}


def main() -> None:
    """Run the chosen benchmarks and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, help="folder with corpus.jsonl, queries.tsv, qrels.tsv and store/")
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="default: both")
    parser.add_argument("--queries", type=int, default=330, help="most per collection (default: %(default)s)")
    parser.add_argument("--scored", type=int, default=200, help="how many of these are scored for codecs")
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
