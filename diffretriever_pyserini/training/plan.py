"""What a run needs before a GPU is rented: memory on each device and work a step, with the arithmetic shown.

An estimate from shapes, on the high side; nothing is loaded and no device is touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import HUB_BASES
from ..errors import ConfigError
from ..prebuilt import read_json
from .settings import TrainSettings

GB = 1e9
_H100_FLOPS = 989e12  # dense bfloat16, from the data sheet
_USED = 0.4  # share of it that large models reach in practice
_CUDA_GB = 1.5  # context, libraries, fragmentation
_CONTENT = 64  # content tokens of a passage, roughly


@dataclass(frozen=True)
class Shape:
    """The sizes of a backbone."""

    name: str
    family: str
    hidden: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int
    vocab: int
    bias: bool = False

    @property
    def kv_width(self) -> int:
        """Width of keys and of values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def layer_parameters(self) -> int:
        """Linear weights (and q, k, v biases) of one block."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.kv_width
        return attention + 3 * self.hidden * self.mlp + (self.hidden + 2 * self.kv_width if self.bias else 0)

    @property
    def parameters(self) -> int:
        """All of them: blocks, norms, embeddings and the untied output head."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.layers * self.layer_parameters + norms + 2 * self.vocab * self.hidden

    def lora(self, r: int) -> int:
        """Parameters of a LoRA of rank r on every linear layer of the blocks, on LLaDA's head too."""
        h, kv, m = self.hidden, self.kv_width, self.mlp
        block = 2 * (h + h) + 2 * (h + kv) + 3 * (h + m)
        head = h + self.vocab if self.family == "llada" else 0
        return r * (self.layers * block + head)


SHAPES = {
    "dream-7b": Shape("Dream-v0-Instruct-7B", "dream", 3584, 28, 18944, 28, 4, 152064, bias=True),
    "llada-8b": Shape("LLaDA-8B-Instruct", "llada", 4096, 32, 12288, 32, 32, 126464),
}
# The paper's recipe on 8 devices: 128 queries an update, 16 passages each (METHOD section 6).
_RECIPE = {
    "batch_size": 16,
    "negatives": 15,
    "chunk": 16,
    "max_length": 156,
    "bf16": True,
    "gradient_checkpointing": True,
}
PAPER: dict[str, dict[str, Any]] = {
    "dream": _RECIPE | {"model": "dream-7b", "k_query": 4, "k_passage": 16},
    "llada": _RECIPE | {"model": "llada-8b", "k_query": 4, "k_passage": 4},
}


def shape_of(name: str) -> Shape:
    """Shape of ``dream-7b``, ``llada-8b``, their hub ids, or a local base's config.json; ConfigError for others."""
    known = {HUB_BASES[shape.family]: shape for shape in SHAPES.values()} | SHAPES
    if name in known:
        return known[name]
    path = Path(name).expanduser() / "config.json"
    if not path.is_file():
        raise ConfigError(f"--plan knows {', '.join(sorted(known))}, and folders with a config.json; not {name!r}")
    raw = read_json(path)
    llada = "d_model" in raw
    hub_keys = "hidden_size num_hidden_layers intermediate_size num_attention_heads num_key_value_heads vocab_size"
    llada_keys = "d_model n_layers mlp_hidden_size n_heads n_kv_heads embedding_size"
    keys = (llada_keys if llada else hub_keys).split()
    found = [raw.get(key) for key in keys]
    found[4] = found[4] or found[3]
    found[5] = found[5] or raw.get("vocab_size")
    if not all(isinstance(value, int) for value in found):
        raise ConfigError(f"{path}: one of {', '.join(keys)} is missing")
    family = "llada" if llada else "dream"
    h, layers, mlp, heads, kv, vocab = (int(value) for value in found if value is not None)
    return Shape(path.parent.name, family, h, layers, mlp, heads, kv, vocab, bias=not llada)


@dataclass(frozen=True)
class Line:
    """One item of memory: what it is, how it is worked out, and bytes a device."""

    what: str
    how: str
    size: float


