"""Families: they agree with the whole model, which of their settings are refused, and the head runs on K rows only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.backbones import a2d, dream, llada, llada_moe, masked_lm
from diffretriever_pyserini.model.backbones.facts import ReleaseFacts
from diffretriever_pyserini.model.backbones.loading import family_module, load_backbone
from diffretriever_pyserini.model.config import FAMILIES, family_of
from diffretriever_pyserini.model.resolve import resolve_config

from ..conftest import TEXTS, Load, assert_close, copy_folder, edit_json, edit_weights, save_masked_lm

MASKED_LMS = ("bert", "roberta", "distilbert", "modernbert")


@pytest.mark.parametrize("texts", [TEXTS[:1], TEXTS])
def test_the_output_head_runs_on_k_rows_per_text(any_model: DiffRetriever, texts: list[str]) -> None:
    rows: list[int] = []
    head = any_model._backbone.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[:-1].numel()))
    try:
        any_model.encode(texts, side="passage")
        assert rows == [3 * len(texts)]
        any_model.encode(texts, side="query", batch_size=1)
    finally:
        hook.remove()
    assert rows[1:] == [2] * len(texts)


def test_different_texts_have_different_vectors(any_model: DiffRetriever) -> None:
    """A bidirectional decoder can fall into its first token; then all texts are nearly the same."""
    for side in ("query", "passage"):
        pooled = any_model.encode(TEXTS, side=side).pooled
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        cosines = (pooled @ pooled.T)[np.triu_indices(len(TEXTS), 1)]
        assert cosines.max() < 0.999
        assert cosines.mean() < 0.98


@pytest.mark.parametrize("kind", MASKED_LMS)
def test_masked_lms_agree_with_the_whole_model(tmp_path: Path, kind: str) -> None:
    """Hidden states and logits at the masks are those of transformers' own class on each text alone."""
    model = save_masked_lm(tmp_path, kind)
    retriever = DiffRetriever.from_pretrained(tmp_path, k_query=3)
    raw = retriever.forward_masks(TEXTS)
    tokenizer = retriever.tokenizer
    for i, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][: 256 - 2]
        ids = [
            tokenizer.cls_token_id,
            *ids,
            tokenizer.sep_token_id,
            *[tokenizer.mask_token_id] * 3,
            tokenizer.sep_token_id,
        ]
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        np.testing.assert_allclose(raw.logits[i], expected.logits[0, -4:-1], atol=2e-4)
    assert np.abs(raw.logits[0] - raw.logits[1]).max() > 0.01
    assert_close(retriever.encode(TEXTS, side="query"), retriever.encode(TEXTS, side="query", batch_size=1))


@pytest.mark.parametrize(("positions", "segment"), [("tail", 0), ("follow", 1), ("tail", 1)])
def test_the_mask_block_may_have_its_own_positions_and_segment(tiny_bert: Path, positions: str, segment: int) -> None:
    retriever = DiffRetriever.from_pretrained(
        tiny_bert, k_query=2, mask_position_ids=positions, mask_token_type=segment
    )
    raw = retriever.forward_masks(["the index", "dense retrieval of a query"])
    plain = DiffRetriever.from_pretrained(tiny_bert, k_query=2).forward_masks(["the index"])
    assert np.abs(raw.hidden[0] - plain.hidden[0]).max() > 0.01
    ids = retriever.layout("query").assemble(retriever.tokenizer("the index", add_special_tokens=False)["input_ids"])
    before = len(ids) - 3
    position_ids = [*range(before), *(range(317, 320) if positions == "tail" else range(before, before + 3))]
    with torch.inference_mode():
        expected = retriever._backbone.model(
            input_ids=torch.tensor([ids]),
            position_ids=torch.tensor([position_ids]),
            token_type_ids=torch.tensor([[0] * before + [segment] * 3]),
        ).logits[0, -3:-1]
    np.testing.assert_allclose(raw.logits[0], expected, atol=1e-4)


