"""Losses against numbers computed by hand; the published recordings are in test_goldens.py."""

from __future__ import annotations

import math

import pytest
import torch

from diffretriever_pyserini.training import losses


def test_maxsim_is_not_clamped() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    passages = torch.tensor([[[1.0, 0.0], [0.0, -1.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    # first query vector: best 1 and -1; second: best of (0, -1) = 0, and 0
    assert losses.maxsim(losses.interactions(queries, passages)).tolist() == [[1.0, -1.0]]


def test_lexical_activations_are_the_maximum_over_positions_of_content_terms() -> None:
    logits = torch.tensor([[[math.e - 1, -5.0, 3.0], [0.5, 1.0, 0.0]]])
    full = losses.lexical_activations(logits)
    torch.testing.assert_close(full, torch.tensor([[1.0, math.log(2), math.log(4)]]))
    content = losses.lexical_activations(logits[:, :, [2, 0, 0]], torch.tensor([[2, 0, -1]]))
    torch.testing.assert_close(content, torch.tensor([[math.log(4), 1.0, 0.0]]))


@pytest.mark.parametrize("seed", range(3))
def test_compact_lexical_scores_are_the_dense_products(seed: int) -> None:
    torch.manual_seed(seed)
    width = 50
    contents = [
        torch.stack([torch.cat([torch.randperm(width)[: 9 - i], torch.full((i,), -1)]) for i in range(n)])
        for n in (3, 5)
    ]
    logits = [torch.randn(len(content), 4, width) for content in contents]
    columns = [
        one.gather(2, content.clamp(min=0).unsqueeze(1).expand(-1, 4, -1))
        for content, one in zip(contents, logits, strict=True)
    ]
    compact = [losses.lexical_activations(*pair) for pair in zip(columns, contents, strict=True)]
    dense = []
    for content, one in zip(contents, logits, strict=True):
        allowed = torch.zeros(len(content), width + 1).scatter(1, content % (width + 1), 1.0)[:, :width]
        dense.append(losses.lexical_activations(one) * allowed)
    torch.testing.assert_close(
        losses.lexical_scores(*compact, *contents, vocab_size=width), losses.lexical_scores(*dense)
    )


def test_dense_loss_divides_by_the_query_vectors_and_the_temperature() -> None:
    products = torch.tensor([[[[1.0]] * 4, [[0.5]] * 4]]).view(1, 2, 4, 1)
    loss = losses.dense_loss(products, torch.tensor([0]), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_dense_loss_of_prefixes_is_the_mean_of_their_losses() -> None:
    """Budgets 1, 2 and 8 of K 2/3 are the prefixes 1/1, 2/2 and 2/3; the whole counts once."""
    torch.manual_seed(4)
    queries, passages, labels = torch.randn(3, 2, 6), torch.randn(5, 3, 6), torch.tensor([0, 2, 4])
    alone = [
        losses.dense_loss(losses.interactions(queries[:, :a], passages[:, :b]), labels)
        for a, b in ((1, 1), (2, 2), (2, 3))
    ]
    products = losses.interactions(queries, passages)
    torch.testing.assert_close(losses.dense_loss(products, labels, budgets=(8, 1, 2)), torch.stack(alone).mean())
    torch.testing.assert_close(losses.dense_loss(products, labels), alone[-1])


def test_denoising_loss_weighs_by_one_over_the_masked_share() -> None:
    logits = torch.zeros(2, 10)
    loss = losses.denoising_loss(logits, torch.tensor([3, 4]), torch.tensor([0.5, 0.25]), tokens=8)
    assert loss.item() == pytest.approx(math.log(10) * (2 + 4) / 8)


def test_diversity_is_one_for_equal_and_zero_for_orthogonal_vectors() -> None:
    equal = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    crossed = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    assert losses.diversity_loss(equal).item() == 1.0
    assert losses.diversity_loss(crossed).item() == 0.0
    assert losses.diversity_loss(torch.cat([equal, crossed])).item() == 0.5
    assert losses.diversity_loss(torch.ones(3, 1, 2)).item() == 0.0


def test_margin_mse_compares_margins_not_scores() -> None:
    scores, teacher = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[13.0, 11.0, 11.0]])
    assert losses.margin_mse(scores, teacher).item() == pytest.approx((0 + 1) / 2)
    with pytest.raises(ValueError, match="negative"):
        losses.margin_mse(scores[:, :1], teacher[:, :1])


def test_relational_kl_vanishes_only_for_the_same_distribution() -> None:
    teacher = torch.tensor([[2.0, 0.0]])
    assert losses.relational_kl(teacher + 7, teacher).item() == pytest.approx(0, abs=1e-7)
    p = 1 / (1 + math.exp(-2.0))
    expected = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert losses.relational_kl(torch.zeros(1, 2), teacher).item() == pytest.approx(expected, rel=1e-5)
    assert losses.relational_kl(torch.zeros(1, 2), 2 * teacher, teacher_temperature=2.0).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_embedding_distance() -> None:
    pooled = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert losses.embedding_distance(pooled, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item() == pytest.approx(0.5)