def stage_of(settings: TrainSettings) -> int:
    """How far a run spreads its state: 3 for FSDP (weights, too), the stage of its DeepSpeed file, 0 for plain DDP."""
    if not settings.deepspeed:
        return 3 if settings.fsdp else 0
    path = Path(settings.deepspeed)
    stage = (read_json(path).get("zero_optimization") or {}).get("stage", 0)
    if stage not in (0, 1, 2, 3):
        raise ConfigError(f"{path}: zero_optimization.stage {stage!r} is not one of 0, 1, 2, 3")
    return int(stage)


def memory(settings: TrainSettings, shape: Shape, gpus: int, zero: int = 2) -> list[Line]:
    """Memory of one device, item by item; ``zero`` is the DeepSpeed stage (0: plain DDP, 3: FSDP)."""
    h, m, v, layers = shape.hidden, shape.mlp, shape.vocab, shape.layers
    trained = shape.lora(settings.lora_r) if settings.lora_r else shape.parameters
    width = 4 if settings.lora_r else 2
    shared = gpus if zero >= 2 else 1
    kind, each_weight = ("float32", 4) if settings.dtype == "float32" else ("bfloat16", 2)
    weights = each_weight * shape.parameters / (gpus if zero == 3 else 1)
    k_query, k_passage, length = _sizes(settings)
    texts = settings.batch_size * (1 + settings.negatives)
    chunk = min(settings.chunk or texts, texts)
    tokens = chunk * length
    lines = [
        Line(
            f"weights, {kind}",
            f"{each_weight} B x {shape.parameters / GB:.2f}e9" + (f" / {gpus}" if zero == 3 else ""),
            weights,
        ),
        *_gathered(shape, zero),
        Line("trained weights", f"{width} B x {trained / 1e6:.1f}e6", width * trained if settings.lora_r else 0),
        Line("gradients", f"4 B x {trained / 1e6:.1f}e6 / {shared}", 4 * trained / shared),
        Line("Adam, two moments and a float32 copy", f"12 B x {trained / 1e6:.1f}e6 / {shared}", 12 * trained / shared),
    ]
    # One block's own tensors: bfloat16 activations, and float32 copies at LoRA's inputs with their dropout masks.
    block = tokens * (2 * (10 * h + 2 * shape.kv_width + 5 * m) + (8 * (6 * h + m) if settings.lora_r else 0))
    if settings.gradient_checkpointing:
        stored = 2 * layers * tokens * h
        lines.append(Line("inputs of the blocks", f"2 B x {layers} x {chunk} texts x {length} tokens x {h}", stored))
        lines.append(Line("one block at work", f"about {block / tokens / 1e3:.0f} kB x {tokens} tokens", block))
    else:
        how = f"about {block / tokens / 1e3:.0f} kB x {tokens} tokens x {layers}"
        lines.append(Line("activations of all blocks", how, layers * block))
    mask = 2 * chunk * length**2
    lines.append(Line("attention mask", f"2 B x {chunk} x {length}^2", mask))
    rows = chunk * max(k_query, k_passage)
    each = 4 if settings.lexical_terms != "vocabulary" else 12
    lines.append(Line("logits at the K rows", f"{each} B x {rows} rows x {v}", each * rows * v))
    if settings.denoising_weight:
        masked = min(chunk, settings.denoising_passages) * length // 2
        lines.append(Line("logits at masked text tokens", f"12 B x {masked} rows x {v}", 12 * masked * v))
    everywhere = texts * (gpus if settings.cross_device_negatives else 1)
    vectors = 8 * everywhere * (k_passage * h + 2 * _CONTENT)
    how = f"8 B x {everywhere} passages x ({k_passage} x {h} + {2 * _CONTENT})"
    lines.append(Line("vectors of all passages, with gradients", how, vectors))
    products = 8 * settings.batch_size * k_query * everywhere * k_passage
    lines.append(Line("MaxSim", f"8 B x {settings.batch_size} x {k_query} x {everywhere} x {k_passage}", products))
    lines.append(Line("CUDA, libraries, fragmentation", "fixed", _CUDA_GB * GB))
    return lines


