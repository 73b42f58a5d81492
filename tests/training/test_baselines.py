"""The baselines are trained as read-outs: the shipped recipes, losses and gradients, checkpoints, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.backbones.loading import load_tokenizer
from diffretriever_pyserini.model.layout import build_layout
from diffretriever_pyserini.training import run
from diffretriever_pyserini.training.data.batches import Collator, Example
from diffretriever_pyserini.training.develop import read_texts
from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.lora import LoraSettings, trainable_backbone
from diffretriever_pyserini.training.model import MaskReader
from diffretriever_pyserini.training.objective import objective
from diffretriever_pyserini.training.settings import TrainSettings, read_settings

from ..model.conftest import headless, save_masked_lm

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "train"
TEXTS = ["which plants grow in spring", "Rivers need clean water, " * 40, "birds"]
BATCH = [
    Example("birds", ("Birds and rivers and towers that shine at night.", "metals")),
    Example("which rivers need clean water in spring", ("rivers", "Engines make loud noise, " * 9)),
]
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "PromptReps": ("tiny-qwen2", {"readout": "next_token", "k_query": 1, "k_passage": 1}),
    "PromptReps, K 2/3": ("tiny-llama", {"readout": "next_token", "k_query": 2, "k_passage": 3}),
    "DiffEmbed": ("tiny-dream", {"readout": "mean", "query_max_length": 12}),
    "RepLLaMA": ("tiny-llama", {"readout": "last_token", "query_prefix": "query: ", "passage_prefix": "passage: "}),
}
Settings = Callable[..., TrainSettings]


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than these runs, and test_trainer.py looks at it."""
    monkeypatch.setattr(run, "_plot", lambda output: "no plot")


@pytest.fixture
def settings_of(tiny_settings: Settings) -> Settings:
    """Settings of a run for one of SYSTEMS."""

    def settings(system: str, **changes: Any) -> TrainSettings:
        name, values = SYSTEMS[system]
        plain: dict[str, Any] = {"k_query": None, "k_passage": None, "max_length": 150}
        return tiny_settings(name, **plain | values | changes)

    return settings


