"""What a step does not compute: padding, columns of the head that no text has, gradients below the lowest adapter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from diffretriever_pyserini.model.backbones.loading import load_tokenizer
from diffretriever_pyserini.model.layout import build_layout
from diffretriever_pyserini.training import model as model_module
from diffretriever_pyserini.training.data.batches import Collator, Example
from diffretriever_pyserini.training.lora import LoraSettings, adapter_off, trainable_backbone
from diffretriever_pyserini.training.model import MaskReader, base_dropout, set_base_dropout
from diffretriever_pyserini.training.objective import objective
from diffretriever_pyserini.training.run import retriever_for, train
from diffretriever_pyserini.training.settings import TrainSettings
from diffretriever_pyserini.training.trainer import attention_by_products

from ..model.conftest import save_masked_lm

Settings = Callable[..., TrainSettings]


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    save_masked_lm(folder)
    return folder


@pytest.fixture
def named_settings(tiny_settings: Settings, tiny_bert: Path) -> Settings:
    """Settings of a run on a tiny base by its name, or on "bert"."""
    return lambda name, **changes: tiny_settings(
        **changes, **({"model": str(tiny_bert)} if name == "bert" else {"name": name})
    )


EXAMPLES = [
    Example("birds", ("Birds and rivers and towers that shine at night.", "metals")),
    Example("which rivers need clean water in spring", ("rivers", "Engines make loud noise, " * 20)),
    Example("engines", ("Engines make noise.", "The towers are very tall.")),
]


def step(settings: TrainSettings, attention: str | None = None) -> tuple[dict[str, torch.Tensor], MaskReader]:
    """Losses of one batch and the model with their gradients; ``attention`` "eager" pads."""
    config = retriever_for(settings)
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    lora = LoraSettings(4, 16, 0.0, settings.lora_layers)
    backbone = trainable_backbone(config, torch.float32, lora, seed=3)
    torch.manual_seed(4)
    for name, parameter in backbone.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)  # zero at the start, which would hide the gradients of A
    model = MaskReader(backbone, layouts)
    if attention:
        backbone.model.set_attn_implementation(attention)
    batch = Collator(tokenizer, layouts, backbone.pad_left, config.lexical_terms)(EXAMPLES)
    losses = objective(model(batch["query"], batch["passage"]), batch, settings, backbone.vocab_size)
    losses["loss"].backward()
    return losses, model


def gradients(model: MaskReader) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_text_of_many_terms_takes_the_whole_head(tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its columns would take more memory than all logits; the losses are the same."""
    settings = tiny_settings(temperature=0.05)
    few, model = step(settings)
    calls: list[int] = []
    plain = type(model.backbone).head
    monkeypatch.setattr(type(model.backbone), "head", lambda self, rows: calls.append(1) or plain(self, rows))
    monkeypatch.setattr(type(model.backbone), "vocab_size", property(lambda _: 20))
    config = retriever_for(settings)
    tokenizer = load_tokenizer(config)
    batch = Collator(tokenizer, model.layouts, model.backbone.pad_left, config.lexical_terms)(EXAMPLES)
    outputs = model(batch["query"], batch["passage"])
    assert calls
    monkeypatch.undo()
    whole = objective(outputs, batch, settings, model.backbone.vocab_size)
    torch.testing.assert_close(whole["loss"], few["loss"])


