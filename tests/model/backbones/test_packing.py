"""Packed texts: their offsets, that none attends to another, and the size of batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.model.backbones import packing
from diffretriever_pyserini.model.backbones.packing import Packing, attend, kernel_works

from ..conftest import TEXTS, Load, assert_close, save_masked_lm


def test_offsets_of_texts_by_hand() -> None:
    packed = Packing.of(np.array([3, 1, 2]), "cpu")
    assert packed.lengths == (3, 1, 2)
    assert packed.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert packed.remaining.tolist() == [3, 2, 1, 1, 2, 1]
    assert packed.bounds.tolist() == [0, 3, 4, 6]
    assert packed.bounds.dtype == torch.int32, "the kernels need int32"


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_stays_within_each_text(key_heads: int) -> None:
    """Against the definition, softmax(q k' / s) v per text and head, also with shared keys."""
    lengths = [5, 3, 3, 1]
    generator = torch.Generator().manual_seed(3)
    query, key, value = (
        torch.randn((1, heads, sum(lengths), 8), generator=generator) for heads in (4, key_heads, key_heads)
    )
    result, _ = attend(
        torch.nn.Module(), query, key, value, None, packing=Packing.of(np.array(lengths), "cpu"), scaling=0.3
    )
    start = 0
    for length in lengths:
        tokens = slice(start, start + length)
        for head in range(4):
            shared = head * key_heads // 4
            shares = torch.softmax(0.3 * query[0, head, tokens] @ key[0, shared, tokens].T, dim=1)
            torch.testing.assert_close(result[0, tokens, head], shares @ value[0, shared, tokens])
        start += length


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "distilbert"])
def test_masked_lms_pack(tmp_path: Path, kind: str) -> None:
    save_masked_lm(tmp_path, kind)
    model = DiffRetriever.from_pretrained(tmp_path, k_passage=3)
    assert model._backbone.packs
    texts = [*TEXTS, "the [PAD] of [PAD][PAD] retrieval"]  # a padding token in a text is an ordinary token
    together = model.encode(texts, batch_size=len(texts))
    assert_close(model.encode(texts, batch_size=1), together)
    model._backbone.model.set_attn_implementation("sdpa")
    assert_close(model.encode(texts, batch_size=len(texts)), together)


@pytest.mark.parametrize(("positions", "segment"), [("tail", 0), ("follow", 1), ("tail", 1)])
def test_the_mask_block_has_its_own_positions_in_a_packed_row(tiny_bert: Path, positions: str, segment: int) -> None:
    model = DiffRetriever.from_pretrained(tiny_bert, k_query=2, mask_position_ids=positions, mask_token_type=segment)
    packed = model.forward_masks(TEXTS)
    model._backbone.model.set_attn_implementation("sdpa")
    np.testing.assert_allclose(packed.hidden, model.forward_masks(TEXTS).hidden, atol=1e-4)


def test_local_attention_is_padded(tmp_path: Path) -> None:
    save_masked_lm(tmp_path, "modernbert")
    assert not DiffRetriever.from_pretrained(tmp_path)._backbone.packs


