"""Read-outs on every causal architecture, against transformers' own class on one text at a time and without a cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffretriever_pyserini import DiffRetriever, resolve_config
from diffretriever_pyserini.errors import ConfigError, NumericalError
from diffretriever_pyserini.model import model_cache

from .conftest import (
    CHAT_TEMPLATE,
    TEXTS,
    Load,
    assert_close,
    copy_folder,
    edit_json,
    edit_weights,
    save_causal,
    wordpiece,
)

KINDS = ("qwen2", "qwen3", "llama", "mistral", "phi3")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE


@pytest.fixture(scope="module", params=KINDS)
def causal(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder and model of one architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, save_causal(folder, request.param)


def outputs(model: Any, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Final hidden states [L, H] and logits [L, V] of one sequence."""
    with torch.inference_mode():
        result = model(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return result.hidden_states[-1][0].numpy(), result.logits[0].numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def sequences(retriever: DiffRetriever, side: str) -> list[list[int]]:
    prepared = retriever.prepare(TEXTS, side)
    return [prepared.layout.assemble(prepared.ids[i].tolist()) for i in range(len(TEXTS))]


def test_words_are_read_one_by_one(causal: tuple[Path, Any]) -> None:
    folder, model = causal
    settings = {"readout": "next_token", "k_query": 5, "k_passage": 1, "max_length": 128}
    every = DiffRetriever.from_pretrained(folder, cut_at_stop=False, **settings)
    zero_shot = DiffRetriever.from_pretrained(folder, **settings)
    raw, reps = every.forward_masks(TEXTS), zero_shot.encode(TEXTS, side="query")
    quote = zero_shot.tokenizer.convert_tokens_to_ids('"')
    assert zero_shot.reader.stop_ids == {*zero_shot.tokenizer.all_special_ids, quote}
    for i, ids in enumerate(sequences(every, "query")):
        going = True
        for k in range(5):
            hidden, logits = outputs(model, ids)
            np.testing.assert_allclose(raw.hidden[i, k], hidden[-1], atol=1e-4)
            np.testing.assert_allclose(raw.logits[i, k], logits[-1], atol=2e-4)
            np.testing.assert_allclose(reps.vectors[i, k], unit(hidden[-1]) * going, atol=1e-5)
            ids.append(int(logits[-1].argmax()))
            going = going and ids[-1] not in zero_shot.reader.stop_ids
    assert_close(zero_shot.encode(TEXTS, side="query", batch_size=1), reps)
    one = every.encode(TEXTS, side="passage")
    last = [unit(outputs(model, ids)[0][-1]) for ids in sequences(every, "passage")]
    np.testing.assert_allclose(one.vectors[:, 0], last, atol=1e-5)
    assert np.linalg.norm(one.vectors[0] - one.vectors[1]) > 0.01
    weights = every.encode(TEXTS, side="query").weights.toarray()
    for i, text in enumerate(TEXTS):  # terms of a text are the maximum over its positions
        expected = np.zeros(every.vocab_size)
        own = every.prepare.content(text)
        expected[own] = np.trunc(100 * np.log1p(np.maximum(raw.logits[i][:, own], 0))).max(axis=0)
        assert np.abs(weights[i] - expected).max() <= 1


@pytest.mark.parametrize("readout", ["mean", "last_token"])
def test_one_vector_per_text(causal: tuple[Path, Any], readout: str) -> None:
    folder, model = causal
    retriever = DiffRetriever.from_pretrained(folder, readout=readout, max_length=16, passage_prefix="word: ")
    tokenizer = retriever.tokenizer
    first = [tokenizer.cls_token_id] if model.config.model_type == "llama" else []
    last = [tokenizer.eos_token_id] if readout == "last_token" else []
    reps = retriever.encode(TEXTS, side="passage")
    for i, text in enumerate(TEXTS):
        ids = tokenizer(f"word: {text}", add_special_tokens=False)["input_ids"]
        hidden, _ = outputs(model, [*first, *ids[: 16 - len(first) - len(last)], *last])
        expected = hidden.mean(axis=0) if readout == "mean" else hidden[-1]
        np.testing.assert_allclose(reps.vectors[i, 0], unit(expected), atol=1e-5)
    assert_close(retriever.encode(TEXTS, side="passage", batch_size=1), reps)
    assert np.linalg.norm(reps.vectors[0] - reps.vectors[1]) > 0.01
    assert reps.weights.nnz == 0 and reps.impacts == [{}] * len(TEXTS)
    queries = retriever.encode(TEXTS, side="query")  # without the prefix
    if readout == "mean" and not first:
        assert not queries.pooled[TEXTS.index("")].any()
        assert not retriever.encode(["", ""], side="query").vectors.any()
    assert np.abs(queries.pooled[0] - reps.pooled[0]).max() > 0.01
    model_of = retriever._backbone.model
    assert retriever._backbone.packs is (model.config.model_type != "mistral"), "a window sees a part of a packed row"
    assert model_of.get_output_embeddings() is None, "no memory for a head that is not read"
    model_of.set_attn_implementation("sdpa")
    try:
        assert_close(retriever.encode(TEXTS, side="passage"), reps)
    finally:
        retriever._backbone.pack()


def test_texts_whose_answer_has_ended_leave_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_causal(tmp_path, "qwen2", seed=11)
    retriever = DiffRetriever.from_pretrained(tmp_path, readout="next_token", k_query=8, k_passage=8)
    backbone: Any = retriever._backbone
    inputs: list[tuple[int, ...]] = []
    original = backbone.last_states
    monkeypatch.setattr(backbone, "last_states", lambda ids, *more: inputs.append(ids.shape) or original(ids, *more))
    rows: list[int] = []
    head = backbone.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[:-1].numel()))
    texts = [*TEXTS, *(f"query {i}" for i in range(10))]
    try:
        kept = np.any(retriever.encode(texts, side="query").vectors != 0, axis=2)
    finally:
        hook.remove()
    assert len(set(kept.sum(axis=1))) > 1, "answers of several lengths, or this shows nothing"
    sizes = [int(count) for count in kept.sum(axis=0) if count]
    assert [shape[0] for shape in inputs] == sizes
    assert all(shape[1] == 1 for shape in inputs[1:]), "one prefill, then one token per text"
    assert rows == sizes[:7], "the head runs on the last position, and all of it only where a word follows"


