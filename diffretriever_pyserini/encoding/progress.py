"""What a person sees while a corpus is encoded: passages and tokens a second, share of peak, where the time goes."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..retriever import DiffRetriever

# Dense bfloat16 products a second (NVIDIA's data sheets, without sparsity).
PEAK_FLOPS = {
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}


class Progress:
    """Counts, a bar on a terminal, and JSON lines where asked for.

    Parameters
    ----------
    quiet : no bar and no lines.
    log : stream that gets one JSON object after every part.
    total : passages that are expected, where that is known.
    """

    def __init__(self, model: DiffRetriever, quiet: bool = False, log: IO[str] | None = None, total: int | None = None):
        from tqdm import tqdm

        self._log, self._quiet = log, quiet
        self.times: defaultdict[str, float] = defaultdict(float)
        self.passages = self.tokens = 0
        self._started = time.perf_counter()
        self._parameters = block_parameters(model)
        self._head = head_flops(model)
        self._k = model.config.k_passage
        self._peak = peak_flops(model.device)
        self._bar: Any = tqdm(
            total=total, unit=" passages", desc="Encoding", delay=2, disable=True if quiet or log else None
        )

    def model(self, passages: int, tokens: int, seconds: float) -> None:
        """A part went through the model."""
        self.passages += passages
        self.tokens += tokens
        self.times["model"] += seconds
        rates = self.rates()
        self._bar.set_postfix({name: f"{value:,.3g}" for name, value in rates.items()}, refresh=False)
        if self._log is not None:
            print(json.dumps({"passages": self.passages, "tokens": self.tokens, **rates}), file=self._log, flush=True)

    def tick(self, passages: int) -> None:
        """A batch went through the model."""
        self._bar.update(passages)

    def keep(self, passages: int) -> None:
        """Passages that were there already: the bar passes over them, and its speed does not count them."""
        if not self._bar.disable:
            for name in ("n", "initial", "last_print_n"):
                setattr(self._bar, name, getattr(self._bar, name) + passages)
            self._bar.refresh()

    def expect(self, total: int) -> None:
        """How many passages there will be, once that is known: from then on the bar says when it will be done."""
        self._bar.total = total
        self._bar.refresh()

    def rates(self) -> dict[str, float]:
        """Passages and tokens a second of the whole run so far, and the share of the device's peak where known."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        found = {"passages/s": self.passages / seconds, "tokens/s": self.tokens / seconds}
        if self._peak:
            flops = 2 * self._parameters * self.tokens + self._head * self._k * self.passages
            found["MFU"] = flops / seconds / self._peak
        return found

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Count the time of the block under ``what``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.times[what] += time.perf_counter() - started

    def say(self, text: str) -> None:
        """A line for a person, beside the bar."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)

    def summary(self, **counts: int) -> dict[str, Any]:
        """Counts, rates and where the time went (seconds in the model, waiting for texts, waiting for the disk)."""
        seconds = time.perf_counter() - self._started
        spent = {f"seconds_{name}": round(value, 2) for name, value in sorted(self.times.items())}
        rates = {name: round(value, 4) for name, value in self.rates().items()}
        return {
            **counts,
            "encoded": self.passages,
            "tokens": self.tokens,
            "seconds": round(seconds, 2),
            **spent,
            **rates,
        }

    def close(self) -> None:
        """End the bar."""
        self._bar.close()


def block_parameters(model: DiffRetriever) -> int:
    """Weights that every token is multiplied with: the blocks, without embeddings and output head."""
    network: Any = model._backbone.model
    tables = {id(module.weight) for module in (network.get_input_embeddings(), network.get_output_embeddings())}
    return sum(p.numel() for p in network.parameters() if id(p) not in tables and p.dim() == 2)


def head_flops(model: DiffRetriever) -> int:
    """Products and sums of the output head for one place, if every column is computed."""
    return 2 * model.dimension * model.vocab_size if model.reader.needs_every_logit else 0


def peak_flops(device: str) -> float:
    """The device's peak in bfloat16, 0 where it is not known."""
    import torch

    if not device.startswith("cuda"):
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if re.search(rf"\b{key}\b", name)), 0.0)
