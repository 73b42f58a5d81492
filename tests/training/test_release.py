"""A checkpoint names its base by hub id, or by a path relative to the checkpoint; never by an absolute path."""

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
    values = yaml.safe_load(card.split("---")[1])
    assert isinstance(values, dict)
    return values


@pytest.mark.parametrize("lora_r", [4, 0])
def test_a_base_in_a_folder_moves_with_its_checkpoint(
    lora_r: int, tiny_settings: Settings, conformance_dir: Path, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(conformance_dir / "checkpoints" / "tiny-dream", before / "base")
    changes = {"model": str(before / "base"), "output": str(before / "runs" / "out"), "max_steps": 1, "save_steps": 1}
    train(tiny_settings(**changes, lora_r=lora_r), say=lambda _: None)
    assert "base_model" not in header((before / "runs" / "out" / "README.md").read_text())
    if lora_r:
        for folder, relative in (("out", "../../base"), ("out/checkpoint-1", "../../../base")):
            written = json.loads((before / "runs" / folder / "adapter_config.json").read_text())
            assert written["base_model_name_or_path"] == relative
        before.rename(after)
        for folder in ("out", "out/checkpoint-1"):
            moved = DiffRetriever.from_pretrained(str(after / "runs" / folder))
            assert moved.config.backbone == str(after / "base")


def test_a_base_of_the_hub_is_named_by_its_id(tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings()
    release = Release(retriever_for(settings), {}, None, LoraSettings(4, 16, 0.0), "someone/dream-7b", 0.01, 1.0)
    figures = {"training_rows": 1, "bad_rows": 0, "steps": 1, "queries_per_update": 1, "passages_per_query": 1}
    figures |= {"development_before": {}, "development_after": {}}  # type: ignore[dict-item]
    written = header(model_card(settings, release.config, release, figures))
    assert (written["base_model"], written["license"]) == ("someone/dream-7b", "unknown")
    assert adapter_config(release, ["q_proj"], tmp_path)["base_model_name_or_path"] == "someone/dream-7b"
