"""Latency of the systems compared: encoding time against the number of vectors, one shape and one device in one run.

    python benchmarks/latency.py [--shape 0.5b] [--device cpu|cuda] [--dtype bfloat16] [--ks 1 2 4 8 16 32]

One set of random weights is written as a diffusion model (a2d) and as a causal one, and read in three ways:

mask         DiffRetriever: K mask positions of one pass, for every K in --ks.
next_token   PromptReps: N words one after another with a cache of keys and values; the same numbers, at most 20. No
             word ends the answer, so N words are always read.
mean         DiffEmbed: one vector, without a prompt.
bare         the blocks alone, over the token ids of a prompted text without masks, in the diffusion model: no
             tokenising, no output head, no representations.

Columns, in milliseconds: one query encoded alone; one passage of a batch; the query and its exact search among
--passages (MaxSim of K against K vectors in float32, best 1,000). Those are random unit vectors; a block of at most
256 MB is scanned as often as needed, because the time does not depend on the values. An encoded text has its vectors
and, where the system has them, its term weights. All variants take turns; medians of --rounds rounds count, after one
that does not.

Writes latency.md, latency.json and latency.png (or --plot) to --output. The default shape is Qwen2-0.5B's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import passages, take_turns, word_tokenizer

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.indexes.multivector.exact import maxsim_block
from diffretriever_pyserini.model.tokenization import Prepared
from diffretriever_pyserini.runtime.devices import device_name, dtype_name

_HEADS = ("num_attention_heads", "num_key_value_heads")
_SIZES = ("hidden_size", "num_hidden_layers", *_HEADS, "intermediate_size", "vocab_size")
SHAPES = {
    "tiny": (64, 2, 4, 2, 128, 4096),
    "0.5b": (896, 24, 14, 2, 4864, 151_936),
    "7b": (3584, 28, 28, 4, 18_944, 152_064),
}
KS = (1, 2, 4, 8, 16, 32)
MOST_WORDS = 20  # of PromptReps, zero-shot
HITS = 1000
BLOCK_BYTES = 256 << 20
SETTINGS = {"cut_at_stop": False, "impact_rounding": "nearest", "max_length": 512}
SYSTEMS = {"bare": "forward pass alone", "mask": "DiffRetriever", "next_token": "PromptReps", "mean": "DiffEmbed"}
SIDES = ("query", "passage")


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds and bytes of one read-out; the forward pass alone has neither a search nor vectors."""

    readout: str
    k: int
    query: float
    passage: float
    search: float | None
    bytes_per_passage: int | None


def main() -> None:
    """Measure, and write the table, the figures and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.5b", help="sizes of the model (default: %(default)s)")
    parser.add_argument("--vocabulary", type=int, help="rows of the output head (default: those of the shape)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", help="default: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--ks", type=int, nargs="+", default=KS, help="numbers of vectors (default: 1 2 4 8 16 32)")
    parser.add_argument("--texts", type=int, default=16, help="of each side and round (default: %(default)s)")
    parser.add_argument("--query-words", type=int, default=8, help="a word is a token (default: %(default)s)")
    parser.add_argument("--passage-words", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--passages", type=int, default=100_000, help="to search (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/latency"))
    parser.add_argument("--plot", type=Path, help="where the plot is written (default: latency.png in --output)")
    options = parser.parse_args()
    words = " ".join(passages(1000)).lower().split()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options, Path(folder), words)
    options.output.mkdir(parents=True, exist_ok=True)
    table = f"{as_table(rows)}\n\n{setting(options)}\n{ratios(rows)}\n"
    (options.output / "latency.md").write_text(table)
    figures = {"setting": setting(options), "rows": [asdict(row) for row in rows]}
    (options.output / "latency.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(rows, options.plot or options.output / "latency.png")
    print(table)


def save_models(folder: Path, options: argparse.Namespace, words: Sequence[str]) -> dict[str, Path]:
    """Write one set of random weights as a causal and as a diffusion checkpoint; the folders by family."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = dict(zip(_SIZES, SHAPES[options.shape], strict=True))
    if options.vocabulary:
        sizes["vocab_size"] = options.vocabulary
    config = Qwen2Config(**sizes, tie_word_embeddings=options.shape != "7b", rope_theta=1e6)
    number = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype_name(options.dtype, device_name(options.device))))
    try:
        Qwen2ForCausalLM(config).save_pretrained(folder / "causal")
    finally:
        torch.set_default_dtype(number)
    word_tokenizer(words, sizes["vocab_size"]).save_pretrained(folder / "causal")
    (folder / "a2d").mkdir()
    for path in (folder / "causal").iterdir():
        os.link(path, folder / "a2d" / path.name)
    raw = json.loads((folder / "causal" / "config.json").read_text()) | {"model_type": "a2d-qwen2"}
    (folder / "a2d" / "config.json").unlink()
    (folder / "a2d" / "config.json").write_text(json.dumps(raw))
    return {family: folder / family for family in ("causal", "a2d")}


