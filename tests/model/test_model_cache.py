"""The same weights are in memory once per process; other weights are not shared."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.model import model_cache
from diffretriever_pyserini.model.resolve import resolve_config
from diffretriever_pyserini.model.retriever import load_shared
from diffretriever_pyserini.training.lora import LoraSettings, trainable_backbone

from .conftest import TEXTS, copy_folder, edit_json, edit_weights


def pointers(model: DiffRetriever) -> set[int]:
    return {parameter.data_ptr() for parameter in model._backbone.model.parameters()}


@pytest.fixture
def checkpoint(tiny_bert: Path, tmp_path: Path) -> Path:
    """A checkpoint that no other test has loaded."""
    return copy_folder(tiny_bert, tmp_path / "model")


def test_other_settings_share_the_weights(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(checkpoint)
    one = DiffRetriever.from_pretrained(checkpoint)
    alone = one.encode(TEXTS).vectors
    settings: tuple[dict, ...] = (
        {"max_length": 64},
        {"k_query": 4, "k_passage": 3},
        {"prompt": "none", "top_terms": 5},
    )
    for more in settings:
        other = DiffRetriever.from_pretrained(tmp_path / "link", **more)
        assert other is not one
        assert pointers(other) == pointers(one)
        expected = DiffRetriever.from_pretrained(
            copy_folder(checkpoint, tmp_path / f"copy{len(more)}{min(more)}"), **more
        )
        assert not pointers(expected) & pointers(one)
        np.testing.assert_array_equal(other.encode(TEXTS).vectors, expected.encode(TEXTS).vectors)
    np.testing.assert_array_equal(one.encode(TEXTS).vectors, alone)


def test_encoders_of_pyserini_share_the_weights(checkpoint: Path) -> None:
    from diffretriever_pyserini import DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder

    documents = DiffRetrieverDocumentEncoder(f"diffretriever:{checkpoint}", max_length=128)
    queries = DiffRetrieverQueryEncoder(f"diffretriever:{checkpoint}", device=None)
    assert documents.model.config.max_length == 128 != queries.model.config.max_length
    assert pointers(documents.model) == pointers(queries.model)
    half = DiffRetrieverDocumentEncoder(f"diffretriever:{checkpoint}", fp16=True)
    assert half.model.dtype == torch.bfloat16
    assert not pointers(half.model) & pointers(documents.model)


def test_without_a_device_loaded_weights_are_used(checkpoint: Path) -> None:
    half = load_shared(str(checkpoint), device="cpu", dtype="bfloat16", max_length=100)
    assert pointers(load_shared(str(checkpoint))) == pointers(half)
    assert load_shared(str(checkpoint), dtype="float32").dtype == torch.float32
    assert load_shared(str(checkpoint), device="cpu").dtype == torch.float32


def test_settings_that_change_the_weights_are_not_shared(checkpoint: Path, tmp_path: Path) -> None:
    base = DiffRetriever.from_pretrained(checkpoint)
    assert not pointers(DiffRetriever.from_pretrained(checkpoint, dtype="float16")) & pointers(base)
    tail = DiffRetriever.from_pretrained(checkpoint, mask_position_ids="tail")
    assert np.abs(tail.encode(TEXTS).vectors - base.encode(TEXTS).vectors).max() > 1e-3


def test_an_adapter_is_not_shared_with_its_base(checkpoints: Path) -> None:
    adapted = DiffRetriever.from_pretrained(
        checkpoints / "tiny-dream-adapter", backbone=str(checkpoints / "tiny-dream")
    )
    base = DiffRetriever.from_pretrained(checkpoints / "tiny-dream")
    again = DiffRetriever.from_pretrained(
        checkpoints / "tiny-dream-adapter", backbone=str(checkpoints / "tiny-dream"), max_length=100
    )
    assert not pointers(adapted) & pointers(base)
    assert pointers(adapted) == pointers(again)


def test_a_rewritten_checkpoint_is_loaded_again(checkpoint: Path) -> None:
    old = load_shared(str(checkpoint))
    before = old.encode(TEXTS).vectors
    edit_weights(checkpoint, lambda weights: [tensor.mul_(1.5) for tensor in weights.values()])
    for new in (load_shared(str(checkpoint)), DiffRetriever.from_pretrained(checkpoint)):
        assert not pointers(new) & pointers(old)
        assert np.abs(new.encode(TEXTS).vectors - before).max() > 1e-3
    np.testing.assert_array_equal(old.encode(TEXTS).vectors, before)
    epsilon = load_shared(str(checkpoint))
    edit_json(checkpoint / "config.json", layer_norm_eps=0.5)
    assert not pointers(load_shared(str(checkpoint))) & pointers(epsilon)


def test_memory_is_freed_with_the_last_retriever(checkpoint: Path) -> None:
    one, other = load_shared(str(checkpoint)), DiffRetriever.from_pretrained(checkpoint, k_query=3)
    weight = weakref.ref(next(iter(one._backbone.model.parameters())))
    weights = model_cache.Weights.of(one.config)
    del one
    gc.collect()
    assert weight() is not None
    assert model_cache.loaded(weights) == [("float32", "cpu")]
    del other
    gc.collect()
    assert weight() is None
    assert model_cache.loaded(weights) == []


def test_threads_load_the_weights_once(checkpoint: Path) -> None:
    models: list[DiffRetriever] = []
    threads = [
        threading.Thread(target=lambda k=k: models.append(DiffRetriever.from_pretrained(checkpoint, k_query=k)))
        for k in range(1, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 4
    assert len({frozenset(pointers(model)) for model in models}) == 1


def test_training_never_shares(checkpoint: Path) -> None:
    model = DiffRetriever.from_pretrained(checkpoint)
    config = resolve_config(str(checkpoint))
    for lora in (None, LoraSettings(r=4)):
        trained = trainable_backbone(config, torch.float32, lora)
        assert not {parameter.data_ptr() for parameter in trained.model.parameters()} & pointers(model)
    assert not any(parameter.requires_grad for parameter in model._backbone.model.parameters())
