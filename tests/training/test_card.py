"""The model card as the hub reads it, and what the documented upload leaves out."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.utils import filter_repo_objects

from diffretriever_pyserini import ConfigError, DiffRetriever
from diffretriever_pyserini.model.prebuilt import prebuilt_dir
from diffretriever_pyserini.training.run import train
from diffretriever_pyserini.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
RUN = {"device": "cpu", "max_steps": 1, "save_steps": 1, "batch_size": 2, "negatives": 1, "max_length": 64}


def check_header(path: Path, licence: str) -> None:
    card = ModelCard.load(path)
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        licence,
        "diffretriever-pyserini",
        "feature-extraction",
    )
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.tags == ["retrieval", "diffretriever", "lora"]
    assert ModelCardData(**data.to_dict()).to_yaml() == data.to_yaml()  # raises for what the hub would refuse
    assert card.text.lstrip().startswith("# ")


def test_the_card_of_the_default_model() -> None:
    check_header(prebuilt_dir() / "checkpoints" / "diffretriever-mini" / "README.md", "apache-2.0")


def test_the_documented_upload_is_a_whole_checkpoint_with_its_card(rows_file: Path, tmp_path: Path) -> None:
    out, sent = tmp_path / "out", tmp_path / "sent"
    settings = TrainSettings("diffretriever", (str(rows_file),), str(out), license="mit", **RUN)  # type: ignore[arg-type]
    train(settings, say=lambda _: None)
    (command,) = re.findall(r"^hf upload .*$", (ROOT / "docs" / "training.md").read_text(), re.M)
    written = [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()]
    chosen = set(filter_repo_objects(written, ignore_patterns=re.findall(r'--exclude "([^"]+)"', command)))
    assert {name.partition("/")[0] for name in written if name not in chosen} == {"checkpoint-1", "data"}
    sent.mkdir()
    for name in chosen:
        shutil.copyfile(out / name, sent / name)
    here, there = DiffRetriever.from_pretrained(str(out)), DiffRetriever.from_pretrained(str(sent))
    assert here.fingerprint == there.fingerprint
    check_header(sent / "README.md", "mit")


def test_a_licence_is_named_as_on_the_hub() -> None:
    with pytest.raises(ConfigError, match="license='Apache 2.0' must be the hub's name of a licence"):
        TrainSettings("m", ("d",), "o", license="Apache 2.0")
