"""A query's negatives: no passage of the batch that is a known positive of it, whichever row it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.method import unit
from diffretriever_pyserini.training import losses
from diffretriever_pyserini.training.data.batches import Example, _known_keys
from diffretriever_pyserini.training.data.examples import RowFiles, TrainingRows
from diffretriever_pyserini.training.data.store import text_key
from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.objective import objective
from diffretriever_pyserini.training.run import train
from diffretriever_pyserini.training.settings import TrainSettings

Settings = Callable[..., TrainSettings]
VOCABULARY = 12


def batch_of(examples: list[Example]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A batch as the collator makes it of ``examples``, and random model outputs that require gradients."""
    passages = [passage for example in examples for passage in example.passages]
    sizes = [len(example.passages) for example in examples]
    batch: dict[str, Any] = {
        "query": {},
        "passage": {},
        "positives": torch.tensor([0, *np.cumsum(sizes[:-1])]),
        "passage_keys": torch.tensor([[text_key(passage)] for passage in passages]),
        "known_keys": _known_keys(examples),
    }
    if examples[0].scores:
        batch["teacher_scores"] = torch.tensor([example.scores for example in examples])
    torch.manual_seed(1)
    outputs = {}
    for side, count in (("query", len(examples)), ("passage", len(passages))):
        outputs[f"{side}_hidden"] = torch.randn(count, 2, 5, requires_grad=True)
        outputs[f"{side}_lexical"] = torch.rand(count, VOCABULARY, requires_grad=True)
    return batch, outputs


def test_without_copies_nothing_is_masked(tiny_settings: Settings) -> None:
    """Bit for bit, losses and gradients."""
    batch, outputs = batch_of([Example(f"q{i}", (f"p{i}", f"n{i}")) for i in range(4)])
    parts = objective(outputs, batch, tiny_settings(), VOCABULARY)
    assert (parts["masked"].item(), parts["negatives"].item()) == (0, 4 * 7)
    parts["loss"].backward()
    gradients = [one.grad.clone() for one in outputs.values() if one.grad is not None]
    for one in outputs.values():
        one.grad = None
    similarities = losses.maxsim(losses.interactions(unit(outputs["query_hidden"]), unit(outputs["passage_hidden"])))
    plain = torch.nn.functional.cross_entropy(similarities / 2 / 0.01, batch["positives"])
    products = outputs["query_lexical"] @ outputs["passage_lexical"].T
    plain = plain + torch.nn.functional.cross_entropy(products, batch["positives"])
    assert parts["loss"].item() == plain.item()
    plain.backward()
    assert len(gradients) == 4
    assert all(torch.equal(a, b.grad) for a, b in zip(gradients, outputs.values(), strict=True) if b.grad is not None)


