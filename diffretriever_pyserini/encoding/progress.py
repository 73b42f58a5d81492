"""The progress of encoding: passages and tokens per second, share of the device's peak, and where the time goes."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever

LOG_SECONDS = 10  # between two lines of the log, while a part is in the model

# Dense bfloat16 operations per second (NVIDIA's data sheets, without sparsity).
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
    """Counts, a bar on a terminal, and optional JSON lines.

    Parameters
    ----------
    quiet : show no bar and no messages.
    log : stream that gets a JSON object after every part, and every `LOG_SECONDS` while a part is in the model.
    shard, shards : what this process encodes, for the JSON lines.
    """

    def __init__(
        self, model: DiffRetriever, quiet: bool = False, log: IO[str] | None = None, shard: int = 0, shards: int = 1
    ):
        from tqdm.auto import tqdm

        self._log, self._quiet = log, quiet
        self._shard = {"shard": shard, "shards": shards}
        self.times: defaultdict[str, float] = defaultdict(float)
        self.passages = self.tokens = 0
        self._rows = self._kept = 0  # corpus rows of finished parts, and of parts that existed already
        self._in_model = 0  # passages of the current part that have passed the model
        self._total: int | None = None
        self._started = self._logged = time.perf_counter()
        self._parameters = block_parameters(model)
        self._head = head_flops(model)
        self._k = model.config.k_passage
        self._peak = peak_flops(model.device)
        self._bar: Any = tqdm(unit=" passages", desc="Encoding", delay=2, disable=True if quiet or log else None)

    def model(self, rows: int, passages: int, tokens: int, seconds: float) -> None:
        """Count a part that has passed the model."""
        self.passages += passages
        self.tokens += tokens
        self.times["model"] += seconds
        self._bar.update(max(0, rows - self._in_model))  # rows that were skipped
        self._rows += rows
        self._in_model = 0
        if self._peak:
            self._bar.set_postfix({"MFU": f"{self.rates()['MFU']:.0%}"}, refresh=False)
        self._write_line()

    def tick(self, passages: int) -> None:
        """Count a batch of passages that has passed the model."""
        self._in_model += passages
        self._bar.update(passages)
        if time.perf_counter() - self._logged > LOG_SECONDS:
            self._write_line()

    def keep(self, rows: int) -> None:
        """Count the rows of a part that existed already; the bar's speed ignores them."""
        self._rows += rows
        self._kept += rows
        if not self._bar.disable:
            for name in ("n", "initial", "last_print_n"):
                setattr(self._bar, name, getattr(self._bar, name) + rows)
            self._bar.refresh()

    def expect(self, total: int) -> None:
        """Set the number of corpus rows once it is known, so that the remaining time can be estimated."""
        self._total = self._bar.total = total
        self._bar.refresh()

    def restart(self, reason: str) -> None:
        """Begin again at the first row of the corpus, for a ``reason`` that is shown."""
        self.say(reason)
        self._rows = self._kept = self._in_model = 0
        self._total = None
        self._bar.reset()

    def state(self) -> dict[str, Any]:
        """Return the object of a JSON line; see docs/encoding.md."""
        seconds = time.perf_counter() - self._started
        done = self._rows + self._in_model
        encoded = done - self._kept
        eta = None
        if self._total is not None and encoded:
            eta = round(max(0, self._total - done) * seconds / encoded, 1)
        counts = {
            "done": done,
            "total": self._total,
            "kept": self._kept,
            "passages": self.passages,
            "tokens": self.tokens,
        }
        rates = {name: round(value, 4) for name, value in self.rates().items()}
        return {**self._shard, **counts, "seconds": round(seconds, 2), **rates, "ETA": eta}

    def _write_line(self) -> None:
        self._logged = time.perf_counter()
        if self._log is not None:
            print(json.dumps(self.state()), file=self._log, flush=True)

    def rates(self) -> dict[str, float]:
        """Return passages and tokens per second since the start, and the share of the device's peak if known."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        rates = {"passages/s": self.passages / seconds, "tokens/s": self.tokens / seconds}
        if self._peak:
            flops = 2 * self._parameters * self.tokens + self._head * self._k * self.passages
            rates["MFU"] = flops / seconds / self._peak
        return rates

    @contextlib.contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Add the time of the block to ``times[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] += time.perf_counter() - started

    def say(self, text: str) -> None:
        """Show a message above the bar."""
        if not self._quiet:
            self._bar.write(text, file=sys.stderr)

    def summary(self, **counts: int) -> dict[str, Any]:
        """Return counts, rates and times (seconds in the model, waiting for texts, waiting for the disk)."""
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
        """Close the bar."""
        self._bar.close()


def total_figures(summaries: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return the sums of the shards' :meth:`Progress.summary`, and rates over ``seconds``."""
    names = ("passages", "skipped", "parts", "kept", "encoded", "tokens")
    total: dict[str, Any] = {name: sum(summary[name] for summary in summaries) for name in names}
    rates = {"passages/s": total["encoded"] / seconds, "tokens/s": total["tokens"] / seconds}
    return total | {name: round(value, 2) for name, value in {"seconds": seconds, **rates}.items()}


def block_parameters(model: DiffRetriever) -> int:
    """Return the number of weights that every token is multiplied with: the blocks, without embeddings and head."""
    network: Any = model._backbone.model
    modules = (network.get_input_embeddings(), network.get_output_embeddings())  # no head: a read-out without terms
    tables = {id(module.weight) for module in modules if module is not None}
    return sum(p.numel() for p in network.parameters() if id(p) not in tables and p.dim() == 2)


def head_flops(model: DiffRetriever) -> int:
    """Return the operations of the output head per mask position, if every column is computed; else 0."""
    return 2 * model.dimension * model.vocab_size if model.reader.needs_every_logit else 0


def peak_flops(device: str) -> float:
    """Return the device's peak in bfloat16, or 0 if unknown."""
    import torch

    if not device.startswith("cuda"):
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if re.search(rf"\b{key}\b", name)), 0.0)
