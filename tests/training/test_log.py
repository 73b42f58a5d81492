"""log.jsonl has every loss, whatever log_steps, and the plot shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffretriever_pyserini.training import run
from diffretriever_pyserini.training.log import plot_log, read_log
from diffretriever_pyserini.training.run import train
from diffretriever_pyserini.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_steps": 3, "log_steps": 10}, [3]),
        ({"max_steps": 3, "log_steps": 2}, [2, 3]),
        ({"max_steps": 3, "log_steps": 10, "save_steps": 2}, [2, 3]),
        ({"max_steps": -1, "epochs": 0.5, "batch_size": 8, "log_steps": 10, "dev_rows": 8}, [3]),
    ],
)
def test_the_last_step_is_logged(
    changes: dict[str, object], steps: list[int], tiny_settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    train(tiny_settings(**changes), say=lambda _: None)
    records = [record for record in read_log(tmp_path / "out" / "log.jsonl") if "loss" in record]
    assert [record["step"] for record in records] == steps
    assert all(record["loss"] > 0 and record["dense"] > 0 for record in records)


def test_a_run_that_stops_early_has_its_last_loss(tiny_settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    """The run ends at an evaluation where the measure no longer rises."""
    settings = tiny_settings(max_steps=20, dev_rows=8, eval_steps=1, patience=1, log_steps=50, learning_rate=1e-9)
    figures = train(settings, say=lambda _: None)
    assert figures["steps"] < 20
    assert [one for one in read_log(tmp_path / "out" / "log.jsonl") if "loss" in one][-1]["step"] == figures["steps"]


def test_one_loss_is_seen_in_the_plot(tmp_path: Path) -> None:
    """A line of one point is invisible, so the plot must draw a marker in the middle of the panel."""
    from matplotlib.image import imread

    plot_log([{"step": 4, "loss": 1.0}], tmp_path / "one.png")
    picture = imread(tmp_path / "one.png")[:, :, :3]
    middle = picture[100:-100, 120 : picture.shape[1] // 2 - 120]
    inked = (middle.max(axis=2) - middle.min(axis=2)) > 0.3  # in colour: neither grid nor text
    assert inked.any()


def test_a_run_without_matplotlib_ends_without_a_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "diffretriever-pyserini[plots]" in run._plot(tmp_path)
    assert list(tmp_path.iterdir()) == []
