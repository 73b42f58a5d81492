"""The development measure: the same figures from several processes, equal queries merged, a progress bar."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from diffretriever_pyserini.training import develop
from diffretriever_pyserini.training.data.rows import parse_line
from diffretriever_pyserini.training.settings import TrainSettings

from .. import warm
from .measure_together import parts, run

Settings = Callable[..., TrainSettings]


def test_two_processes_share_the_work_and_agree_with_one(tiny_settings: Settings, tmp_path: Path) -> None:
    """48 queries and their passages in batches of 7: an odd number of batches, the last one short."""
    settings = tiny_settings()
    alone = run(settings, tmp_path / "alone.json", 7)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings.to_dict()))
    script = Path(__file__).with_name("measure_together.py")
    done = subprocess.run(
        [*warm.torchrun(), str(script), str(file), str(tmp_path), "7"], capture_output=True, timeout=600
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    first, second, one = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("0", "1", "alone"))
    assert first["figures"] == second["figures"] == one["figures"] == alone, "to the last digit"
    assert all(0 < value < 1 for value in alone.values())
    batches = one["calls"]
    assert len(batches) == sum(-(-size // 7) for size in one["sizes"])
    assert len(first["calls"]) == len(second["calls"]) < len(batches), "FSDP computes in step"
    assert {tuple(batch) for batch in (*first["calls"], *second["calls"])} == {tuple(batch) for batch in batches}
    of_first = {tuple(batch) for batch in first["calls"]}
    repeated = [batch for batch in second["calls"] if tuple(batch) in of_first]
    assert len(repeated) <= 2, "at most the last batch of each side twice"


def test_a_query_of_several_rows_is_one_query_with_all_their_positives() -> None:
    """As separate queries, each one's positives would count as wrong for the other."""
    rows = [parse_line(line, "d", tabs=True) for line in ("tall towers\tone", "rivers\ttwo", "Tall towers\tthree")]
    development = develop.development_set(rows)
    assert (development.queries, development.passages) == (("tall towers", "rivers"), ("one", "two", "three"))
    assert development.qrels == {"0": {"0": 1, "2": 1}, "1": {"1": 1}}


def test_the_hybrid_has_the_weight_of_the_model(tiny_settings: Settings) -> None:
    model, collator = parts(tiny_settings())
    rows = [
        parse_line(line, "d", tabs=True) for line in ("tall towers\tone tower", "rivers\ttwo birds", "birds\tthree")
    ]
    development = develop.development_set(rows)
    alone = develop.measure(model, collator, development, hybrid_weight=1.0)
    assert alone["hybrid"] == alone["dense"]
    assert develop.measure(model, collator, development)["hybrid"] != alone["hybrid"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_on_a_terminal_only(terminal: bool, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    model, collator = parts(tiny_settings())
    screen = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(develop, "_SHOWN_AFTER", 3600.0)
    develop.read_texts(model, collator, ["birds", "rivers"], "query", 1)
    assert screen.getvalue() == "", "a quick measure shows no bar"
    monkeypatch.setattr(develop, "_SHOWN_AFTER", 0.0)
    develop.read_texts(model, collator, ["birds", "rivers"], "query", 1)
    assert ("development set, query side" in screen.getvalue()) == terminal