def test_a_model_without_a_head(tmp_path: Path, tiny_bert: Path) -> None:
    from transformers import AutoModel

    save_causal(tmp_path / "whole", "qwen2")
    copy_folder(tmp_path / "whole", tmp_path / "base")
    AutoModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "base")
    copy_folder(tiny_bert, tmp_path / "bert")
    edit_weights(tmp_path / "bert", lambda w: [w.pop(key) for key in list(w) if key.startswith("cls.")])
    pairs = (("whole", "base", "mean"), ("whole", "base", "last_token"), (tiny_bert, "bert", "mean"))
    for whole, base, readout in pairs:
        expected = DiffRetriever.from_pretrained(tmp_path / whole, readout=readout).encode(TEXTS, side="query")
        actual = DiffRetriever.from_pretrained(tmp_path / base, readout=readout)
        np.testing.assert_array_equal(actual.encode(TEXTS, side="query").vectors, expected.vectors)
        assert actual.vocab_size == expected.weights.shape[1]
    with pytest.raises(ConfigError, match=r"lacks weights lm_head\.weight"):
        DiffRetriever.from_pretrained(tmp_path / "base", readout="next_token")
    edit_weights(tmp_path / "base", lambda w: w.pop("norm.weight"))
    with pytest.raises(ConfigError, match=r"lacks weights model\.norm\.weight"):
        DiffRetriever.from_pretrained(tmp_path / "base", readout="mean")


def test_diffusion_models_without_a_head(tiny_dream: Path, tiny_llada: Path, tmp_path: Path) -> None:
    for folder, head in ((tiny_dream, "lm_head.weight"), (tiny_llada, "model.transformer.ff_out.weight")):
        copy = copy_folder(folder, tmp_path / folder.name)
        edit_weights(copy, lambda w, head=head: w.pop(head))
        expected = DiffRetriever.from_pretrained(folder, readout="mean").encode(TEXTS)
        actual = DiffRetriever.from_pretrained(copy, readout="mean").encode(TEXTS)
        np.testing.assert_array_equal(actual.vectors, expected.vectors)
        with pytest.raises(ConfigError, match=r"lacks weights lm_head\.weight"):
            DiffRetriever.from_pretrained(copy)


