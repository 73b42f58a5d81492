"""Encoding with a 7B model on a GPU: share of the GPU's peak, end to end against the bare forward pass, idle time.

    python benchmarks/encode_gpu.py [--device cuda] [--passages 2048] [--max-length 128] [--k 16]

A Dream-shaped model of the real sizes with random weights, created on the device. Passages are cut to --max-length
tokens including the prompt; K masks and the tail are added.

forward     blocks and the output head's columns on the K rows, of tokenised passages: tokens per second and share of
            the device's peak in bfloat16 (MFU; attention is not counted as work).
whole       `encode_corpus` from JSON lines to a store, measured alternately with `forward`: the ratio of their times.
idle        share of the time of one more `whole` in which no kernel ran, by torch's profiler.

Writes encode_gpu.md and encode_gpu.json to --output. A run on a CPU (with --layers 2 --hidden 256, for example) only
tests that the program works.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import SIZES, dream_shaped, passages, take_turns

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import TOKEN_BUDGETS, EncodeOptions, encode_corpus
from diffretriever_pyserini.encoding.progress import Progress, block_parameters, peak_flops
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.model.backbones.dream import DreamBackbone
from diffretriever_pyserini.model.tokenization import Prepared

DREAM = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
HEADS = {"num_attention_heads": 28, "num_key_value_heads": 4}


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--passages", type=int, default=2048)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--token-budget", type=int, help="tokens per batch (default: that of `diffretriever encode`)")
    parser.add_argument("--layers", type=int, default=DREAM["num_hidden_layers"])
    parser.add_argument("--hidden", type=int, default=DREAM["hidden_size"], help="a multiple of 128")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encode"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options, Path(folder))
    table = markdown_table(["what", "value", "how"], rows)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "encode_gpu.md").write_text(f"{table}\n")
    (options.output / "encode_gpu.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table)


def measured(options: argparse.Namespace, folder: Path) -> list[list[str]]:
    """The rows of the table."""
    model = real_sizes(options, folder / "small")
    words = " ".join(passages(500)).split()
    length = options.max_length  # a word is a token, so every text is cut
    texts = [" ".join(words[(i * 37) % (len(words) - length) :][:length]) for i in range(options.passages)]
    prepared = model.prepare(texts, "passage", options.max_length)
    budget = options.token_budget or TOKEN_BUDGETS[options.device.partition(":")[0]]
    batches = [
        ([prepared.ids[i] for i in batch], columns_of(prepared, batch, options.device))
        for batch in model.reader.batches(prepared, 0, budget)
    ]
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), "text": text}) + "\n" for i, text in enumerate(texts)))
    count = iter(range(1 << 30))

    def whole() -> None:
        settings = EncodeOptions(token_budget=budget, max_length=options.max_length, rows_per_part=1024)
        encode_corpus(model, Corpus([path]), folder / f"store{next(count)}", settings, Progress(model, quiet=True))

    def forward() -> None:
        with torch.inference_mode():
            for ids, columns in batches:
                model.reader.forward(ids, prepared.layout, columns)
        wait(options.device)

    medians = take_turns({"forward": forward, "whole": whole}, options.rounds)
    tokens, peak = int(prepared.lengths.sum()), peak_flops(options.device)
    flops = 2 * block_parameters(model) * tokens
    rows = []
    for name, seconds in medians.items():
        share = f", MFU {flops / seconds / peak:.3f}" if peak else ""
        how = f"{len(texts) / seconds:.1f} passages/s of {tokens / len(texts):.0f} tokens{share}"
        rows.append([f"{name}: tokens/s", f"{tokens / seconds:,.0f}", how])
    rows.append(["end to end / forward", f"{medians['forward'] / medians['whole']:.3f}", "0.95 is the aim"])
    if options.device.startswith("cuda"):
        rows.append(["idle share of the GPU, end to end", f"{idle_share(whole):.3f}", "0.03 is the aim"])
        used = torch.cuda.max_memory_allocated(options.device) / 2**30
        rows.append(["peak memory", f"{used:.1f} GiB", torch.cuda.get_device_name(options.device)])
    kernel = "torch's variable-length attention" if model.reader.backbone.packing(prepared.lengths[:1]).kernel else "no"
    rows.append(["variable-length kernel", kernel, f"batches of {budget} tokens"])
    return rows


def real_sizes(options: argparse.Namespace, folder: Path) -> DiffRetriever:
    """The retriever of a small Dream-shaped model, with its backbone replaced by one of 7B."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = dream_shaped(1, folder, k=options.k)
    config = Qwen2Config(
        **DREAM | {"num_hidden_layers": options.layers, "hidden_size": options.hidden},
        **HEADS if options.hidden == DREAM["hidden_size"] else {"num_attention_heads": 2, "num_key_value_heads": 2},
        vocab_size=SIZES["vocab_size"],
        rope_theta=1e6,
        dtype=torch.bfloat16,
    )
    config.is_causal, config.use_cache = False, False
    torch.manual_seed(0)
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(options.device):
            network = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(dtype)
    backbone = DreamBackbone(network.requires_grad_(False))
    backbone.pack()
    model._backbone = model.reader.backbone = backbone
    return model


def columns_of(prepared: Prepared, batch: list[int], device: str) -> torch.Tensor:
    """Content ids int64 [B, C] of the texts of ``batch``, padded with 0."""
    assert prepared.content is not None
    rows = [torch.from_numpy(prepared.content[i].astype(np.int64)) for i in batch]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)


def wait(device: str) -> None:
    """Wait until the GPU has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def idle_share(function: Callable[[], Any]) -> float:
    """Share of the time of ``function`` in which no kernel ran; copies are not kernels."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        function()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    spans = [
        (event.time_range.start, event.time_range.end)  # microseconds
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    ]
    return 1 - covered(spans) / (1e6 * seconds)


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s in all")