@pytest.mark.parametrize(
    ("recipe", "base", "changes"),
    [
        ("promptreps", "tiny-qwen2", {}),
        ("promptreps", "tiny-llama", {"k_query": 2, "k_passage": 3}),
        ("diffembed", "tiny-dream", {}),
        ("diffembed", "tiny-llada", {"gradient_checkpointing": False}),
        ("repllama", "tiny-llama", {}),
    ],
)
def test_the_shipped_recipes(
    recipe: str,
    base: str,
    changes: dict[str, Any],
    conformance_dir: Path,
    rows_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three steps; the checkpoint encodes as the trained model in memory, and within the limits of the recipe."""
    trained: list[Any] = []
    finish = run._finish

    def recorded(parts: Any, *rest: Any) -> None:
        trained.append(parts)
        finish(parts, *rest)

    monkeypatch.setattr(run, "_finish", recorded)
    small: dict[str, Any] = {
        "batch_size": 2,
        "accumulate": 1,
        "max_steps": 3,
        "dev_rows": 4,
        "eval_steps": 3,
        "log_steps": 1,
    }
    small |= {
        "deepspeed": None,
        "bf16": False,
        "workers": 0,
        "chunk": 4,
        "negatives": 2,
        "device": "cpu",
        "learning_rate": 3e-3,
    }
    asked = read_settings(EXAMPLES / f"{recipe}.yaml")
    model, folder = conformance_dir / "checkpoints" / base, tmp_path / "out"
    settings = dataclasses.replace(asked, model=str(model), data=(str(rows_file),), output=str(folder))
    settings = dataclasses.replace(settings, **small, **changes)
    run.train(settings, say=lambda _: None)

    records = [record for record in read_log(folder / "log.jsonl") if "loss" in record]
    measured = {name for record in read_log(folder / "log.jsonl") for name in record if name.startswith("eval_")}
    has_terms = recipe == "promptreps"
    assert len(records) == 3 and ("eval_lexical" in measured, "eval_dense" in measured) == (has_terms, True)
    for record in records:
        assert record["loss"] == pytest.approx(record["dense"] + record.get("lexical", 0.0), rel=1e-4)
        assert ("lexical" in record) == has_terms
    assert ("\nno lexical weights" in (folder / "README.md").read_text()) != has_terms
    loaded, (parts,) = DiffRetriever.from_pretrained(str(folder)), trained
    for name in ("readout", "max_length", "query_max_length", "query_prefix", "passage_prefix", "append_eos"):
        assert getattr(loaded.config, name) == (getattr(settings, name) or getattr(loaded.config, name)), name
    assert (loaded.config.k_query, loaded.config.k_passage) == (settings.k_query or 1, settings.k_passage or 1)
    assert loaded.layout("query").max_length == (settings.query_max_length or settings.max_length)
    untrained = DiffRetriever.from_pretrained(str(model), **settings.overrides())
    for side in ("query", "passage"):
        vectors, terms = read_texts(parts.model, parts.collator, TEXTS, side, 2)
        reps = loaded.encode(TEXTS, side=side)
        np.testing.assert_allclose(reps.vectors, vectors, atol=1e-5)
        assert (reps.weights.nnz > 0) == (terms.nnz > 0) == has_terms
        assert abs(reps.weights - terms[:, : reps.weights.shape[1]]).max() <= 1
        assert np.abs(untrained.encode(TEXTS, side=side).vectors - vectors).max() > 1e-3, "training changed the model"


def step(settings: TrainSettings, chunk: int = 0, padded: bool = False, start: float = 0.05) -> tuple[Any, Any]:
    """Losses of BATCH, and the gradients of an adapter whose B is drawn with the deviation ``start``."""
    config = run.retriever_for(settings)
    settings = settings.for_readout(config.readout)
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    backbone = trainable_backbone(config, torch.float32, LoraSettings(4, 16, 0.0), seed=3)
    torch.manual_seed(4)
    for name, parameter in backbone.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=start)
    model = MaskReader(backbone, layouts, chunk, readout=config.readout).train()
    if padded:
        backbone.model.set_attn_implementation("eager")
    assert backbone.packs != padded
    batch = Collator(tokenizer, layouts, backbone.pad_left, settings=settings, config=config)(BATCH)
    losses = objective(model(batch["query"], batch["passage"]), batch, settings, backbone.vocab_size)
    losses["loss"].backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_loss_is_that_of_encoded_vectors(system: str, settings_of: Settings) -> None:
    """Before the first step: InfoNCE on MaxSim / K_q of what the base encodes, word by word where it generates."""
    settings = settings_of(system, temperature=0.05)
    losses, _ = step(settings, start=0.0)
    base = DiffRetriever.from_pretrained(settings.model, cut_at_stop=False, **settings.overrides())
    query = base.encode([one.query for one in BATCH], side="query").vectors
    passage = base.encode([text for one in BATCH for text in one.passages], side="passage").vectors
    scores = np.einsum("qih,pjh->qpij", query, passage).max(axis=3).mean(axis=2) / 0.05
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = -np.log(shifted[[0, 1], [0, 2]] / shifted.sum(axis=1)).mean()
    assert losses["dense"].item() == pytest.approx(expected, rel=1e-4)
    assert ("lexical" in losses) == system.startswith("PromptReps")


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_gradient_depends_on_neither_padding_nor_chunks(system: str, settings_of: Settings) -> None:
    settings = settings_of(system)
    _, whole = step(settings)
    _, padded = step(settings, padded=True)
    _, chunked = step(settings, chunk=3)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in whole.values())
    scale = max(gradient.abs().max().item() for gradient in whole.values())
    for name, gradient in whole.items():
        torch.testing.assert_close(padded[name], gradient, rtol=1e-4, atol=1e-5 * scale)
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_all_weights_without_the_head_and_then_further(settings_of: Settings, tmp_path: Path) -> None:
    """A read-out without terms needs no head: it is not trained and not saved, and training goes on from there."""
    run.train(settings_of("RepLLaMA", lora_r=0, max_steps=1, learning_rate=1e-3), say=lambda _: None)
    assert not any("lm_head" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    further = {"output": str(tmp_path / "further"), "max_steps": 1, "max_length": None}
    changes = dict.fromkeys(SYSTEMS["RepLLaMA"][1])
    run.train(settings_of("RepLLaMA", **changes, **further, model=str(tmp_path / "out")), say=lambda _: None)
    first, second = (DiffRetriever.from_pretrained(str(tmp_path / name)) for name in ("out", "further"))
    config = second.config
    assert (config.readout, config.query_prefix, config.max_length) == ("last_token", "query: ", 150)
    assert np.abs(first.encode_query(TEXTS).vectors - second.encode_query(TEXTS).vectors).max() > 1e-5


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        ("DiffEmbed", {"fused_weight": 0.5}, "fused_weight=0.5 does not fit the read-out mean, which gives one vector"),
        ("DiffEmbed", {"lexical_weight": 0.5}, "lexical_weight=0.5 does not fit the read-out mean"),
        ("RepLLaMA", {"lexical_terms": "stems"}, "lexical_terms='stems' does not fit the read-out last_token"),
        ("RepLLaMA", {"metric": "lexical"}, "metric='lexical' does not fit"),
        (
            "PromptReps",
            {"denoising_weight": 0.1},
            "denoising_weight=0.1 does not fit .* next_token, which has no masks",
        ),
        ("DiffEmbed", {"k_query": 2}, "k_query and k_passage must be 1, not 2 and 1"),
        ("PromptReps", {"readout": "mask"}, "a causal model has no mask token"),
        ("PromptReps", {"query_prefix": "query: "}, "query_prefix is for the read-outs mean and last_token"),
    ],
)
def test_settings_that_do_not_fit_the_readout(
    system: str, changes: dict[str, Any], message: str, settings_of: Settings
) -> None:
    with pytest.raises(ConfigError, match=message):
        run.train(settings_of(system, **changes), say=lambda _: None)
    assert not Path(settings_of(system).output).exists()


def test_the_command_refuses_them_too(settings_of: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_of("RepLLaMA")
    command = ["train", "--model", settings.model, "--data", settings.data[0], "--output", settings.output]
    command += ["--readout", "last_token", "--append-eos", "true", "--lexical-temperature", "2"]
    for more in ([], ["--plan"]):
        assert main([*command, *more]) == 2
        assert "lexical_temperature=2.0 does not fit the read-out last_token" in capsys.readouterr().err


def test_a_base_without_a_head_is_saved_without_one(tiny_settings: Settings, tmp_path: Path) -> None:
    """Trained whole for a read-out without logits, its head would be random; the mask read-out is then refused.

    The best checkpoint is loaded at the end, as a resumed run loads the last one.
    """
    save_masked_lm(tmp_path / "bert")
    base = headless(tmp_path / "bert", tmp_path / "base")
    values: dict[str, Any] = {"k_query": None, "k_passage": None, "max_length": None, "learning_rate": 1e-4}
    values |= {"eval_steps": 1, "dev_rows": 8}
    run.train(tiny_settings(model=str(base), readout="mean", lora_r=0, **values), say=lambda _: None)
    trained = tmp_path / "out"
    assert not [name for name in load_file(trained / "model.safetensors") if name.startswith("cls.")]
    assert DiffRetriever.from_pretrained(trained).encode(TEXTS, side="passage").pooled.shape[0] == len(TEXTS)
    with pytest.raises(ConfigError, match=r"lacks weights cls\."):
        DiffRetriever.from_pretrained(trained, readout="mask", k_query=1, k_passage=1)