def test_mask_positions_and_segments_are_for_bert_only(tmp_path: Path) -> None:
    save_masked_lm(tmp_path, "roberta")
    with pytest.raises(ConfigError, match=r"for BERT models only"):
        DiffRetriever.from_pretrained(tmp_path, mask_token_type=1)


def test_lengths_beyond_the_position_table_are_refused(tmp_path: Path) -> None:
    save_masked_lm(tmp_path / "bert")
    save_masked_lm(tmp_path / "roberta", "roberta")
    with pytest.raises(
        ConfigError,
        match=r"max_length=317 and 5 tokens of masks and tail .* 320 positions; use a max_length of at most 315",
    ):
        DiffRetriever.from_pretrained(tmp_path / "bert", k_query=4, max_length=317)
    longest = DiffRetriever.from_pretrained(tmp_path / "bert", k_query=4, max_length=315).forward_masks(["x " * 400])
    assert np.isfinite(longest.hidden).all()
    with pytest.raises(ConfigError, match=r"at most 317"):  # its table begins at 1, K = 1
        DiffRetriever.from_pretrained(tmp_path / "roberta", max_length=318)
    longest = DiffRetriever.from_pretrained(tmp_path / "roberta", max_length=317).forward_masks(["x " * 400])
    assert np.isfinite(longest.hidden).all()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padded_batches_agree_with_packed_rows(any_model: DiffRetriever, attention: str) -> None:
    """A model runs packed rows by default, and padded batches once another attention is set."""
    assert any_model._backbone.packs
    expected = any_model.forward_masks(TEXTS)
    model = any_model._backbone.model
    model.set_attn_implementation(attention)
    try:
        assert not any_model._backbone.packs
        padded = any_model.forward_masks(TEXTS)
    finally:
        any_model._backbone.pack()
    np.testing.assert_allclose(padded.hidden, expected.hidden, atol=1e-4)
    np.testing.assert_allclose(padded.logits, expected.logits, atol=1e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_type", "sequential"),
        ("activation_type", "swiglu"),
        ("layer_norm_type", "default"),
        ("rope", False),
        ("alibi", True),
        ("attention_layer_norm", True),
        ("input_emb_norm", True),
        ("scale_logits", True),
        ("include_bias", True),
        ("include_qkv_bias", True),
        ("weight_tying", True),
        ("clip_qkv", 8.0),
    ],
)
def test_llada_settings_that_change_the_arithmetic_are_refused(
    tiny_llada: Path, tmp_path: Path, key: str, value: Any
) -> None:
    raw = json.loads((tiny_llada / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {key: value}))
    with pytest.raises(ConfigError, match=rf"config\.json: {key}={value!r} is not supported"):
        llada.load(tmp_path, torch.float32)


@pytest.mark.parametrize(("key", "value"), [("use_sliding_window", True), ("use_mrope", True)])
def test_dream_settings_that_change_the_arithmetic_are_refused(
    tiny_dream: Path, tmp_path: Path, key: str, value: Any
) -> None:
    raw = json.loads((tiny_dream / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {key: value}))
    with pytest.raises(ConfigError, match=rf"config\.json: {key}={value!r} is not supported"):
        dream.load(tmp_path, torch.float32)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("tiny_a2d", "use_sliding_window", True),
        ("tiny_a2d", "quantization_config", {"quant_method": "awq"}),
        ("tiny_llada_moe", "shared_expert_intermediate_size", 24),
        ("tiny_llada_moe", "moe_router_enable_expert_bias", True),
        ("tiny_llada_moe", "moe_router_score_function", "sigmoid"),
        ("tiny_llada_moe", "clip_qkv", 8.0),
        ("tiny_llada_moe", "partial_rotary_factor", 0.5),
        ("tiny_llada_moe", "moe_layer_freq", 2),
        ("tiny_llada_moe", "moe_layer_freq", [1, 1]),
    ],
)
def test_settings_that_transformers_lacks_are_refused(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, key: str, value: Any
) -> None:
    raw = json.loads((request.getfixturevalue(name) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {key: value}))
    family = family_module(family_of(raw, tmp_path))
    with pytest.raises(ConfigError, match=rf"config\.json: {key}={re.escape(repr(value))} is not supported"):
        family.read_config(tmp_path)


