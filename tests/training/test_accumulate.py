"""Gradient accumulation: an update uses the mean of its batches' gradients, also at the short end of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.lora import LoraSettings, trainable_backbone
from diffretriever_pyserini.training.model import MaskReader
from diffretriever_pyserini.training.objective import objective
from diffretriever_pyserini.training.run import retriever_for, train
from diffretriever_pyserini.training.settings import TrainSettings
from diffretriever_pyserini.training.trainer import RetrieverTrainer, _Epochs

Settings = Callable[..., TrainSettings]
Gradients = dict[str, torch.Tensor]


def gradients_of(model: torch.nn.Module) -> Gradients:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def mean_gradients(settings: TrainSettings, batches: list[dict[str, Any]]) -> tuple[Gradients, float]:
    """The gradient of the mean of the batches' losses at the initial weights, and that mean."""
    from diffretriever_pyserini.model.backbones.loading import load_tokenizer
    from diffretriever_pyserini.model.layout import build_layout

    config = retriever_for(settings)
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    backbone = trainable_backbone(config, torch.float32, LoraSettings(16, 64, 0.0), seed=settings.seed)
    model = MaskReader(backbone, layouts)
    losses = [
        objective(model(batch["query"], batch["passage"]), batch, settings, backbone.vocab_size)["loss"]
        for batch in batches
    ]
    mean = torch.stack(losses).mean()
    mean.backward()
    return gradients_of(model), mean.item()


def test_an_update_is_the_mean_of_its_batches(
    tiny_settings: Settings, conformance_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 rows in batches of 4, two batches per update: the second update has only one batch."""
    settings = tiny_settings(
        model=str(conformance_dir / "checkpoints" / "tiny-dream-adapter"),  # A and B are both away from zero
        k_query=None,
        k_passage=None,
        max_length=None,
        lora_dropout=0.0,
        dev_rows=36,
        max_steps=-1,
        accumulate=2,
        max_grad_norm=0.0,  # not clipped
        learning_rate=1e-12,  # both updates start from the same weights
        schedule="constant",
    )
    batches: list[dict[str, Any]] = []
    seen: list[tuple[int, Gradients]] = []
    compute_loss = RetrieverTrainer.compute_loss

    def recorded(self: RetrieverTrainer, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        batches.append(inputs)
        return compute_loss(self, model, inputs, *more, **named)

    def before_the_step(self: _Epochs, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seen.append((len(batches), gradients_of(kwargs["model"])))

    monkeypatch.setattr(RetrieverTrainer, "compute_loss", recorded)
    monkeypatch.setattr(_Epochs, "on_pre_optimizer_step", before_the_step)
    train(settings, say=lambda _: None)
    assert [count for count, _ in seen] == [2, 3]
    logged = [record["loss"] for record in read_log(tmp_path / "out" / "log.jsonl") if "loss" in record]
    for update, (_, gradients), loss in zip((batches[:2], batches[2:]), seen, logged, strict=True):
        expected, mean = mean_gradients(settings, update)
        assert expected.keys() == gradients.keys() and len(gradients) >= 42
        for name, gradient in expected.items():
            largest = gradient.abs().max().item()
            assert largest > 0, name
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-4 * largest)
        assert loss == pytest.approx(mean, rel=1e-4)
