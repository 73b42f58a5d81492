"""Recorded training steps of the published code on Dream and LLaDA: losses, scores and every gradient."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffretriever_pyserini.model.backbones import dream, llada
from diffretriever_pyserini.model.backbones.loading import load_base, load_tokenizer
from diffretriever_pyserini.model.layout import build_layout
from diffretriever_pyserini.model.method import unit
from diffretriever_pyserini.model.resolve import resolve_config
from diffretriever_pyserini.training import losses
from diffretriever_pyserini.training.data.batches import Collator
from diffretriever_pyserini.training.model import MaskReader

BUDGETS = ((1, 1), (4, 4), (4, 16))
KEYS = {"tiny-dream": dream.adapter_key, "tiny-llada": llada.adapter_key}


class Step:
    """One training step without LoRA on the recorded batch."""

    def __init__(self, folder: Path, name: str, k_query: int, k_passage: int, chunk: int = 0):
        config = resolve_config(
            str(folder / "checkpoints" / name), k_query=k_query, k_passage=k_passage, max_length=128
        )
        tokenizer = load_tokenizer(config)
        layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
        self.model = MaskReader(load_base(config, torch.float32), layouts, chunk=chunk).train()
        batch = json.loads((folder / "texts.json").read_text())["train"]
        self.texts = {"query": batch["queries"], "passage": batch["passages"]}
        self.labels = torch.arange(2) * batch["n_passages_per_query"]
        self.k_query = k_query
        self.collator = Collator(tokenizer, layouts, pad_left=True)

    def losses(
        self, temperature: float = 0.01, sparse_weight: float = 1.0, filtered: bool = True
    ) -> dict[str, torch.Tensor]:
        sides = {side: self.collator.side(texts, side) for side, texts in self.texts.items()}
        contents = [side["content"] for side in sides.values()]
        if not filtered:
            for side in sides.values():
                side.pop("content")
        outputs = self.model(**sides)
        lexical = (outputs["query_lexical"], outputs["passage_lexical"])
        q, p = unit(outputs["query_hidden"]), unit(outputs["passage_hidden"])
        interactions = losses.interactions(q, p)
        if filtered:
            products = losses.lexical_scores(*lexical, *contents, vocab_size=self.model.backbone.vocab_size)
        else:
            products = losses.lexical_scores(*lexical)
        dense = losses.dense_loss(interactions, self.labels, temperature)
        sparse = losses.contrastive(products, self.labels)
        return {
            "loss": dense + sparse_weight * sparse,
            "loss_dense": dense,
            "loss_sparse": sparse,
            "maxsim": losses.maxsim(interactions),
            "sparse_scores": products,
            "q_repr_hidden": q,
            "p_repr_hidden": p,
        }


@cache
def recorded(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    cases = folder / "cases"
    return json.loads((cases / f"{name}.training.json").read_text()), load_file(cases / f"{name}.training.safetensors")


@pytest.mark.parametrize(("budget", "chunk"), [*((budget, 0) for budget in BUDGETS), ((4, 16), 3)], ids=str)
@pytest.mark.parametrize("name", KEYS)
def test_losses_scores_and_gradients(conformance_dir: Path, name: str, budget: tuple[int, int], chunk: int) -> None:
    expected, tensors = recorded(conformance_dir, name)
    key = "kq{}_kp{}".format(*budget)
    step = Step(conformance_dir, name, *budget, chunk=chunk)
    values = step.losses()
    for part in ("loss", "loss_dense", "loss_sparse"):
        assert values[part].item() == pytest.approx(expected[key][part], rel=1e-4), part
    for part in ("q_repr_hidden", "p_repr_hidden"):
        torch.testing.assert_close(values[part], tensors[f"{key}/{part}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(values["maxsim"], tensors[f"{key}/maxsim"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values["sparse_scores"], tensors[f"{key}/sparse_scores"], atol=1e-4, rtol=1e-5)
    values["loss"].backward()
    gradients = {parameter_name: p.grad for parameter_name, p in step.model.network.named_parameters()}
    assert len(gradients) == len(expected[key]["grad_norm"])
    for released, norm in expected[key]["grad_norm"].items():
        assert gradients[KEYS[name](released)].norm().item() == pytest.approx(norm, rel=1e-3), released
    full = [one for one in tensors if one.startswith(f"{key}/grad/")]
    assert full
    for one in full:
        theirs, ours = tensors[one], gradients[KEYS[name](one.removeprefix(f"{key}/grad/"))]
        torch.testing.assert_close(ours, theirs, atol=1e-3 * theirs.abs().max().item(), rtol=1e-3)
    total = torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()
    assert total == pytest.approx(expected[key]["total_grad_norm"], rel=1e-3)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("name", KEYS)
def test_variants_of_the_loss(conformance_dir: Path, name: str, budget: tuple[int, int]) -> None:
    expected, _ = recorded(conformance_dir, name)
    case = expected["kq{}_kp{}".format(*budget)]
    step = Step(conformance_dir, name, *budget)
    with torch.no_grad():
        unfiltered = step.losses(filtered=False)
        for part, value in case["loss_no_content_filter"].items():
            assert unfiltered[part].item() == pytest.approx(value, rel=1e-4), part
        assert step.losses(sparse_weight=0.0)["loss"].item() == pytest.approx(case["loss_dense_only"], rel=1e-4)
        warmer = step.losses(temperature=0.05, sparse_weight=0.5)
        assert warmer["loss"].item() == pytest.approx(case["loss_t0.05_w0.5"], rel=1e-4)