@pytest.mark.parametrize("name", ["tiny-dream", "tiny-llada", "tiny-a2d-qwen3", "tiny-llada-moe", "bert"])
def test_without_padding_losses_and_gradients_are_the_same(
    name: str, named_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of different sizes, against transformers' eager attention on padded rows."""
    monkeypatch.setattr(model_module, "_CACHED_TOKENS", 50)
    settings = named_settings(name, temperature=0.05)
    packed, model = step(settings)
    padded, reference = step(settings, "eager")
    assert model.backbone.packs and not reference.backbone.packs
    torch.testing.assert_close(packed["loss"], padded["loss"], rtol=1e-5, atol=1e-5)
    expected = gradients(reference)
    assert expected.keys() == gradients(model).keys()
    assert all(value.abs().max() > 0 for value in expected.values())
    for key, value in gradients(model).items():
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("name", ["tiny-dream", "bert"])
def test_without_padding_the_teachers_embeddings_are_the_same(
    name: str, named_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "_CACHED_TOKENS", 50)
    settings = named_settings(name, embedding_weight=1.0)
    _, model = step(settings)
    config = retriever_for(settings)
    tokenizer = load_tokenizer(config)
    batch = Collator(tokenizer, model.layouts, model.backbone.pad_left, config.lexical_terms, settings, config)(
        EXAMPLES
    )["plain"]["passage"]
    with adapter_off(model.backbone):
        packed = model.plain_embeddings(batch)
        model.backbone.model.set_attn_implementation("eager")
        assert not model.backbone.packs
        padded = model.plain_embeddings(batch)
        alone = model.plain_embeddings({name: values[2:3] for name, values in batch.items()})
    assert packed.shape == (6, model.backbone.model.config.hidden_size)
    torch.testing.assert_close(packed.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[2:3], alone, rtol=1e-4, atol=1e-5)


def test_bfloat16_on_a_cpu_attends_by_matrix_products(tiny_settings: Settings, tiny_bert: Path) -> None:
    """Losses and gradients agree with those of torch's fused kernel, which is used again afterwards."""
    settings = tiny_settings(temperature=0.05, model=str(tiny_bert))
    results = {}
    for by_products in (True, False):
        with attention_by_products() if by_products else nullcontext(), torch.autocast("cpu", torch.bfloat16):
            assert torch.backends.cuda.flash_sdp_enabled() is not by_products
            results[by_products] = step(settings)
        assert torch.backends.cuda.flash_sdp_enabled()
    (products, ours), (fused, reference) = results[True], results[False]
    torch.testing.assert_close(products["loss"], fused["loss"], rtol=0.03, atol=0.0)
    expected = gradients(reference)
    for key, value in gradients(ours).items():
        cosine = torch.nn.functional.cosine_similarity(value.flatten(), expected[key].flatten(), dim=0)
        assert cosine > 0.98, key


@pytest.mark.parametrize("bf16", [True, False])
def test_a_step_attends_by_products_only_in_bfloat16(
    bf16: bool, tiny_settings: Settings, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all of it: the forward pass, the same again in the backward pass, and the teacher, which has no gradient."""
    attention, seen = torch.nn.functional.scaled_dot_product_attention, set()

    def watched(query: torch.Tensor, *arguments: Any, **more: Any) -> torch.Tensor:
        seen.add((torch.is_grad_enabled(), query.dtype, torch.backends.cuda.flash_sdp_enabled()))
        return attention(query, *arguments, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    changes = {"bf16": bf16, "embedding_weight": 1.0, "gradient_checkpointing": True, "max_steps": 1}
    train(tiny_settings(model=str(tiny_bert), **changes), say=lambda _: None)
    dtype = torch.bfloat16 if bf16 else torch.float32
    assert seen == {(gradient, dtype, not bf16) for gradient in (True, False)}
    assert torch.backends.cuda.flash_sdp_enabled()
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()


def test_layers_below_the_lowest_adapter_have_no_gradient(tiny_settings: Settings, tiny_bert: Path) -> None:
    settings = tiny_settings(model=str(tiny_bert), lora_layers=1)
    config = retriever_for(settings)
    backbone: Any = trainable_backbone(config, torch.float32, LoraSettings(4, 16, 0.0, layers=1))
    layers = backbone.model.bert.encoder.layer
    needed: list[bool] = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, output: needed.append(output.requires_grad))
    tokens = torch.tensor([[2, 5, 6, 7, 3]])
    backbone.hidden_states(tokens, torch.ones_like(tokens), 2)
    assert needed == [False] * (len(layers) - 1) + [True]
    trained = {name for name, p in backbone.model.named_parameters() if p.requires_grad and "lora" in name}
    assert trained and all(f"layer.{len(layers) - 1}." in name for name in trained)


def test_dropout_of_the_base_can_be_set(tiny_settings: Settings, tiny_bert: Path) -> None:
    """A packed row has the attention's dropout, too."""
    config = retriever_for(tiny_settings(model=str(tiny_bert)))
    backbone: Any = trainable_backbone(config, torch.float32, LoraSettings(4, 16, 0.0))
    backbone.pack()
    backbone.model.train()
    tokens = torch.arange(4, 12)

    def different() -> bool:
        packing = backbone.packing(torch.tensor([5, 3]).numpy())
        first, second = (backbone.packed_states(tokens, packing, 2) for _ in range(2))
        return not torch.equal(first, second)

    set_base_dropout(backbone, 0.0)
    assert not different()
    for module in backbone.model.bert.encoder.layer[0].attention.self.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    assert different()
    set_base_dropout(backbone, 0.5)
    assert different()


def test_attention_dropout_that_is_no_layer_is_set_too(tiny_settings: Settings) -> None:
    """Qwen2 and Llama hold it as a number."""
    backbone = trainable_backbone(retriever_for(tiny_settings()), torch.float32, LoraSettings(4, 16, 0.3))
    assert base_dropout(backbone) == 0
    set_base_dropout(backbone, 0.25)
    assert base_dropout(backbone) == 0.25
    layer: Any = next(module for module in backbone.model.modules() if hasattr(module, "attention_dropout"))
    assert layer.attention_dropout == 0.25
    assert {module.p for name, module in backbone.model.named_modules() if name.endswith("lora_dropout.default")} == {
        0.3
    }
