"""What a checkpoint says of its base: a hub id, or a folder as seen from the checkpoint; no path of this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.training.card import model_card
from diffretriever_pyserini.training.lora import LoraSettings
from diffretriever_pyserini.training.release import Release, adapter_config
from diffretriever_pyserini.training.run import retriever_for, train
from diffretriever_pyserini.training.settings import TrainSettings

Settings = Callable[..., TrainSettings]


def header(card: str) -> dict[str, object]:
    found = yaml.safe_load(card.split("---")[1])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("lora_r", [4, 0])
def test_a_base_in_a_folder_moves_with_its_checkpoint(
    lora_r: int, tiny_settings: Settings, conformance_dir: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(conformance_dir / "checkpoints" / "tiny-dream", here / "base")
    changes = {"model": str(here / "base"), "output": str(here / "runs" / "out"), "max_steps": 1, "save_steps": 1}
    train(tiny_settings(**changes, lora_r=lora_r), say=lambda _: None)
    assert "base_model" not in header((here / "runs" / "out" / "README.md").read_text())
    if lora_r:
        for folder, seen in (("out", "../../base"), ("out/checkpoint-1", "../../../base")):
            written = json.loads((here / "runs" / folder / "adapter_config.json").read_text())
            assert written["base_model_name_or_path"] == seen
        here.rename(there)
        for folder in ("out", "out/checkpoint-1"):
            moved = DiffRetriever.from_pretrained(str(there / "runs" / folder))
            assert moved.config.backbone == str(there / "base")


def test_a_base_of_the_hub_is_named_by_its_id(tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings()
    release = Release(retriever_for(settings), {}, None, LoraSettings(4, 16, 0.0), "someone/dream-7b", 0.01, 1.0)
    figures = {"training_rows": 1, "bad_rows": 0, "steps": 1, "queries_per_update": 1, "passages_per_query": 1}
    figures |= {"development_before": {}, "development_after": {}}  # type: ignore[dict-item]
    assert header(model_card(settings, release.config, release, figures))["base_model"] == "someone/dream-7b"
    assert adapter_config(release, ["q_proj"], tmp_path)["base_model_name_or_path"] == "someone/dream-7b"