def _gathered(shape: Shape, zero: int) -> list[Line]:
    """What FSDP holds whole for a while: embeddings and head all the time, one block at work and the next one."""
    if zero < 3:
        return []
    count = 2 * shape.vocab * shape.hidden + 2 * shape.layer_parameters
    return [Line("weights put together", f"2 B x {count / GB:.2f}e9 (embeddings, head, two blocks)", 2 * count)]


def _sizes(settings: TrainSettings) -> tuple[int, int, int]:
    """K_q, K_p and the longest sequence: masks and the three tail tokens come on top of max_length."""
    k_query, k_passage = settings.k_query or 4, settings.k_passage or 4
    return k_query, k_passage, (settings.max_length or 156) + max(k_query, k_passage) + 3


def work(settings: TrainSettings, shape: Shape) -> tuple[float, str]:
    """FLOPs of one step on one device, and how they come about."""
    k_query, k_passage, _ = _sizes(settings)
    length = settings.max_length or 156
    tokens = settings.batch_size * ((length + k_query + 3) + (1 + settings.negatives) * (length + k_passage + 3))
    passes = ["forward", "backward through frozen weights"] if settings.lora_r else ["forward", "backward (two)"]
    count = 2 if settings.lora_r else 3
    if settings.chunk:
        passes.append("forward again for the chunks")
        count += 1
    if settings.gradient_checkpointing:
        passes.append("forward again for the blocks")
        count += 1
    inside = shape.layers * shape.layer_parameters
    flops = 2.0 * inside * tokens * count
    return flops, f"2 x {inside / GB:.2f}e9 weights x {tokens} tokens x {count} ({', '.join(passes)})"


def plan(settings: TrainSettings, shape: Shape, gpus: int, gpu_memory: float, zero: int = 2) -> str:
    """The whole plan as text: recipe, memory on each device with its arithmetic, verdict, work a step."""
    if gpus < 1:
        raise ConfigError(f"--gpus {gpus} must be at least 1")
    lines = memory(settings, shape, gpus, zero)
    total = sum(line.size for line in lines)
    k_query, k_passage, length = _sizes(settings)
    update = settings.batch_size * settings.accumulate * gpus
    trained = f"LoRA r {settings.lora_r}, alpha {settings.lora_alpha}" if settings.lora_r else "all weights"
    kind = ("plain DDP", "ZeRO-1", "ZeRO-2", "FSDP")[zero]
    head = [
        f"{shape.name}: {shape.parameters / GB:.2f}e9 parameters, K {k_query}/{k_passage}, {trained}",
        f"{gpus} device(s) of {gpu_memory:g} GB, {kind}; {update} queries an "
        f"update, {1 + settings.negatives} passages each, at most {length} tokens, chunks of {settings.chunk or 'all'}",
        "",
    ]
    wide = max(len(line.what) for line in lines)
    body = [f"{line.what:<{wide}}  {line.size / GB:7.2f} GB  = {line.how}" for line in lines]
    flops, how = work(settings, shape)
    seconds = flops / (_H100_FLOPS * _USED)
    fits = f"fits into {gpu_memory:g} GB"
    if total > gpu_memory * GB:
        fits = f"does NOT fit into {gpu_memory:g} GB; try {_advice(settings)}"
    tail = [
        f"{'sum':<{wide}}  {total / GB:7.2f} GB  {fits}",
        "",
        f"work a step and device: {flops:.2e} FLOP = {how}",
        f"about {seconds:.1f} s a step on an H100 at {_USED:.0%} of {_H100_FLOPS / 1e12:.0f} TFLOP/s; "
        f"400,000 queries are {math.ceil(400_000 / update)} updates, about "
        f"{math.ceil(400_000 / update) * settings.accumulate * seconds / 3600:.1f} h",
        "Estimates from shapes, not measurements.",
    ]
    return "\n".join(head + body + tail)


def _advice(settings: TrainSettings) -> str:
    wishes = []
    if not settings.gradient_checkpointing:
        wishes.append("gradient_checkpointing: true")
    wishes.append(f"chunk: {max(1, (settings.chunk or 16) // 2)}")
    wishes.append("a smaller batch_size with accumulate, or fsdp")
    return ", ".join(wishes)