def test_sliding_layers_are_refused(tiny_a2d: Path, tmp_path: Path) -> None:
    raw = json.loads((tiny_a2d / "config.json").read_text())
    raw["layer_types"][1] = "sliding_attention"
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"layer_types with 'sliding_attention' is not supported"):
        a2d.read_config(tmp_path)


def test_a_router_that_its_code_ignores_is_ignored(tiny_llada_moe: Path, tmp_path: Path, load: Load) -> None:
    """norm_topk_prob and routed_scaling_factor: the published code takes the probabilities as they are."""
    folder = copy_folder(tiny_llada_moe, tmp_path / "base")
    edit_json(folder / "config.json", norm_topk_prob=True, routed_scaling_factor=2.5, auto_map=None)
    expected = load(tiny_llada_moe).encode(TEXTS).vectors
    assert DiffRetriever.from_pretrained(folder).encode(TEXTS).vectors.tobytes() == expected.tobytes()


def test_a_layer_without_experts(tiny_llada_moe: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_llada_moe, tmp_path / "base")
    edit_json(folder / "config.json", moe_layer_freq=[0, 1, 1])
    generator = torch.Generator().manual_seed(1)
    shapes = {"gate_proj": (128, 32), "up_proj": (128, 32), "down_proj": (32, 128)}

    def make_dense(weights: dict[str, torch.Tensor]) -> None:
        for key in [key for key in weights if key.startswith("model.layers.0.mlp.")]:
            del weights[key]
        for part, shape in shapes.items():
            weights[f"model.layers.0.mlp.{part}.weight"] = torch.randn(shape, generator=generator) / 10

    edit_weights(folder, make_dense)
    model: Any = load_backbone(resolve_config(str(folder)), torch.float32, "cpu").model
    assert tuple(model.model.layers[0].mlp.gate_proj.weight.shape) == (128, 32)
    assert tuple(model.model.layers[1].mlp.experts.down_proj.shape) == (8, 32, 24)


def test_experts_are_stored_as_in_the_published_files(tiny_llada_moe: Path, load: Load) -> None:
    """Training writes one matrix per expert, and continues from them."""
    backbone = load(tiny_llada_moe)._backbone
    state = backbone.model.state_dict()
    stored, file = backbone.stored_tensors(state), load_file(tiny_llada_moe / "model.safetensors")
    assert stored.keys() == file.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in file.items())
    again = backbone.fused_tensors(stored)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("stored", ["equal", "none", "other"])