def measured(options: argparse.Namespace, folder: Path, words: Sequence[str]) -> list[Row]:
    """A row per read-out and number of vectors, the forward pass alone first."""
    folders = save_models(folder, options, words)
    ks = sorted(set(options.ks))
    capped = sorted({min(k, MOST_WORDS) for k in ks})
    wanted = [("mask", k) for k in ks] + [("next_token", k) for k in capped] + [("mean", 1)]

    def load(readout: str, k: int) -> DiffRetriever:
        path = folders["causal" if readout == "next_token" else "a2d"]
        settings = SETTINGS | {"readout": readout, "k_query": k, "k_passage": k}
        return DiffRetriever.from_pretrained(str(path), options.device, options.dtype, **settings)

    models = {key: load(*key) for key in wanted}
    texts = {"query": texts_of(words, options.texts, options.query_words)}
    texts["passage"] = texts_of(words, options.texts, options.passage_words)
    prompted, blocks = models["next_token", capped[0]], models["mask", ks[0]]
    variants: dict[str, Callable[[], Any]] = {
        f"bare 1 {side}": partial(forward_only, blocks, prompted.prepare(texts[side], side), side == "query")
        for side in SIDES
    }
    for (readout, k), model in models.items():
        for side in SIDES:
            variants[f"{readout} {k} {side}"] = partial(encode, model, texts[side], side)
    queries, width, device = min(options.texts, 4), blocks.dimension, device_name(options.device)
    flat = unit_vectors(min(BLOCK_BYTES // (4 * width), options.passages * ks[-1]), width, device, seed=0)
    for k in sorted({k for _, k in wanted}):
        stored = flat[: len(flat) // k * k].view(-1, k, width)[: options.passages]
        asked = unit_vectors(queries * k, width, device, seed=k).view(queries, k, width)
        variants[f"search {k}"] = partial(searches, asked, stored, options.passages)
    seconds = take_turns(variants, options.rounds, title=f"{len(variants)} variants in turn")
    rows = []
    for readout, k in [("bare", 1), *wanted]:
        query, passage = (1000 * seconds[f"{readout} {k} {side}"] / options.texts for side in SIDES)
        scanned, size = None, None
        if readout != "bare":
            scanned, size = 1000 * seconds[f"search {k}"] / queries, 2 * k * width
        rows.append(Row(readout, k, query, passage, scanned, size))
    return rows


def texts_of(words: Sequence[str], count: int, length: int) -> list[str]:
    """``count`` texts of ``length`` words."""
    return [" ".join(words[(97 * i) % (len(words) - length) :][:length]) for i in range(count)]


def encode(model: DiffRetriever, texts: list[str], side: str) -> None:
    """Encode queries one by one, as they arrive, and passages in batches."""
    for batch in [[text] for text in texts] if side == "query" else [texts]:
        model.encode(batch, side=side, progress=False)


def forward_only(model: DiffRetriever, prepared: Prepared, alone: bool) -> None:
    """Run the blocks on the token ids of ``prepared``, each text alone or in the batches of :func:`encode`."""
    rows = np.arange(len(prepared))
    for batch in rows[:, None] if alone else model.reader.batches(prepared, 32):
        ids = [prepared.ids[i] for i in batch]
        with torch.inference_mode():
            _, table, run = model.reader._laid_out(ids, prepared.layout, prepared.lengths[batch])
            run(table)
    if model.device.startswith("cuda"):
        torch.cuda.synchronize(model.device)


def unit_vectors(count: int, width: int, device: str, seed: int) -> torch.Tensor:
    """Random unit vectors, float32 [count, width]."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator, device=device), dim=1)


def search(query: torch.Tensor, stored: torch.Tensor, count: int) -> torch.Tensor:
    """MaxSim [1, count] of ``query`` [K, H] and ``count`` passages, which are ``stored`` [n, K, H] over and over."""
    parts = [maxsim_block(query, stored[: count - start], 1) for start in range(0, count, len(stored))]
    scores = torch.cat(parts, dim=1)
    scores.topk(min(HITS, count)).indices.cpu()
    return scores


def searches(queries: torch.Tensor, stored: torch.Tensor, count: int) -> None:
    """Search for each of ``queries`` [n, K, H], one by one."""
    for query in queries:
        search(query, stored, count)


def as_table(rows: Sequence[Row]) -> str:
    """The figures, with their ratio to the forward pass alone."""
    bare = rows[0]
    cells = []
    for row in rows:
        total = "" if row.search is None else f"{row.query + row.search:.1f}"
        stored = "" if row.bytes_per_passage is None else f"{row.bytes_per_passage:,}"
        times = [f"{row.query:.1f}", f"{row.query / bare.query:.2f}", f"{row.passage:.1f}"]
        label = [SYSTEMS[row.readout], "" if row.readout == "bare" else str(row.k)]
        cells.append([*label, *times, f"{row.passage / bare.passage:.2f}", total, stored])
    header = ["system", "vectors", "query, ms", "/ bare", "passage, ms", "/ bare", "query and search, ms"]
    return markdown_table([*header, "bytes per passage, float16"], cells)


def setting(options: argparse.Namespace) -> str:
    """What was measured, in a sentence."""
    device = device_name(options.device)
    on_gpu = device.startswith("cuda")
    processor = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
    threads = "" if on_gpu else f", {torch.get_num_threads()} threads"
    return (
        f"Shape {options.shape}, random weights, {dtype_name(options.dtype, device)}, {processor}{threads}; queries of "
        f"{options.query_words} words, passages of {options.passage_words}, without the prompt; {options.passages:,} "
        f"passages searched; medians of {options.rounds} rounds of {options.texts} texts."
    )


def ratios(rows: Sequence[Row]) -> str:
    """Time of many vectors / time of one, for both systems with several."""
    sentences = []
    for readout in ("mask", "next_token"):
        of = {row.k: row for row in rows if row.readout == readout}
        for k in sorted({16, max(of)} & set(of)) if 1 in of else ():
            query, passage = of[k].query / of[1].query, of[k].passage / of[1].passage
            sentences.append(f"{SYSTEMS[readout]}, {k} vectors / 1: query {query:.2f}, passage {passage:.2f}.")
    return " ".join(sentences)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Time against the number of vectors: flat for masks, linear for words."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for side, axes in zip(SIDES, panels, strict=True):
        for readout, style in (("mask", "o-"), ("next_token", "s-")):
            chosen = [row for row in rows if row.readout == readout]
            axes.plot([row.k for row in chosen], [getattr(row, side) for row in chosen], style, label=SYSTEMS[readout])
        for readout, style in (("mean", "--"), ("bare", ":")):
            level = next(getattr(row, side) for row in rows if row.readout == readout)
            axes.axhline(level, linestyle=style, color="gray", label=SYSTEMS[readout])
        axes.set(xlabel="vectors per text", ylabel=f"ms per {side}", ylim=(0, None), title=f"{side} encoding")
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
