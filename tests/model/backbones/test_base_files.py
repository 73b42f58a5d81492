"""The files of a base: missing, unknown, misshapen and damaged weights, misstated settings, tokenizers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.backbones.loading import load_tokenizer
from diffretriever_pyserini.model.resolve import resolve_config

from ..conftest import TEXTS, Load, copy_folder, edit_json, edit_weights, save_masked_lm

BASES = ["tiny_bert", "tiny_dream", "tiny_llada", "tiny_a2d", "tiny_llada_moe"]
ONE_WEIGHT = {
    "tiny_bert": "bert.encoder.layer.1.output.dense.weight",
    "tiny_dream": "model.layers.2.self_attn.q_proj.bias",
    "tiny_llada": "model.transformer.blocks.1.attn_out.weight",
    "tiny_a2d": "model.layers.2.self_attn.q_norm.weight",
    "tiny_llada_moe": "model.layers.1.mlp.experts.3.up_proj.weight",
}


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of a base and a copy that a test may damage."""
    return request.param, copy_folder(request.getfixturevalue(request.param), tmp_path / "base")


def test_a_missing_weight_is_named(base: tuple[str, Path]) -> None:
    name, folder = base
    edit_weights(folder, lambda weights: weights.pop(ONE_WEIGHT[name]))
    with pytest.raises(
        ConfigError, match=r"lacks weights \S*(output\.dense|q_proj|o_proj|q_norm|experts\.3\.up_proj)\S* \(1 in all\)"
    ):
        DiffRetriever.from_pretrained(folder)


def test_an_unknown_weight_is_named(base: tuple[str, Path]) -> None:
    _, folder = base
    edit_weights(folder, lambda weights: weights.update({"extra.stuff.weight": torch.zeros(2)}))
    with pytest.raises(ConfigError, match=r"has unknown weights extra\.stuff\.weight \(1 in all\)"):
        DiffRetriever.from_pretrained(folder)


def test_a_weight_of_another_shape_is_refused(base: tuple[str, Path], request: pytest.FixtureRequest) -> None:
    name, folder = base
    edit_weights(folder, lambda weights: weights.update({ONE_WEIGHT[name]: torch.zeros(3)}))
    shape = tuple(load_file(request.getfixturevalue(name) / "model.safetensors")[ONE_WEIGHT[name]].shape)
    message = rf"(weight|bias) has shape \(3,\), and config\.json asks for {re.escape(str(shape))} \(1 such"
    with pytest.raises(ConfigError, match=message):
        DiffRetriever.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        (
            "tiny_dream",
            "num_key_value_heads",
            3,
            r"k_proj\.bias has shape \(\d+,\), and config\.json asks for \(\d+,\)",
        ),
        ("tiny_llada", "n_kv_heads", 3, r"k_proj\.weight has shape .* and config\.json asks for"),
        ("tiny_bert", "intermediate_size", 50, r"dense\.bias has shape \(48,\), and config\.json asks for \(50,\)"),
        ("tiny_bert", "num_attention_heads", 5, r"config\.json: transformers cannot .*heads"),
        ("tiny_dream", "hidden_act", "nope", r"config\.json: transformers cannot .* \(KeyError: 'nope'\)"),
        ("tiny_dream", "num_hidden_layers", "two", r"config\.json: transformers cannot .*num_hidden_layers"),
        ("tiny_bert", "num_hidden_layers", "two", r"config\.json: transformers cannot .*num_hidden_layers"),
        ("tiny_llada", "d_model", "x", r"config\.json: transformers cannot .*hidden_size"),
        ("tiny_dream", "rope_scaling", {"type": "nope"}, r"config\.json: transformers cannot"),
    ],
)
def test_misstated_configs_are_named(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, key: str, value: Any, message: str
) -> None:
    folder = copy_folder(request.getfixturevalue(name), tmp_path / "base")
    edit_json(folder / "config.json", **{key: value})
    with pytest.raises(ConfigError, match=message):
        DiffRetriever.from_pretrained(folder)


def test_absent_and_damaged_weight_files_are_refused(base: tuple[str, Path]) -> None:
    _, folder = base
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{damaged")
    with pytest.raises(ConfigError, match=r"cannot be loaded .safetensors only."):
        DiffRetriever.from_pretrained(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot be loaded .safetensors only."):
        DiffRetriever.from_pretrained(folder)


def test_sharded_weights(base: tuple[str, Path], request: pytest.FixtureRequest, load: Load) -> None:
    name, folder = base
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {key: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, key in enumerate(sorted(weights))}
    for file in set(shards.values()):
        save_file({k: weights[k] for k, f in shards.items() if f == file}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(t.nbytes for t in weights.values())}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = DiffRetriever.from_pretrained(folder).encode(TEXTS)
    whole = load(request.getfixturevalue(name)).encode(TEXTS)
    assert sharded.vectors.tobytes() == whole.vectors.tobytes()
    assert (sharded.weights != whole.weights).nnz == 0


def test_ids_beyond_the_model_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"token id 5000 is beyond the model's"):
        DiffRetriever.from_pretrained(tiny_bert, mask_token_id=5000)
    save_masked_lm(tmp_path, vocab_size=50)
    with pytest.raises(ConfigError, match=r"beyond the model's 50 ids; use the tokenizer of this model"):
        DiffRetriever.from_pretrained(tmp_path)


def test_dream_as_on_the_hub_without_tokenizer_json(tiny_dream: Path, tmp_path: Path, load: Load) -> None:
    """vocab.json, merges.txt and a tokenizer_config.json that names remote code, which is never run."""
    folder = copy_folder(tiny_dream, tmp_path / "hub")
    core = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    added = {str(token.pop("id")): token for token in core["added_tokens"]}
    vocabulary = {token: i for token, i in core["model"]["vocab"].items() if str(i) not in added}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in core["model"]["merges"])])
    (folder / "merges.txt").write_text(merges + "\n")
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class="DreamTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
        added_tokens_decoder=added,
        errors="replace",
        split_special_tokens=False,
    )
    (folder / "tokenization_dream.py").write_text("raise SystemExit('remote code was run')\n")
    tokenizer, expected = load_tokenizer(resolve_config(str(folder))), load(tiny_dream).tokenizer
    for text in [*TEXTS, "<|im_start|>user\nHe's 1234  naïve e\u0301…<|im_end|>\n", "don't STOP\r\n\n  x"]:
        assert tokenizer(text)["input_ids"] == expected(text)["input_ids"], text
    assert sorted(tokenizer.all_special_ids) == sorted(expected.all_special_ids)
    reps, same = DiffRetriever.from_pretrained(folder).encode(TEXTS), load(tiny_dream).encode(TEXTS)
    assert reps.vectors.tobytes() == same.vectors.tobytes()
    assert reps.impacts == same.impacts


def test_no_tokenizer(tiny_dream: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_dream, tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"no tokenizer\.json with the adapter"):
        DiffRetriever.from_pretrained(folder)


def test_an_adapter_without_a_vocabulary_uses_the_tokenizer_of_its_base(conformance_dir: Path, tmp_path: Path) -> None:
    folder = copy_folder(conformance_dir / "checkpoints" / "tiny-dream-adapter", tmp_path / "adapter")
    config = resolve_config(str(folder), backbone=str(conformance_dir / "checkpoints" / "tiny-dream"))
    whole = load_tokenizer(config)
    (folder / "tokenizer.json").unlink()
    assert load_tokenizer(config)(TEXTS)["input_ids"] == whole(TEXTS)["input_ids"]
