"""Step sizes and the order in which positions are decoded, with a stub for the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffretriever_pyserini.model.denoising import confidence, read_positions, step_sizes


@pytest.mark.parametrize(
    ("k", "steps", "schedule", "sizes"),
    [
        (4, 1, "zero_shot", [4]),
        (4, 2, "zero_shot", [1, 3]),
        (4, 2, "trained", [2, 2]),
        (4, 4, "trained", [1, 1, 1, 1]),
        (16, 2, "trained", [8, 8]),
        (16, 2, "zero_shot", [7, 9]),
        (5, 2, "trained", [2, 3]),
        (1, 4, "trained", [1]),
        (2, 4, "zero_shot", [1, 1]),
    ],
)
def test_step_sizes_by_hand(k: int, steps: int, schedule: str, sizes: list[int]) -> None:
    assert step_sizes(k, steps, schedule) == sizes


@given(st.integers(1, 40), st.integers(1, 50), st.sampled_from(["zero_shot", "trained"]))
def test_steps_decode_every_position_once(k: int, steps: int, schedule: str) -> None:
    sizes = step_sizes(k, steps, schedule)
    assert sum(sizes) == k
    assert len(sizes) <= steps
    assert min(sizes) >= 1


def test_confidence_is_negative_entropy() -> None:
    values = confidence(torch.tensor([[[0.0, 0.0, 0.0, 0.0], [100.0, 0.0, 0.0, 0.0]]]))
    torch.testing.assert_close(values, torch.tensor([[-1.3862944, 0.0]]))  # uniform over 4 terms: -log 4


class TwoPositions:
    """A model with 2 mask positions and 5 tokens: position p prefers token p + 1, the second with more confidence."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(ids.tolist())
        logits = torch.zeros(1, 2, 5)
        logits[0, 0, 1], logits[0, 1, 2] = 3.0, 9.0
        return torch.full((1, 2, 1), float(len(self.seen))), logits


def test_a_position_is_read_at_the_step_that_decodes_it() -> None:
    ids = torch.tensor([0, 4, 4, 0])
    model = TwoPositions()
    hidden, logits = read_positions(model, ids, torch.tensor([[1, 2]]), 2, "trained")
    # Step 1 decodes the more confident second position to token 2; step 2 sees it and reads the first.
    assert model.seen == [[0, 4, 4, 0], [0, 4, 2, 0]]
    assert hidden.flatten().tolist() == [2.0, 1.0]
    assert logits.argmax(dim=2).tolist() == [[1, 2]]
    assert ids.tolist() == [0, 4, 4, 0], "the caller's ids must stay"


def test_one_step_is_one_forward_pass() -> None:
    model = TwoPositions()
    read_positions(model, torch.tensor([0, 4, 4, 0]), torch.tensor([[1, 2]]), 1, "zero_shot")
    assert len(model.seen) == 1
