"""LoRA adapters: plain ones as peft saves them, releases with code, and adapters that do not fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.backbones import dream
from diffretriever_pyserini.model.backbones.base import Backbone
from diffretriever_pyserini.model.backbones.loading import load_backbone, load_base, load_head, load_tokenizer
from diffretriever_pyserini.model.resolve import resolve_config
from diffretriever_pyserini.training.lora import head_parameters, trainable_backbone

from ..conftest import TEXTS, Load, assert_close, copy_folder, edit_json, edit_weights, headless, save_masked_lm

ADAPTER = "adapter_model.safetensors"
IDS = torch.tensor([[7, 11, 4, 9, 30, 5]])


def save_lora(model: Any, adapter: Path, targets: list[str], base: Path) -> Any:
    """Put random LoRA weights on ``model``, save the adapter as peft does, and return the merged model."""
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(model, LoraConfig(r=3, lora_alpha=12, target_modules=targets, lora_dropout=0.1))
    generator = torch.Generator().manual_seed(5)
    for name, weight in peft.named_parameters():
        if ".lora_B." in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.2
    peft.peft_config["default"].base_model_name_or_path = str(base)
    peft.save_pretrained(adapter)
    return peft.merge_and_unload()


def randomise(peft: Any) -> None:
    """Move the LoRA weights away from their initialisation, as training does."""
    generator = torch.Generator().manual_seed(5)
    for name, weight in peft.named_parameters():
        if ".lora_" in name:
            weight.data += torch.randn(weight.shape, generator=generator) * 0.2


def resolve_and_load(adapter: Path, base: Path) -> Backbone:
    """The backbone of ``adapter`` on ``base``, in float32."""
    return load_backbone(resolve_config(str(adapter), backbone=str(base)), torch.float32, "cpu")


def logits_of(backbone: Backbone) -> torch.Tensor:
    """Logits of ``IDS`` at every position."""
    return backbone.head(backbone.hidden_states(IDS, torch.ones_like(IDS), 0)).detach()


def save_merged(merged: Any, base: Path, folder: Path) -> Path:
    """``base`` with the weights of ``merged``."""
    copy_folder(base, folder)
    (folder / "model.safetensors").unlink()
    weights = {key: tensor.clone() for key, tensor in merged.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def bert_lora(tiny_bert: Path, tmp_path: Path) -> Path:
    """A plain LoRA adapter on the tiny BERT; the merged model is in the folder next to it."""
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(tiny_bert)
    merged = save_lora(model, tmp_path / "lora", ["query", "value", "dense"], tiny_bert)
    copy_folder(tiny_bert, tmp_path / "merged")
    merged.save_pretrained(tmp_path / "merged")
    return tmp_path / "lora"


def test_a_plain_adapter_on_a_masked_lm(bert_lora: Path, tiny_bert: Path, load: Load) -> None:
    adapted = DiffRetriever.from_pretrained(bert_lora, k_passage=3)
    assert (adapted.config.cut_at_stop, adapted.config.prompt, adapted.config.backbone) == (
        True,
        "none",
        str(tiny_bert),
    )
    merged = DiffRetriever.from_pretrained(bert_lora.parent / "merged", k_passage=3)
    assert_close(adapted.encode(TEXTS), merged.encode(TEXTS))
    base = load(tiny_bert, k_passage=3).encode(TEXTS)
    assert np.abs(adapted.encode(TEXTS).vectors - base.vectors).max() > 0.05


def test_a_plain_adapter_on_dream(tiny_dream: Path, tmp_path: Path, load: Load) -> None:
    targets = ["q_proj", "v_proj", "down_proj"]
    merged = save_lora(dream.load(tiny_dream, torch.float32).model, tmp_path / "lora", targets, tiny_dream)
    adapted = DiffRetriever.from_pretrained(tmp_path / "lora", k_query=4)
    assert (adapted.config.family, adapted.config.max_length, adapted.config.impact_rounding) == ("dream", 512, "zero")
    expected = DiffRetriever.from_pretrained(save_merged(merged, tiny_dream, tmp_path / "merged"), k_query=4)
    assert_close(adapted.encode(TEXTS, side="query"), expected.encode(TEXTS, side="query"))
    base = load(tiny_dream, k_query=4).encode(TEXTS, side="query")
    assert np.abs(adapted.encode(TEXTS, side="query").vectors - base.vectors).max() > 0.05


def test_a_fully_fine_tuned_folder(tiny_bert: Path, tmp_path: Path, load: Load) -> None:
    """config.json, weights and retriever_config.json: no adapter, its own K and read-out."""
    folder = copy_folder(tiny_bert, tmp_path / "tuned")
    settings = {"model_type": "bert", "n_gen_q_tokens": 2, "n_gen_p_tokens": 5, "max_length": 100, "n_tail": 1}
    edit_json(folder / "retriever_config.json", **settings)
    tuned = DiffRetriever.from_pretrained(folder)
    assert (tuned.config.adapter, tuned.config.max_length, tuned.config.cut_at_stop) == (None, 100, False)
    like = load(tiny_bert, k_query=2, k_passage=5, max_length=100, cut_at_stop=False, impact_rounding="nearest")
    reps, expected = tuned.encode(TEXTS), like.encode(TEXTS)
    assert reps.vectors.shape == (len(TEXTS), 5, 32)
    assert reps.vectors.tobytes() == expected.vectors.tobytes()
    assert reps.impacts == expected.impacts


def test_code_in_a_release_is_never_run(checkpoints: Path, tmp_path: Path, load: Load) -> None:
    folder = copy_folder(checkpoints / "tiny-dream-adapter-single", tmp_path / "release")
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit('remote code was run')\n"
    for name in ("modeling.py", "configuration.py", "tokenization.py"):
        (folder / name).write_text(trap)
    code = {"AutoConfig": "configuration.Config", "AutoModel": "modeling.Model", "AutoTokenizer": "tokenization.T"}
    edit_json(folder / "config.json", model_type="diffretriever", auto_map=code, architectures=["Model"])
    edit_json(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.T", None]})
    release = DiffRetriever.from_pretrained(folder, backbone=str(checkpoints / "tiny-dream"))
    same = load(checkpoints / "tiny-dream-adapter-single")
    assert release.encode(TEXTS).vectors.tobytes() == same.encode(TEXTS).vectors.tobytes()
    assert not (tmp_path / "ran").exists()


def test_adapters_of_another_family_are_refused(checkpoints: Path) -> None:
    for adapter, base in (("tiny-dream-adapter", "tiny-llada"), ("tiny-llada-adapter", "tiny-dream")):
        with pytest.raises(ConfigError, match=rf"{base}: this base is a"):
            DiffRetriever.from_pretrained(checkpoints / adapter, backbone=str(checkpoints / base))


def test_adapters_of_another_size_are_refused(bert_lora: Path, tmp_path: Path) -> None:
    save_masked_lm(tmp_path / "wide", hidden_size=64)
    with pytest.raises(ConfigError, match=r"do not fit together"):
        DiffRetriever.from_pretrained(bert_lora, backbone=str(tmp_path / "wide"))
    save_masked_lm(tmp_path / "shallow", num_hidden_layers=1)
    with pytest.raises(ConfigError, match=r"adapts 'bert\.encoder\.layer\.1.* which the base does not have"):
        DiffRetriever.from_pretrained(bert_lora, backbone=str(tmp_path / "shallow"))


def rename_one(weights: dict[str, torch.Tensor]) -> None:
    key = min(weights)
    weights["base_model.model.nowhere.lora_A.weight"] = weights.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_one, "adapts 'nowhere', which the base does not have"),
        (lambda w: w.pop(min(k for k in w if ".lora_B." in k)), "lora_B.* has no counterpart"),
        (lambda w: w.update({"base_model.model.bert.bias": torch.zeros(2)}), "not a LoRA weight; only plain LoRA"),
    ],
)
def test_tensors_without_a_target_are_refused(bert_lora: Path, change: Any, message: str) -> None:
    edit_weights(bert_lora, change, ADAPTER)
    with pytest.raises(ConfigError, match=rf"adapter_model\.safetensors: .*{message}"):
        DiffRetriever.from_pretrained(bert_lora)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("use_dora", True),
        ("rank_pattern", {"query": 8}),
        ("alpha_pattern", {"query": 8}),
        ("modules_to_save", ["decoder"]),
        ("alora_invocation_tokens", [1]),
        ("layer_replication", [[0, 1]]),
        ("use_qalora", True),
        ("target_parameters", ["query.weight"]),
        ("trainable_token_indices", [1]),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("kasa_config", {"beta": 1.0}),
        ("use_bdlora", {"nblocks": 2}),
        ("ensure_weight_tying", True),
        ("megatron_config", {"a": 1}),
        ("an_unknown_variant", True),
        ("r", None),
        ("r", True),
        ("r", 3.0),
        ("r", 0),
        ("lora_alpha", None),
        ("lora_alpha", "12"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "OLoRA"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", "an_unknown_initialisation"),
    ],
)
def test_adapters_that_are_not_plain_lora_are_refused(bert_lora: Path, key: str, value: Any) -> None:
    edit_json(bert_lora / "adapter_config.json", **{key: value})
    with pytest.raises(ConfigError, match=rf"adapter_config\.json: {key}"):
        DiffRetriever.from_pretrained(bert_lora)


@pytest.mark.parametrize("start", [False, "gaussian", "orthogonal", "mica"])
def test_initialisations_that_keep_the_base(tiny_bert: Path, tmp_path: Path, start: Any) -> None:
    """The merged weights agree with peft's unmerged model."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(tiny_bert).eval()
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=12, target_modules=["query"], init_lora_weights=start))
    randomise(peft)
    peft.save_pretrained(tmp_path / "lora")
    backbone = resolve_and_load(tmp_path / "lora", tiny_bert)
    torch.testing.assert_close(logits_of(backbone), peft(IDS).logits.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_initialisations_that_change_the_base(tiny_bert: Path, tmp_path: Path, start: str) -> None:
    """They are refused as peft saves them, and accepted once peft has converted them to plain LoRA."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertForMaskedLM

    model = BertForMaskedLM.from_pretrained(tiny_bert).eval()
    settings = LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value"], init_lora_weights=start)
    peft = get_peft_model(model, settings)
    settings.init_lora_weights = True  # else peft would initialise again when it converts
    peft.save_pretrained(tmp_path / "start")
    settings.init_lora_weights = start
    randomise(peft)
    peft.save_pretrained(tmp_path / "lora")
    with pytest.raises(ConfigError, match=rf"adapter_config\.json: init_lora_weights '{start}' is not supported"):
        resolve_and_load(tmp_path / "lora", tiny_bert)
    expected = peft(IDS).logits.detach()
    peft.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    backbone = resolve_and_load(tmp_path / "plain", tiny_bert)
    torch.testing.assert_close(logits_of(backbone), expected, atol=1e-3, rtol=1e-3)


def test_a_weight_under_two_names_is_refused(bert_lora: Path) -> None:
    def twice(weights: dict[str, torch.Tensor]) -> None:
        key = min(weights)
        weights[key.replace(".weight", ".default.weight")] = weights[key] + 1

    edit_weights(bert_lora, twice, ADAPTER)
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors: .*twice, under two names"):
        DiffRetriever.from_pretrained(bert_lora)


def test_pickled_adapters_are_not_read(bert_lora: Path) -> None:
    (bert_lora / ADAPTER).rename(bert_lora / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"pickled adapters are not read"):
        DiffRetriever.from_pretrained(bert_lora)


def test_a_missing_head_is_an_error(bert_lora: Path, tiny_bert: Path, tmp_path: Path) -> None:
    base = headless(tiny_bert, tmp_path / "headless")
    with pytest.raises(ConfigError, match=r"lacks weights cls\."):
        DiffRetriever.from_pretrained(base)
    with pytest.raises(ConfigError, match=r"lacks weights cls\."):
        DiffRetriever.from_pretrained(bert_lora, backbone=str(base))


def test_an_adapter_may_contain_the_head(bert_lora: Path, tiny_bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = headless(tiny_bert, tmp_path / "headless")
    head = {k: t for k, t in load_file(tiny_bert / "model.safetensors").items() if k.startswith("cls.")}
    save_file(head, bert_lora / "head.safetensors")
    expected = DiffRetriever.from_pretrained(bert_lora.parent / "merged").forward_masks(TEXTS)
    # The LoRA of this fixture also adapts the head's dense layer, so the adapter must contain the merged head.
    merged = load_file(bert_lora.parent / "merged" / "model.safetensors")
    save_file({key: merged[key] for key in head}, bert_lora / "head.safetensors")
    outputs = DiffRetriever.from_pretrained(bert_lora, backbone=str(base)).forward_masks(TEXTS)
    np.testing.assert_allclose(outputs.hidden, expected.hidden, atol=1e-4)
    np.testing.assert_allclose(outputs.logits, expected.logits, atol=1e-4)
    save_file({"cls.predictions.nothing": torch.zeros(2)}, bert_lora / "head.safetensors")
    with pytest.raises(ConfigError, match=r"head\.safetensors: 'cls\.predictions\.nothing'"):
        DiffRetriever.from_pretrained(bert_lora, backbone=str(tiny_bert))
    save_file({"cls.predictions.bias": head["cls.predictions.bias"]}, bert_lora / "head.safetensors")
    with pytest.raises(ConfigError, match=r"no output head and this file lacks 'cls\."):
        DiffRetriever.from_pretrained(bert_lora, backbone=str(base))


def tied_dream(tiny_dream: Path, folder: Path) -> Path:
    """The tiny Dream with its output head tied to its input embeddings."""
    copy_folder(tiny_dream, folder)
    edit_json(folder / "config.json", tie_word_embeddings=True)
    edit_weights(folder, lambda w: w.pop("lm_head.weight", None))
    return folder


def test_lora_on_a_tied_head_does_not_change_the_input_embeddings(tiny_dream: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tied_dream(tiny_dream, tmp_path / "tied")
    unmerged = dream.load(base, torch.float32)
    alone = logits_of(unmerged)
    settings = LoraConfig(r=3, lora_alpha=12, target_modules=["q_proj", "lm_head"])
    peft = get_peft_model(unmerged.model, settings)
    randomise(peft)
    peft.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    backbone = resolve_and_load(tmp_path / "lora", base)
    torch.testing.assert_close(logits_of(backbone), logits_of(unmerged), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits_of(backbone), alone, atol=0.1)
    assert torch.equal(
        backbone.model.get_input_embeddings().weight, dream.load(base, torch.float32).model.lm_head.weight
    )


@pytest.mark.parametrize(
    ("kind", "head", "table"),
    [
        ("bert", "cls.predictions.decoder", "bert.embeddings.word_embeddings"),
        ("roberta", "lm_head.decoder", "roberta.embeddings.word_embeddings"),
        ("distilbert", "vocab_projector", "distilbert.embeddings.word_embeddings"),
        ("modernbert", "decoder", "model.embeddings.tok_embeddings"),
    ],
)
def test_lora_and_full_tensors_on_a_tied_masked_lm_head(tmp_path: Path, kind: str, head: str, table: str) -> None:
    from peft import LoraConfig, get_peft_model

    base, full, lora = tmp_path / "base", tmp_path / "full", tmp_path / "lora"
    model = save_masked_lm(base, kind)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    before = model.get_input_embeddings().weight.detach().clone()
    after = before + torch.randn(before.shape, generator=torch.Generator().manual_seed(3))
    full.mkdir()

    def loaded(**tensors: torch.Tensor) -> Backbone:
        save_file({f"{name}.weight": tensor for name, tensor in tensors.items()}, full / "head.safetensors")
        backbone = load_base(resolve_config(str(base)), torch.float32)
        load_head(backbone, full)
        return backbone

    backbone = loaded(**{head: after})
    assert torch.equal(backbone.model.get_input_embeddings().weight, before)
    assert torch.equal(backbone.model.get_output_embeddings().weight, after)
    backbone = loaded(**{head: after, table: before + 1})
    assert torch.equal(backbone.model.get_input_embeddings().weight, before + 1)
    assert torch.equal(backbone.model.get_output_embeddings().weight, after)
    with pytest.raises(ConfigError, match=rf"head\.safetensors: '{re.escape(table)}\.weight', but not the output head"):
        loaded(**{table: after})

    peft = get_peft_model(model, LoraConfig(r=3, lora_alpha=12, target_modules=[head]))
    randomise(peft)
    peft.save_pretrained(lora, save_embedding_layers=False)
    backbone = resolve_and_load(lora, base)
    torch.testing.assert_close(logits_of(backbone), peft(IDS).logits.detach(), atol=1e-4, rtol=1e-4)
    # In further training, the adapter still changes the head's weight.
    again = trainable_backbone(resolve_config(str(lora), backbone=str(base)), torch.float32, None)
    torch.testing.assert_close(logits_of(again), logits_of(backbone), atol=1e-4, rtol=1e-4)
    assert not [name for name in head_parameters(again.model) if "base_layer" in name]


@pytest.mark.parametrize("name", [ADAPTER, "head.safetensors"])
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"", None])
def test_damaged_adapter_files_are_named(bert_lora: Path, name: str, content: bytes | None) -> None:
    whole = (bert_lora / ADAPTER).read_bytes()
    (bert_lora / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ConfigError, match=rf"{re.escape(name)}: damaged, or not safetensors"):
        load_backbone(resolve_config(str(bert_lora)), torch.float32, "cpu")


def test_a_tokenizer_setting_that_fails_late_is_named(tiny_dream: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_dream, tmp_path / "copy")
    edit_json(folder / "tokenizer_config.json", model_max_length=["many"])
    with pytest.raises(ConfigError, match=r"copy: the tokenizer cannot be loaded \(TypeError: '>' not supported"):
        load_tokenizer(resolve_config(str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 2**63}, "has shape .*, but adapter_config.json says r=9223372036854775808"),
        ({"r": 10**9}, "has shape .*, but adapter_config.json says r=1000000000"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number below 1,000,000"),
    ],
)
def test_a_rank_that_is_not_the_weights_is_refused_before_it_is_allocated(
    bert_lora: Path, changes: dict[str, int], message: str
) -> None:
    edit_json(bert_lora / "adapter_config.json", **changes)
    with pytest.raises(ConfigError, match=message):
        load_backbone(resolve_config(str(bert_lora)), torch.float32, "cpu")


def test_a_panic_of_the_tokenizers_library_is_an_error_like_others(tiny_dream: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_dream, tmp_path / "copy")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["continuing_subword_prefix"] = "a prefix longer than every token"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match=r"copy: the tokenizer cannot be loaded \(PanicError: "):
        load_tokenizer(resolve_config(str(folder)))


@pytest.mark.parametrize("kind", ["tiny-bert", "tiny-dream"])
@pytest.mark.parametrize("content", ["version https://git-lfs.github.com/spec/v1\n", '{"model": ', "{}", "[]"])
def test_damaged_tokenizers_are_named(
    tiny_bert: Path, tiny_dream: Path, tmp_path: Path, kind: str, content: str
) -> None:
    folder = copy_folder({"tiny-bert": tiny_bert, "tiny-dream": tiny_dream}[kind], tmp_path / "copy")
    (folder / "tokenizer.json").write_text(content)
    message = "copy: the tokenizer cannot be loaded" if content == "{}" else r"copy/tokenizer\.json"
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(resolve_config(str(folder)))
