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
    from ..model.retriever import DiffRetriever

LOG_SECONDS = 10  # between two lines of the log while a part is in the model

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
    quiet : no bar and no lines for a person.
    log : stream that gets one JSON object after every part, and in between where a part takes long.
    shard, shards : what this process encodes, for the lines.
    """

    def __init__(
        self, model: DiffRetriever, quiet: bool = False, log: IO[str] | None = None, shard: int = 0, shards: int = 1
    ):
        from tqdm import tqdm

        self._log, self._quiet = log, quiet
        self._shard = {"shard": shard, "shards": shards}
        self.times: defaultdict[str, float] = defaultdict(float)
        self.passages = self.tokens = 0
        self._rows = self._kept = 0  # corpus rows that are done, and those of them that were there already
        self._ahead = 0  # passages of a part that is still in the model
        self._total: int | None = None
        self._started = self._logged = time.perf_counter()
        self._parameters = block_parameters(model)
        self._head = head_flops(model)
        self._k = model.config.k_passage
        self._peak = peak_flops(model.device)
        self._bar: Any = tqdm(unit=" passages", desc="Encoding", delay=2, disable=True if quiet or log else None)

    def model(self, rows: int, passages: int, tokens: int, seconds: float) -> None:
        """A part of so many corpus rows went through the model."""
        self.passages += passages
        self.tokens += tokens
        self.times["model"] += seconds
        self._bar.update(max(0, rows - self._ahead))  # rows that were skipped
        self._rows += rows
        self._ahead = 0
        self._bar.set_postfix({name: f"{value:,.3g}" for name, value in self.rates().items()}, refresh=False)
        self._write_line()

    def tick(self, passages: int) -> None:
        """A batch went through the model."""
        self._ahead += passages
        self._bar.update(passages)
        if time.perf_counter() - self._logged > LOG_SECONDS:
            self._write_line()

    def keep(self, rows: int) -> None:
        """Rows of a part that was there already: the bar passes over them, and its speed does not count them."""
        self._rows += rows
        self._kept += rows
        if not self._bar.disable:
            for name in ("n", "initial", "last_print_n"):
                setattr(self._bar, name, getattr(self._bar, name) + rows)
            self._bar.refresh()

    def expect(self, total: int) -> None:
        """How many corpus rows there will be, once that is known: from then on it can be said when it will be done."""
        self._total = self._bar.total = total
        self._bar.refresh()

    def again(self, why: str) -> None:
        """The corpus is gone through once more; what was done before no longer counts as done."""
        self.say(why)
        self._rows = self._kept = self._ahead = 0
        self._total = None
        self._bar.reset()

    def state(self) -> dict[str, Any]:
        """What a line of the JSON log says; see docs/corpus.md."""
        seconds = time.perf_counter() - self._started
        done = self._rows + self._ahead
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