def test_a_tied_head_is_the_embedding_whatever_the_file_has(
    stored: str, tiny_a2d: Path, tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """As in transformers 4, with which these models were trained; 5 keeps a stored head that differs."""
    folder = copy_folder(tiny_a2d, tmp_path / "base")
    if stored == "none":
        edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    if stored == "other":
        edit_weights(folder, lambda weights: weights["lm_head.weight"].mul_(2))
    model, expected = DiffRetriever.from_pretrained(folder), load(tiny_a2d)
    assert model._backbone.is_tied
    assert model.encode(TEXTS).impacts == expected.encode(TEXTS).impacts
    assert model.fingerprint == expected.fingerprint, "what is not loaded does not count"
    assert ("The embeddings are used." in caplog.text) == (stored == "other")


def test_an_untied_head_is_needed(tiny_a2d: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_a2d, tmp_path / "base")
    edit_json(folder / "config.json", tie_word_embeddings=False, auto_map=None)
    assert not load_backbone(resolve_config(str(folder)), torch.float32, "cpu").is_tied
    edit_weights(folder, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(ConfigError, match=r"lacks weights lm_head\.weight"):
        DiffRetriever.from_pretrained(folder)


def test_a2d_of_llama_without_a_mask_in_its_tokenizer(checkpoints: Path, tmp_path: Path) -> None:
    """As dllm's conversion writes it: no auto_map, and the mask is the next free id. Against eager attention."""
    from transformers import LlamaForCausalLM

    folder = copy_folder(checkpoints / "tiny-llama", tmp_path / "base")
    edit_json(folder / "config.json", model_type="a2d-llama", architectures=["A2DLlamaLMHeadModel"])
    retriever = DiffRetriever.from_pretrained(folder, k_query=3)
    layout, tokenizer = retriever.layout("query"), retriever.tokenizer
    assert tokenizer.mask_token == "<|mask|>" and layout.mask_id == len(tokenizer) - 1
    assert tokenizer.convert_ids_to_tokens(list(layout.tail)) == ['"', "<|eot_id|>", tokenizer.eos_token]
    model = LlamaForCausalLM.from_pretrained(checkpoints / "tiny-llama", attn_implementation="eager")
    raw = retriever.forward_masks(TEXTS)
    for i, text in enumerate(TEXTS):
        ids = layout.assemble(tokenizer(text, add_special_tokens=False)["input_ids"])
        everything = torch.zeros(1, 1, len(ids), len(ids))
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([ids]), attention_mask=everything).logits[0]
        np.testing.assert_allclose(raw.logits[i], expected[-layout.block : -len(layout.tail)], atol=2e-4)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (a2d, '{"model_type": "a2d", "vocab_size": 64}'),
        (a2d, '{"model_type": "a2d-qwen3", "vocab_size": 64}'),
        (llada_moe, '{"model_type": "llada", "num_experts": 64}'),
        (llada_moe, '{"model_type": "llada", "d_model": 64}'),
        (llada, '{"model_type": "llada", "d_model": 64, "num_experts": 64}'),
        (dream, '{"model_type": "Dream", "hidden_size": 64}'),
        (llada, '{"model_type": "llada", "vocab_size": 64}'),
        (dream, '{"model_type": "llada", "d_model": 64}'),
        (masked_lm, '{"model_type": "Dream"}'),
        (masked_lm, '{"model_type": "bert", "auto_map": {"AutoModel": "code.Model"}}'),
    ],
)
def test_configs_that_cannot_be_used(tmp_path: Path, family: Any, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"key '\w+' is missing|this base is a|never run|names no class"):
        family.load(tmp_path, torch.float32)


def test_chosen_columns_are_those_of_the_whole_head(any_model: DiffRetriever) -> None:
    backbone = any_model._backbone
    rows = torch.randn(3, 2, backbone.hidden_size, generator=torch.Generator().manual_seed(1))
    columns = torch.tensor([[0, 5, 7, 5], [1, 2, 3, 4], [9, 8, 0, 0]])
    with torch.inference_mode():
        whole = backbone.head(rows).gather(2, columns.unsqueeze(1).expand(-1, 2, -1))
        torch.testing.assert_close(backbone.head_columns(rows, columns), whole, rtol=0, atol=1e-5)


def test_a_head_with_an_unmerged_adapter_computes_every_logit(tiny_llada: Path) -> None:
    from peft import LoraConfig, get_peft_model

    # Not through a retriever, because retrievers share their weights.
    backbone = load_backbone(resolve_config(str(tiny_llada)), torch.float32, "cpu")
    rows, columns = torch.randn(2, 1, backbone.hidden_size), torch.tensor([[3, 4], [5, 6]])
    plain = backbone.head_columns(rows, columns)
    get_peft_model(backbone.model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    with torch.inference_mode():
        adapted = backbone.head_columns(rows, columns)
        torch.testing.assert_close(adapted, backbone.head(rows).gather(2, columns.unsqueeze(1)))
    assert (adapted - plain).abs().max() > 1e-4


def test_every_family_declares_all_that_is_used() -> None:
    """The loader, training and releases use these members of a family's module."""
    for name in FAMILIES:
        module = family_module(name)
        assert callable(module.load) and callable(module.read_config)
        assert module.adapter_key("model.layers.0.x") and isinstance(module.released_names(2), dict)
        assert isinstance(module.RELEASE, ReleaseFacts)
        assert family_of({"model_type": module.RELEASE.model_type}, Path("config.json")) == name, (
            "the model_type that training writes can be read"
        )