def test_the_mean_of_a_masked_lm_has_its_special_tokens(tiny_bert: Path, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForMaskedLM

    folder, tokenizer = copy_folder(tiny_bert, tmp_path / "bert"), wordpiece()
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    special = [("[CLS]", first), ("[SEP]", last)]
    around = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    tokenizer.backend_tokenizer.post_processor = around
    tokenizer.save_pretrained(folder)
    reps = DiffRetriever.from_pretrained(folder, readout="mean", max_length=20).encode(TEXTS, side="query")
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert)
    for vector, text in zip(reps.pooled, TEXTS, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:18]
        hidden, _ = outputs(model, [first, *ids, last])
        np.testing.assert_allclose(vector, unit(hidden.mean(axis=0)), atol=1e-5)


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, tiny_bert: Path) -> None:
    save_causal(tmp_path, "qwen2")
    for folder, settings, message in (
        (tmp_path, {}, r"read-out mask does not fit the family causal: a causal model has no mask token"),
        (tiny_bert, {"readout": "next_token"}, r"predicts masked tokens, not the next one"),
        (tiny_bert, {"readout": "last_token"}, r"the last one has no special role; use readout mask or mean"),
        (
            tmp_path,
            {"readout": "mean", "k_query": 2},
            r"one vector per text, so k_query and k_passage must be 1",
        ),
        (tmp_path, {"readout": "mean", "prompt": "few"}, r"has no prompt 'few'"),
        (tmp_path, {"readout": "next_token", "query_prefix": "a"}, r"query_prefix is for the read-outs mean and last"),
        (tmp_path, {"readout": "next_token", "denoising_steps": 2}, r"denoising_steps is for the read-out mask"),
        (tmp_path, {"readout": "first_token"}, r"readout"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve_config(str(folder), **settings)
    model = DiffRetriever.from_pretrained(tmp_path, readout="mean")
    with pytest.raises(ConfigError, match=r"its read-out mean gives one vector per text and no term weights"):
        model.forward_masks(["a"])


def test_an_end_of_text_that_the_tokenizer_adds_is_not_doubled(tmp_path: Path) -> None:
    """E5-mistral's tokenizer ends a text itself; others leave it to the read-out."""
    from tokenizers.processors import TemplateProcessing

    save_causal(tmp_path / "plain", "qwen2")
    folder, tokenizer = copy_folder(tmp_path / "plain", tmp_path / "adds"), wordpiece()
    tokenizer.eos_token = "[SEP]"
    end = [("[SEP]", tokenizer.sep_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=end)
    tokenizer.save_pretrained(folder)
    ids = [
        sequences(DiffRetriever.from_pretrained(each, readout="last_token"), "query")
        for each in (tmp_path / "plain", folder)
    ]
    assert ids[0] == ids[1] and ids[0][0][-1] == tokenizer.sep_token_id != ids[0][0][-2]


def test_read_outs_are_part_of_the_fingerprint(tmp_path: Path, load: Load) -> None:
    save_causal(tmp_path, "llama")
    plain = load(tmp_path, readout="last_token")
    same, others = (
        load(tmp_path, readout="last_token", append_eos=True),
        [
            load(tmp_path, readout="mean"),
            load(tmp_path, readout="next_token"),
            load(tmp_path, readout="last_token", append_eos=False),
            load(tmp_path, readout="last_token", passage_prefix="passage: "),
        ],
    )
    assert plain.fingerprint == same.fingerprint
    assert len({model.passage_fingerprint for model in (plain, *others)}) == 5
    query = load(tmp_path, readout="last_token", query_prefix="query: ")
    assert query.fingerprint != plain.fingerprint and query.passage_fingerprint == plain.passage_fingerprint
    assert model_cache.Weights.of(plain.config) == model_cache.Weights.of(others[0].config)
    assert model_cache.Weights.of(plain.config) != model_cache.Weights.of(others[1].config), "this one has the head"


def test_a_checkpoint_may_name_its_read_out(tmp_path: Path) -> None:
    save_causal(tmp_path, "qwen2")
    values = {"model_type": "causal", "n_gen_q_tokens": 3, "n_gen_p_tokens": 2, "readout": "next_token"}
    edit_json(tmp_path / "retriever_config.json", **values)
    config = resolve_config(str(tmp_path))
    assert (config.readout, config.k_query, config.k_passage, config.cut_at_stop) == ("next_token", 3, 2, False)
    assert DiffRetriever.from_pretrained(tmp_path).encode(["a"], side="query").vectors.any(axis=2).all()


def test_a_template_without_a_system_turn(tmp_path: Path) -> None:
    save_causal(tmp_path / "with", "qwen2")
    save_causal(tmp_path / "without", "qwen2", NO_SYSTEM)
    texts = []
    for name in ("with", "without"):
        retriever = DiffRetriever.from_pretrained(tmp_path / name, readout="next_token")
        texts.append(retriever.tokenizer.decode(retriever.layout("query").prefix))
    assert texts[0].count("[CLS]") == 2 and texts[1].count("[CLS]") == 1
    assert texts[0].replace("[SEP] [CLS] ", "").split() == texts[1].split()


def test_batches_of_a_token_budget(tmp_path: Path) -> None:
    """Empty texts have no tokens, and a batch that reads words is padded."""
    save_causal(tmp_path, "mistral")  # which does not pack
    model = DiffRetriever.from_pretrained(tmp_path, readout="mean")
    reps = model.represent(model.prepare(["", "", "the index"], "query"), token_budget=4)
    np.testing.assert_array_equal(reps.vectors.any(axis=2), [[False], [False], [True]])
    save_causal(tmp_path / "packs", "qwen2")
    model = DiffRetriever.from_pretrained(tmp_path / "packs", readout="next_token", k_query=2)
    prepared = model.prepare(["x", *["the index " * 50] * 2, *["x"] * 6], "query")
    budget = 3 * int(prepared.lengths.min())
    batches = list(model.reader.batches(prepared, 0, budget))
    assert max(map(len, batches)) > 1
    for batch in batches:
        assert len(batch) == 1 or len(batch) * int(prepared.lengths[batch].max()) <= budget


def test_an_adapter_of_a_model_without_a_head(tmp_path: Path) -> None:
    """RepLLaMA's adapter names the modules of the headless class."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    save_causal(tmp_path / "base", "llama")
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        adapted = get_peft_model(AutoModel.from_pretrained(tmp_path / "base"), lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    retriever = DiffRetriever.from_pretrained(tmp_path / "adapter", readout="last_token", query_prefix="query: ")
    ids = sequences(retriever, "query")[0]
    with torch.inference_mode():
        expected = adapted(input_ids=torch.tensor([ids])).last_hidden_state[0, -1].numpy()
    np.testing.assert_allclose(retriever.encode(TEXTS[:1], side="query").pooled[0], unit(expected), atol=1e-5)
    plain = DiffRetriever.from_pretrained(tmp_path / "base", readout="last_token", query_prefix="query: ")
    assert np.abs(plain.encode(TEXTS[:1], side="query").pooled[0] - unit(expected)).max() > 0.01


@pytest.mark.parametrize("readout", ["next_token", "mean", "last_token"])
def test_damaged_weights_name_the_text(tmp_path: Path, readout: str) -> None:
    save_causal(tmp_path, "qwen2")
    k = {"k_query": 3} if readout == "next_token" else {}
    retriever = DiffRetriever.from_pretrained(tmp_path, readout=readout, **k)
    index = retriever.tokenizer.convert_tokens_to_ids("dense")
    edit_weights(tmp_path, lambda w: w["model.embed_tokens.weight"][index].fill_(float("nan")))
    damaged = DiffRetriever.from_pretrained(tmp_path, readout=readout, **k)
    with pytest.raises(NumericalError, match=r"for text 1 \('dense'\)"):
        damaged.encode(["index", "dense", ""], side="query")


def test_another_readout_than_the_checkpoints_own_drops_its_prompt_and_k(
    causal: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = copy_folder(causal[0], tmp_path / "trained")
    ids = {f"{side}_{part}_ids": [5] for side in ("query", "passage") for part in ("prefix", "suffix")}
    values = {"model_type": "causal", "readout": "next_token", "n_gen_q_tokens": 3, "n_gen_p_tokens": 2} | ids
    (folder / "retriever_config.json").write_text(json.dumps(values))
    own = resolve_config(str(folder))
    assert (own.k_query, own.k_passage, own.query_prefix_ids) == (3, 2, (5,))
    other = resolve_config(str(folder), readout="last_token")
    assert (other.k_query, other.k_passage, other.query_prefix_ids) == (1, 1, None)
    plain = DiffRetriever.from_pretrained(causal[0], readout="last_token", max_length=own.max_length)
    again = DiffRetriever.from_pretrained(folder, readout="last_token")
    np.testing.assert_array_equal(plain.encode(TEXTS, side="query").vectors, again.encode(TEXTS, side="query").vectors)


def test_a_prefix_that_leaves_no_text_is_refused(causal: tuple[Path, Any]) -> None:
    settings = {"readout": "last_token", "query_prefix": "query text of many tokens: " * 3}
    with pytest.raises(ConfigError, match="the text prefix 'query text .* leaves no token for the text"):
        DiffRetriever.from_pretrained(causal[0], **settings).encode(TEXTS, side="query", max_length=6)


def test_full_attention_has_no_next_or_last_token(causal: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copy_folder(causal[0], tmp_path / "full")
    edit_json(folder / "config.json", is_causal=False)
    with pytest.raises(ConfigError, match="is_causal=false, and the read-out last_token is for causal attention"):
        DiffRetriever.from_pretrained(folder, readout="last_token")
    assert DiffRetriever.from_pretrained(folder, readout="mean").encode(TEXTS, side="query").vectors.shape[1] == 1