def test_a_batch_is_as_many_tokens_as_fit(any_model: DiffRetriever) -> None:
    prepared = any_model.prepare([*TEXTS, *TEXTS], "passage")
    lengths = prepared.lengths
    budget = int(lengths.max() + lengths.min())
    batches = list(any_model.reader.batches(prepared, 0, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    sums = [int(lengths[batch].sum()) for batch in batches]
    assert all(size <= budget or len(batch) == 1 for size, batch in zip(sums, batches, strict=True))
    for batch, following in itertools.pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget, "one more text would have fitted"
    assert [len(batch) for batch in any_model.reader.batches(prepared, 0, 1)] == [1] * len(lengths)


def test_the_token_budget_includes_padding(tiny_bert: Path) -> None:
    model = DiffRetriever.from_pretrained(tiny_bert, k_passage=3)
    prepared = model.prepare([*TEXTS, *TEXTS], "passage")
    longest = int(prepared.lengths.max())
    model._backbone.model.set_attn_implementation("sdpa")
    try:
        assert len(next(iter(model.reader.batches(prepared, 0, 2 * longest)))) == 2
    finally:
        model._backbone.pack()  # other tests share the model


def test_results_do_not_depend_on_the_token_budget(any_model: DiffRetriever) -> None:
    prepared = any_model.prepare([*TEXTS, *TEXTS], "passage")
    one = any_model.represent(prepared, token_budget=1)
    assert_close(any_model.represent(prepared, token_budget=10_000), one)
    assert_close(any_model.represent(prepared, token_budget=150), one)


class OnGpu:
    """A stub for a model on a GPU."""

    device, dtype = torch.device("cuda"), torch.bfloat16
    config: Any = type("Config", (), {"num_attention_heads": 4, "hidden_size": 32})()


def _raise(result: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no kernel image is available")


@pytest.mark.parametrize(
    ("change", "works"), [(torch.clone, True), (lambda result: result.flip(0), False), (_raise, False)]
)
def test_a_kernel_is_tested_before_it_is_used(monkeypatch: Any, change: Any, works: bool) -> None:
    """A kernel that disagrees with ordinary attention or raises is not used."""
    plain, agrees = packing._by_length, packing._kernel_agrees
    monkeypatch.setattr(packing, "_by_kernel", lambda *inputs: change(plain(*inputs)))
    monkeypatch.setattr(packing, "_kernel_agrees", lambda *sizes, **_: agrees(*sizes[:2], "cpu", *sizes[3:]))
    assert kernel_works(OnGpu()) is works  # type: ignore[arg-type]


def test_no_kernel_on_a_cpu_or_in_float32(monkeypatch: Any) -> None:
    monkeypatch.setattr(packing, "_kernel_agrees", lambda *_: True)
    assert kernel_works(OnGpu())  # type: ignore[arg-type]
    for name, value in (("device", torch.device("cpu")), ("dtype", torch.float32)):
        with monkeypatch.context() as changed:
            changed.setattr(OnGpu, name, value)
            assert not kernel_works(OnGpu())  # type: ignore[arg-type]


def test_a_batch_is_started_before_the_last_one_is_fetched(tiny_bert: Path, load: Load, monkeypatch: Any) -> None:
    model, log = load(tiny_bert, k_passage=3), []
    represent = model.reader.represent

    def logged(prepared: Any, rows: list[int]) -> Any:
        log.append(("started", len(rows)))
        fetch = represent(prepared, rows)

        def logged_fetch() -> Any:
            log.append(("fetched", len(rows)))
            return fetch()

        return logged_fetch

    monkeypatch.setattr(model.reader, "represent", logged)
    model.encode(TEXTS[:5], batch_size=2)
    order = ["started", "started", "fetched", "started", "fetched", "fetched"]
    assert log == list(zip(order, [2, 2, 2, 1, 2, 1], strict=True))


def test_no_model_returns_keys_and_values(any_model: DiffRetriever) -> None:
    """For 16,384 tokens of an 8B model they would take gigabytes."""
    prepared = any_model.prepare(TEXTS, "passage")
    seen: list[Any] = []
    hook = any_model._backbone.model.base_model.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        any_model.represent(prepared)
    finally:
        hook.remove()
    assert seen
    assert all(output.get("past_key_values") is None for output in seen)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_the_kernel_agrees_with_padded_batches(tiny_bert: Path) -> None:
    model = DiffRetriever.from_pretrained(tiny_bert, k_passage=3, device="cuda", dtype="bfloat16")
    packed = model.forward_masks(TEXTS)
    model._backbone.model.set_attn_implementation("sdpa")
    np.testing.assert_allclose(packed.hidden, model.forward_masks(TEXTS).hidden, atol=0.1)


@pytest.mark.parametrize("padding", [0, 5])
def test_padded_batches_still_run(any_model: DiffRetriever, padding: int) -> None:
    """Code like training calls ``hidden_states`` on a model that packs, with padding or without."""
    backbone, layout = any_model._backbone, any_model.layout("passage")
    ids = torch.randint(5, 50, (3, 20), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    empty = slice(0, padding) if backbone.pad_left else slice(20 - padding, 20)
    mask[1, empty] = 0
    assert backbone.packs
    with torch.inference_mode():
        padded = backbone.hidden_states(ids, mask, layout.k + len(layout.tail))
        backbone.model.set_attn_implementation("eager")
        try:
            expected = backbone.hidden_states(ids, mask, layout.k + len(layout.tail))
        finally:
            backbone.pack()
    torch.testing.assert_close(padded[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=1e-4)
