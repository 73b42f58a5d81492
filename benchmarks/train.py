"""Speed of training steps: without padding against padded, all layers against the upper four, bfloat16 against float32.

    python benchmarks/train.py [--threads N] [--batch N] [--steps N]

Steps of `diffretriever train` (collator, forward, backward, update; LoRA rank 32; no dropout) on all-MiniLM-L6-v2,
K 4/16, with passages of 20 to 120 words. All ways run in turn in each round, in one process. The limit is what the
matrix products of the model's layers alone would allow: their number of operations at the measured speed of one such
product of the same type. bfloat16 (`--bf16 true`) needs a processor with AVX-512 bf16, without which it is slow.
"""

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from diffretriever_pyserini.model.backbones.loading import load_tokenizer
from diffretriever_pyserini.model.layout import build_layout
from diffretriever_pyserini.model.resolve import resolve_config
from diffretriever_pyserini.training.data.batches import Collator, Example
from diffretriever_pyserini.training.lora import LoraSettings, trainable_backbone
from diffretriever_pyserini.training.model import MaskReader
from diffretriever_pyserini.training.objective import objective
from diffretriever_pyserini.training.settings import TrainSettings
from diffretriever_pyserini.training.trainer import attention_by_products

BASE = "sentence-transformers/all-MiniLM-L6-v2"
NEGATIVES = 3


@dataclass
class Way:
    """A model that is trained, and the seconds of its steps."""

    name: str
    layers: int
    padded: bool = False
    bf16: bool = False
    fused: bool = False  # with bfloat16: torch's fused attention, which `diffretriever train` avoids on a CPU
    model: Any = None
    optimiser: Any = None
    seconds: list[float] = field(default_factory=list)

    def outputs(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Those of the forward pass."""
        by_products = self.bf16 and not self.fused
        with (
            attention_by_products() if by_products else nullcontext(),
            torch.autocast("cpu", torch.bfloat16, enabled=self.bf16),
        ):
            outputs: dict[str, torch.Tensor] = self.model(batch["query"], batch["passage"])
        return outputs


def examples(count: int, words: list[str], rng: np.random.Generator) -> list[Example]:
    """Rows of random words: queries of 5 to 30, passages of 20 to 120."""

    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(words, rng.integers(low, high)))

    return [Example(text(5, 30), tuple(text(20, 120) for _ in range(1 + NEGATIVES))) for _ in range(count)]


def product_speed(hidden: int, wide: int, dtype: torch.dtype, rows: int = 1536) -> float:
    """Operations per second of one of the layers' matrix products."""
    a, b = torch.randn(rows, hidden).to(dtype), torch.randn(wide, hidden).to(dtype)
    torch.nn.functional.linear(a, b)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        torch.nn.functional.linear(a, b)
        times.append(time.perf_counter() - started)
    return 2 * rows * hidden * wide / statistics.median(times)


def operations(model: Any, layers: int) -> int:
    """Those of the layers' matrix products per token: forward in all, gradients of the inputs in the upper ones."""
    hidden, wide, depth = model.config.hidden_size, model.config.intermediate_size, model.config.num_hidden_layers
    return 2 * (4 * hidden * hidden + 2 * hidden * wide) * (depth + (layers or depth))


def main() -> None:
    """Run the steps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32, help="queries per step")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each way")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = resolve_config(
        BASE, k_query=4, k_passage=16, lexical_terms="stems", mask_position_ids="tail", prefix_budgets=(1, 2, 4, 8, 16)
    )
    settings = TrainSettings(
        model=BASE, data=("-",), output="-", temperature=0.05, fused_weight=0.5, prefix_budgets=config.prefix_budgets
    )
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    collator = Collator(tokenizer, layouts, pad_left=False, terms="stems")
    ways = [
        Way("padded, all layers", 0, padded=True),
        Way("padded, 4 layers", 4, padded=True),
        Way("packed, all layers", 0),
        Way("packed, 4 layers", 4),
        Way("packed, all layers, bfloat16, fused attention", 0, bf16=True, fused=True),
        Way("packed, all layers, bfloat16", 0, bf16=True),
        Way("packed, 4 layers, bfloat16", 4, bf16=True),
    ]
    for way in ways:
        backbone = trainable_backbone(config, torch.float32, LoraSettings(32, 64, 0.0, way.layers))
        way.model = MaskReader(backbone, layouts)
        if way.padded:
            backbone.model.set_attn_implementation("sdpa")
        way.optimiser = torch.optim.AdamW([p for p in way.model.parameters() if p.requires_grad], lr=1e-4)
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 3]
    rng, tokens, total = np.random.default_rng(1), 0, 0
    for step in range(options.steps + 1):
        rows = examples(options.batch, words, rng)
        for way in ways:
            started = time.perf_counter()
            batch = collator(rows)
            losses = objective(way.outputs(batch), batch, settings, len(tokenizer))
            losses["loss"].backward()
            way.optimiser.step()
            way.optimiser.zero_grad(set_to_none=True)
            if step:
                way.seconds.append(time.perf_counter() - started)
        if step:
            masks = options.batch * (config.k_query + 3 + (1 + NEGATIVES) * (config.k_passage + 3))
            here = sum(int(batch[side]["attention_mask"].sum()) for side in ("query", "passage"))
            tokens, total = tokens + here - masks, total + here
    baseline, base = sum(ways[0].seconds), ways[0].model.network.config
    speed = {
        bf16: product_speed(base.hidden_size, base.intermediate_size, torch.bfloat16 if bf16 else torch.float32)
        for bf16 in (False, True)
    }
    print(f"{options.threads} threads, {options.batch} rows, {tokens // options.steps} text tokens per step")
    print(f"{'':<46}{'text tokens/s':>14}{'ratio':>8}{'of the limit':>14}")
    for way in ways:
        seconds = sum(way.seconds)
        least = operations(way.model.network, way.layers) * total / speed[way.bf16]
        print(f"{way.name:<46}{tokens / seconds:>14,.0f}{baseline / seconds:>8.2f}{least / seconds:>14.2f}")


if __name__ == "__main__":
    main()
