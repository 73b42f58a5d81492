"""`diffretriever check` on small models of every family, and on models with a planted fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.model.backbones import packing

from ..model.conftest import copy_folder, edit_json, edit_weights, save_masked_lm

ORDER = ["config", "files", "mask", "tail", "prompt", "prompt", "weights", "head", "vectors", "batches", "answer"]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, list[dict[str, str]]]]]:
    """Run the command; exit code, and its checks by name."""

    def run(name: Path | str, *options: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        code = main(["check", str(name), "--json", "--texts", "6", *options])
        result = json.loads(capsys.readouterr().out)
        assert result["ok"] == (code == 0)
        checks: dict[str, list[dict[str, str]]] = {}
        for one in result["checks"]:
            checks.setdefault(one["name"], []).append(one)
            assert one["status"] == "ok" or one["remedy"], "a problem without a remedy"
        return code, checks

    return run


@pytest.mark.parametrize(
    "name",
    ["tiny-dream", "tiny-llada", "tiny-a2d-qwen3", "tiny-a2d-qwen2", "tiny-llada-moe", "tiny-llada-adapter", "bert"],
)
def test_sound_models(name: str, check: Any, conformance_dir: Path, tmp_path: Path) -> None:
    folder = conformance_dir / "checkpoints" / name
    options = ("--k-query", "2", "--k-passage", "3", "--max-length", "160")
    if name == "bert":
        folder = tmp_path / "bert"
        save_masked_lm(folder)
    code, checks = check(folder, *options)
    assert code == 0
    assert [one for many in checks.values() for one in many if one["status"] == "error"] == []
    assert [one for many in checks.values() for one in many if one["name"] != "vectors" and one["status"] != "ok"] == []
    head = checks["head"][0]["text"]
    assert head.startswith("tied" if "a2d" in name or name == "bert" else "a matrix of its own")
    assert not set("ĠĊ") & set(checks["answer"][0]["text"])  # as text, not as the vocabulary writes it
    if name == "tiny-a2d-qwen3":
        assert "<think>" in checks["prompt"][0]["text"] and "<|mask|>" in checks["mask"][0]["text"]
        assert "code of its own, which is not run" in checks["files"][0]["text"]
    if name == "tiny-llada-moe":
        assert "<|role_end|>" in checks["tail"][0]["text"]


def test_the_default_model_on_fifty_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "diffretriever"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [*ORDER, "speed"]
    assert all(line.startswith("ok ") for line in lines)


@pytest.mark.parametrize("mask", [5, 3000])
def test_a_wrong_mask(mask: int, check: Any, tiny_dream: Path, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(f"backbone: {tiny_dream}\nmask_token_id: {mask}\n")
    code, checks = check(tmp_path / "my.yaml")
    assert code == 1
    assert checks["mask"][0]["status"] == "error" and "set mask_token_id to 1404" in checks["mask"][0]["remedy"]
    if mask == 3000:
        assert "beyond the model's" in checks["weights"][0]["remedy"]


def test_an_ordinary_token_as_mask(check: Any, tiny_dream: Path, tmp_path: Path) -> None:
    """The tokenizer itself does not say which token is the mask."""
    folder = copy_folder(tiny_dream, tmp_path / "base")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        edit_json(folder / name, mask_token=None)
    edit_json(folder / "config.json", mask_token_id=300)
    code, checks = check(folder)
    assert code == 1 and "the ordinary token" in checks["mask"][0]["text"]
    edit_json(folder / "config.json", mask_token_id=1450)  # a row without a token
    code, checks = check(folder)
    assert code == 0 and checks["mask"][0]["status"] == "warning"


def _collapse(weights: dict[str, torch.Tensor]) -> None:
    """No token attends to another, so that every mask position sees only itself."""
    for name, tensor in weights.items():
        if "o_proj" in name:
            tensor.zero_()


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "weights", "lacks weights lm_head"),
        (lambda weights: weights["model.norm.weight"].fill_(float("nan")), "vectors", "returned NaN"),
        (_collapse, "vectors", "do not depend on the text"),
    ],
    ids=["no head", "NaN", "collapsed"],
)
def test_broken_weights(change: Any, step: str, words: str, check: Any, tiny_dream: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_dream, tmp_path / "base")
    edit_weights(folder, change)
    code, checks = check(folder)
    assert code == 1
    assert checks[step][-1]["status"] == "error" and words in checks[step][-1]["remedy"]


def test_an_unequal_copy_of_a_tied_head(check: Any, conformance_dir: Path, tmp_path: Path) -> None:
    folder = copy_folder(conformance_dir / "checkpoints" / "tiny-a2d-qwen3", tmp_path / "base")
    edit_weights(folder, lambda weights: weights["lm_head.weight"].add_(1))
    code, checks = check(folder)
    assert code == 0
    assert [one["status"] for one in checks["weights"]] == ["ok", "warning"]
    assert "The embeddings are used." in checks["weights"][1]["text"]


def test_texts_that_leak_into_each_other(check: Any, tiny_dream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One attention over a whole packed row."""
    apart = packing._by_length

    def whole_row(query: Any, key: Any, value: Any, packed: Any, *more: Any) -> Any:
        return apart(query, key, value, packing.Packing.of(np.array([query.shape[0]]), "cpu"), *more)

    monkeypatch.setattr(packing, "_by_length", whole_row)
    code, checks = check(tiny_dream)
    assert code == 1 and checks["batches"][0]["status"] == "error"


def test_what_cannot_be_loaded_at_all(check: Any, tiny_dream: Path, tmp_path: Path) -> None:
    code, checks = check("no-such-folder")
    assert code == 1 and "nor a hub id" in checks["config"][0]["remedy"]
    folder = copy_folder(tiny_dream, tmp_path / "base")
    (folder / "model.safetensors").unlink()
    code, checks = check(folder)
    assert code == 1 and "no model.safetensors" in checks["files"][0]["remedy"]
    shutil.copyfile(tiny_dream / "model.safetensors", folder / "model.safetensors")
    (folder / "tokenizer.json").unlink()
    code, checks = check(folder)
    assert code == 1 and "no tokenizer.json" in checks["tokens"][0]["remedy"]
