"""The log of a run: log.jsonl, a progress line with the loss's parts, and a plot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..evaluation.plots import new_figure, save_figure
from ..files.atomic import write_whole

_PARTS = (
    "dense",
    "lexical",
    "fused",
    "denoising",
    "diversity",
    "margin_mse",
    "relational_kl",
    "lexical_kl",
    "fused_kl",
    "embedding",
    "embedding_kl",
)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl, oldest first; an incomplete last line is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class RunLog(TrainerCallback):
    """Append every log of the trainer to ``path`` as a JSON object with its step, and report it in one line.

    A resumed run first removes the records after the checkpoint's step, so the file reads like an uninterrupted run's.
    """

    def __init__(self, path: Path, say: Callable[[str], None]):
        self.path, self.say = path, say
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        from tqdm.auto import tqdm

        if state.is_world_process_zero:
            earlier = [record for record in read_log(self.path) if record["step"] <= state.global_step]
            if not state.global_step:
                earlier = []
            write_whole(self.path, "".join(json.dumps(record) + "\n" for record in earlier))
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", disable=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)
        self._log_now(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._log_now(control)

    @staticmethod
    def _log_now(control: Any) -> None:
        """Log at every step where the run may end or resume, whatever ``log_steps``, so that no loss is missing."""
        control.should_log |= control.should_evaluate or control.should_save or control.should_training_stop

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step} | logs) + "\n")
        line = _line(logs)
        if line:
            self.say(f"step {state.global_step}/{state.max_steps}: {line}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._bar is not None:
            self._bar.close()


def _line(logs: dict[str, Any]) -> str:
    if "loss" in logs:
        parts = ", ".join(f"{name} {logs[name]:.4f}" for name in _PARTS if name in logs)
        masked = f", {logs['masked']:.1f} pairs masked" if logs.get("masked") else ""
        return f"loss {logs['loss']:.4f} ({parts}), learning rate {logs['learning_rate']:.2e}{masked}"
    figures = [f"{name.removeprefix('eval_')} {logs[name]:.4f}" for name in logs if name.startswith("eval_")]
    return "development nDCG@10: " + ", ".join(figures) if figures else ""


def plot_log(records: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG: the loss and its parts on the left, development measures on the right, over steps."""
    figure = new_figure((11, 4), str(path))
    left, right = figure.subplots(1, 2)
    for name in ("loss", *_PARTS):
        points = [(record["step"], record[name]) for record in records if name in record]
        if points:
            marker = "." if len(points) == 1 else None  # a line of one point is invisible
            left.plot(*zip(*points, strict=True), label=name, linewidth=2 if name == "loss" else 1, marker=marker)
    left.set(xlabel="step", ylabel="loss", title="Training loss and its parts (unweighted)")
    names = sorted({name for record in records for name in record if name.startswith("eval_")})
    for name in names:
        points = [(record["step"], record[name]) for record in records if name in record]
        right.plot(*zip(*points, strict=True), label=name.removeprefix("eval_"), marker=".")
    right.set(xlabel="step", ylabel="nDCG@10", title="Development set" if names else "No development set")
    for axes in (left, right):
        if axes.lines:
            axes.legend()
        axes.grid(alpha=0.3)
    save_figure(path, figure, dpi=120)