KINDS = {
    "one positive": ([Example(f"q{i}", (text,)) for i, text in enumerate(["same", "Same", " same"])], 6),
    "one query": ([Example(query, (f"p{i}",)) for i, query in enumerate(["q", "Q", " q "])], 6),
    "a negative is another row's positive": ([Example("q", ("p", "n"), positives=(text_key("n"),))], 1),
    "a negative is the other query's positive": ([Example("a", ("p", "x")), Example("a", ("x", "y"))], 4),
    "a copy of the positive among the negatives": ([Example("a", ("p", "P", "x"))], 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_positive_of_a_query_is_no_negative_of_it(kind: str, tiny_settings: Settings) -> None:
    """The loss is that of the batch without these pairs, and all gradients are finite."""
    examples, masked = KINDS[kind]
    batch, outputs = batch_of(examples)
    parts = objective(outputs, batch, tiny_settings(), VOCABULARY)
    assert parts["masked"].item() == masked
    keys = batch["passage_keys"].squeeze(1)
    products = outputs["query_lexical"] @ outputs["passage_lexical"].T
    expected = []
    for i, label in enumerate(batch["positives"].tolist()):
        unmasked = [j for j in range(len(keys)) if j == label or keys[j] not in batch["known_keys"][i]]
        expected.append(products[i, unmasked].logsumexp(0) - products[i, label])
    torch.testing.assert_close(parts["lexical"], torch.stack(expected).mean())
    if masked == 6:
        assert parts["loss"].item() == 0, "as negatives of each other they would keep it at 2 ln 3"
    parts["loss"].backward()
    assert all(torch.isfinite(one.grad).all() for one in outputs.values() if one.grad is not None)


def test_distillation_uses_masked_pairs(tiny_settings: Settings) -> None:
    """A teacher's scores are right for copies too; only the contrastive losses leave them out."""
    twice = [Example(f"q{i}", ("same", f"n{i}"), scores=(3.0, 1.0)) for i in range(2)]
    settings = tiny_settings(margin_mse_weight=1.0, relational_kl_weight=1.0, embedding_kl_weight=1.0)
    batch, outputs = batch_of(twice)
    teacher = {side: unit(torch.randn(count, 5)) for side, count in (("query", 2), ("passage", 4))}
    parts = objective(outputs, batch, settings, VOCABULARY, teacher)
    distinct = {**batch, "passage_keys": torch.arange(4).unsqueeze(1), "known_keys": torch.tensor([[0], [2]])}
    unmasked = objective(outputs, distinct, settings, VOCABULARY, teacher)
    assert (parts["masked"].item(), unmasked["masked"].item()) == (2, 0)
    assert parts["dense"] != unmasked["dense"]
    for name in ("margin_mse", "relational_kl", "embedding_kl"):
        assert math.isfinite(parts[name].item()) and parts[name] == unmasked[name], name


def test_an_example_names_the_positives_of_every_row(tmp_path: Path) -> None:
    """Rows with the same query share its positives, whichever of them are in a batch or on a device."""
    (tmp_path / "a.tsv").write_text("tall towers\tone\nrivers\ttwo\nTall  TOWERS\tthree\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"query": "tall towers", "positive_passages": ["four", "ONE"]}))
    rows = RowFiles([tmp_path / "a.tsv", tmp_path / "b.jsonl"], False, "stop", None)
    data = TrainingRows(rows, np.arange(4), 0, seed=1)
    towers = {text_key(text) for text in ("one", "three", "four")}
    for _ in range(2):
        assert [set(data[i].positives) for i in range(4)] == [towers, {text_key("two")}, towers, towers]


def test_masked_pairs_are_counted_in_the_log(tiny_settings: Settings, tmp_path: Path) -> None:
    """Eight queries; for each, three other passages of the batch have the text of its positive."""
    lines = [f"query {i}\t{'towers are tall' if i % 2 else 'rivers flow'}\n" for i in range(8)]
    (tmp_path / "r.tsv").write_text("".join(lines))
    reports: list[str] = []
    train(tiny_settings(data=(str(tmp_path / "r.tsv"),), negatives=0, batch_size=8, max_steps=1), say=reports.append)
    assert read_log(tmp_path / "out" / "log.jsonl")[0]["masked"] == 8 * 3
    assert any("24.0 pairs masked" in line for line in reports)


@pytest.mark.parametrize(
    ("lines", "changes"),
    [
        (["a\tone"], {"batch_size": 1}),
        (["a\tone", "b\ttwo"], {"batch_size": 1, "accumulate": 2}),
        ([f"{i}\tone" for i in range(4)], {"batch_size": 4}),
        ([f"a\t{i}" for i in range(4)], {"batch_size": 2}),
    ],
)
def test_nothing_to_learn_from_is_refused(
    lines: list[str], changes: dict[str, Any], tiny_settings: Settings, tmp_path: Path
) -> None:
    """One row, one positive, one query: the loss would be 0 and the checkpoint the base's."""
    (tmp_path / "r.tsv").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="nothing to learn from"):
        train(tiny_settings(data=(str(tmp_path / "r.tsv"),), negatives=0, **changes), say=lambda _: None)
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_losses_that_need_no_other_passage_teach(tiny_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text("a\tone passage of some words")
    changes = {"data": (str(tmp_path / "r.tsv"),), "negatives": 0, "batch_size": 1, "max_steps": 1}
    assert train(tiny_settings(**changes, denoising_weight=1.0), say=lambda _: None)["steps"] == 1
    tiny_settings(embedding_weight=1.0).require_contrast(1)
    tiny_settings(relational_kl_weight=1.0).require_contrast(3)
    with pytest.raises(ConfigError, match="nothing to learn from"):
        tiny_settings(relational_kl_weight=1.0).require_contrast(1)


def test_the_fused_loss_is_that_of_the_sum_of_both_signals(tiny_settings: Settings) -> None:
    batch, outputs = batch_of([Example(f"q{i}", (f"p{i}", f"n{i}")) for i in range(4)])
    settings = tiny_settings(temperature=0.1, lexical_temperature=0.5, fused_weight=2.0, lexical_weight=3.0)
    parts = objective(outputs, batch, settings, VOCABULARY)
    dense = losses.maxsim(losses.interactions(unit(outputs["query_hidden"]), unit(outputs["passage_hidden"]))) / 2 / 0.1
    lexical = outputs["query_lexical"] @ outputs["passage_lexical"].T / 0.5
    expected = [torch.nn.functional.cross_entropy(one, batch["positives"]) for one in (dense, lexical, dense + lexical)]
    for name, value in zip(("dense", "lexical", "fused"), expected, strict=True):
        torch.testing.assert_close(parts[name], value)
    torch.testing.assert_close(parts["loss"], expected[0] + 3 * expected[1] + 2 * expected[2])


def test_a_teachers_scores_teach_each_signal(tiny_settings: Settings) -> None:
    """The KL divergences of the dense scores, the lexical scores and their sum, each divided by its temperature."""
    rows = [Example(f"q{i}", (f"p{i}", f"n{i}"), scores=(2.0, i - 1.0)) for i in range(4)]
    batch, outputs = batch_of(rows)
    weights = {"relational_kl_weight": 2.0, "lexical_kl_weight": 3.0, "fused_kl_weight": 5.0}
    settings = tiny_settings(temperature=0.1, lexical_temperature=0.5, lexical_weight=0.0, **weights)
    parts = objective(outputs, batch, settings, VOCABULARY)
    dense = losses.maxsim(losses.interactions(unit(outputs["query_hidden"]), unit(outputs["passage_hidden"]))) / 2 / 0.1
    lexical = outputs["query_lexical"] @ outputs["passage_lexical"].T / 0.5
    theirs = torch.tensor([one.scores for one in rows]).softmax(dim=1)
    total = parts["dense"]
    for name, scores in (("relational_kl", dense), ("lexical_kl", lexical), ("fused_kl", dense + lexical)):
        ours = torch.stack([scores[i, 2 * i : 2 * i + 2] for i in range(4)]).log_softmax(dim=1)
        torch.testing.assert_close(parts[name], (theirs * (theirs.log() - ours)).sum(dim=1).mean())
        total = total + weights[f"{name}_weight"] * parts[name]
    torch.testing.assert_close(parts["loss"], total)


@pytest.mark.parametrize("name", ["lexical_kl_weight", "fused_kl_weight"])
def test_without_terms_there_is_no_lexical_teacher(name: str, tiny_settings: Settings) -> None:
    with pytest.raises(ConfigError, match=f"{name}=1.0 does not fit the read-out mean"):
        tiny_settings(**{name: 1.0}).for_readout("mean")
