"""Prompts, layouts and the cutting of texts; tests/conformance has the recorded ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.backbones.loading import load_tokenizer
from diffretriever_pyserini.model.config import RetrieverConfig
from diffretriever_pyserini.model.layout import (
    Layout,
    build_layout,
    chat_ids,
    special_ids,
    tail_ids,
    tokenize_texts,
)
from diffretriever_pyserini.model.prompts import prompt_for
from diffretriever_pyserini.model.resolve import resolve_config

from .conftest import Load, copy_folder, edit_json, save_masked_lm, wordpiece

LAYOUT = Layout(prefix=(1, 2), suffix=(3,), tail=(8, 9), k=2, mask_id=7, pad_id=0, max_length=6)


def test_assemble() -> None:
    assert LAYOUT.text_budget == 3
    assert LAYOUT.assemble([5, 6]) == [1, 2, 5, 6, 3, 7, 7, 8, 9]
    assert LAYOUT.assemble([4, 5, 6, 4, 5]) == [1, 2, 4, 5, 6, 3, 7, 7, 8, 9]  # masks and tail are not counted
    assert LAYOUT.assemble([]) == [1, 2, 3, 7, 7, 8, 9]


def test_max_length_can_only_shorten() -> None:
    assert LAYOUT.shortened(None, "x") is LAYOUT
    assert LAYOUT.shortened(100, "x").max_length == 6
    assert LAYOUT.shortened(4, "x").text_budget == 1
    with pytest.raises(ConfigError, match=r"x: max_length=3 leaves no token .* prompt alone has 3 tokens.*at least 4"):
        LAYOUT.shortened(3, "x")


def test_prompts() -> None:
    one = prompt_for("query", 1)
    assert one.user_prefix == 'Query: "'
    assert one.user_suffix.startswith('". Use one word to represent the query')
    assert one.assistant_prefix == 'The word is: "'
    assert prompt_for("passage", 4).assistant_prefix == 'The words are: "'
    assert "Use a few words" in prompt_for("passage", 16).user_suffix
    four = prompt_for("query", 4, "one")
    assert "Use four words" in four.user_suffix
    assert four.user_suffix.endswith("Make sure your words are in lowercase.")
    assert four.assistant_prefix == 'The words are: "'
    assert "Use 12 words" in prompt_for("query", 12, "three").user_suffix
    with pytest.raises(ConfigError):
        prompt_for("both", 1)


class TailTokenizer:
    """The part of a tokenizer that tail_ids uses, with one id per word."""

    def __init__(self, quote: list[int], vocabulary: dict[str, int], eos: int = 2):
        self.eos_token_id, self._quote, self._vocabulary = eos, quote, vocabulary

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert (text, add_special_tokens) == ('"', False)
        return {"input_ids": self._quote}

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary


@pytest.mark.parametrize(("n_tail", "tail"), [(0, []), (1, [5]), (2, [5, 6]), (3, [5, 6, 2]), (4, [5, 6, 2, 2])])
def test_tail(n_tail: int, tail: list[int]) -> None:
    assert tail_ids(TailTokenizer([5], {"<|im_end|>": 6}), n_tail) == tail


def test_missing_parts_of_the_tail_are_the_end_of_text() -> None:
    assert tail_ids(TailTokenizer([5, 5], {"<|im_end|>": 6}), 3) == [2, 6, 2]  # a quote of two tokens
    assert tail_ids(TailTokenizer([5], {}), 3) == [5, 2, 2]  # no end of turn
    assert tail_ids(TailTokenizer([5], {"<|eot_id|>": 2}), 3) == [5, 2, 2]  # the end of turn is the end of text


def test_masked_lm_layout() -> None:
    tokenizer = wordpiece()
    config = RetrieverConfig("x", "masked_lm", "b", k_query=3, max_length=20)
    layout = build_layout(config, tokenizer, "query")
    assert layout.assemble([10, 11]) == [2, 10, 11, 3, 4, 4, 4, 3]  # [CLS] text [SEP] MASK x 3 [SEP]
    fixed = config.replace(query_prefix_ids=(2, 30), query_suffix_ids=(31, 3))
    assert build_layout(fixed, tokenizer, "query").assemble([10])[:5] == [2, 30, 10, 31, 3]
    assert build_layout(fixed, tokenizer, "passage").prefix == (2,)
    with pytest.raises(ConfigError, match=r"no prompt 'few'"):
        build_layout(replace(config, prompt="few"), tokenizer, "query")


@pytest.mark.parametrize(
    ("name", "known", "mask"),
    [
        ("tiny-a2d-qwen3", "<|mask|>", 1405),
        ("tiny-a2d-qwen3", "<|MASK|>", 1405),
        ("tiny-a2d-qwen3", "", 1405),  # added: the next free id
        ("tiny-llada-moe", "<|mask|>", 1404),
        ("tiny-llada-moe", "", 156895),  # the id in the published model
    ],
)
def test_a_mask_that_the_tokenizer_does_not_name(
    name: str, known: str, mask: int, checkpoints: Path, tmp_path: Path
) -> None:
    folder = copy_folder(checkpoints / name, tmp_path / "base")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        edit_json(folder / file, mask_token=None)
    core = json.loads((folder / "tokenizer.json").read_text())
    kept = [token for token in core["added_tokens"] if token["content"] != "<|mask|>"]
    if known:
        kept = [token | {"content": token["content"].replace("<|mask|>", known)} for token in core["added_tokens"]]
    (folder / "tokenizer.json").write_text(json.dumps(core | {"added_tokens": kept}))
    config = resolve_config(str(folder), k_query=2)
    assert build_layout(config, load_tokenizer(config), "query").mask_id == mask
    assert build_layout(config.replace(mask_token_id=7), load_tokenizer(config), "query").mask_id == 7


def test_a_masked_lm_with_a_chat_template_is_prompted(tmp_path: Path) -> None:
    """dllm's ModernBERT models, whose turns have no special tokens; the separator stands for the end of text."""
    save_masked_lm(tmp_path, "modernbert", vocab_size=200)
    turns = "{% for m in messages %}({{ m.role }}) {{ m.content }}\n{% endfor %}(answer) "
    (tmp_path / "chat_template.jinja").write_text(turns)
    model = DiffRetriever.from_pretrained(tmp_path, k_query=3)
    layout, tokenizer = model.layout("query"), model.tokenizer
    assert (model.config.prompt, model.config.max_length) == ("auto", 512)
    assert len(layout.prefix) > 20, "the system turn"
    assert tokenizer.convert_ids_to_tokens(list(layout.tail)) == ['"', "[SEP]", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(layout.suffix[-1]) == '"'
    reps = model.encode(["dense retrieval", "the index"], side="query")
    assert np.abs(reps.vectors[0] - reps.vectors[1]).max() > 0.01
    plain = DiffRetriever.from_pretrained(tmp_path, k_query=3, prompt="none")
    assert plain.layout("query").assemble([9]) == [2, 9, 3, 4, 4, 4, 3]


def test_chat_layout_needs_a_prompt_a_mask_and_a_template(tiny_dream: Path, load: Load) -> None:
    model = load(tiny_dream)
    config = model.config
    with pytest.raises(ConfigError, match=r"prompt='none' is for masked language models"):
        build_layout(config.replace(prompt="none"), model.tokenizer, "query")
    without = SimpleNamespace(mask_token_id=None, chat_template=None)
    with pytest.raises(ConfigError, match=r"no mask token .* set mask_token_id"):
        build_layout(replace(config, mask_token_id=None), without, "query")
    with pytest.raises(ConfigError, match=r"no chat template"):
        build_layout(config, without, "query")
    drops = SimpleNamespace(chat_template="x", apply_chat_template=lambda *_, **__: "hello")
    with pytest.raises(ConfigError, match=r"drops or changes"):
        chat_ids(drops, prompt_for("query", 1), "x")
    model.tokenizer.chat_template, whole = "{% if %}", model.tokenizer.chat_template
    try:
        with pytest.raises(ConfigError, match=r"x: the chat template of its tokenizer is broken \("):
            chat_ids(model.tokenizer, prompt_for("query", 1), "x")
    finally:
        model.tokenizer.chat_template = whole


def test_a_special_token_outside_the_vocabulary_has_no_id() -> None:
    assert special_ids(SimpleNamespace(all_special_ids=[3, None, 1])) == {1, 3}


@given(st.text(max_size=300), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_texts_are_cut_as_if_tokenised_whole(text: str, budget: int) -> None:
    tokenizer = wordpiece()
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenize_texts(tokenizer, [text, "x", text], budget) == [
        whole[:budget],
        tokenizer("x")["input_ids"],
        whole[:budget],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 50_000,
        " " * 50_000 + "index",
        "dense " * 10_000,
        "日" * 20_000,
        ("b" * 105 + " ")
        * 500,  # unknown words; the clip at 4,224 leaves 90 letters, which are tokenised letter by letter
        ("b" * 90 + " ") * 300,
    ],
)
@pytest.mark.parametrize("budget", [3, 100, 130])
def test_clipping_a_long_text_changes_nothing(text: str, budget: int) -> None:
    tokenizer = wordpiece()
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenize_texts(tokenizer, [text], budget) == [whole[:budget]]


@pytest.mark.parametrize(
    "text", ["a" * 60_000, " " * 60_000, "\n " * 30_000, "é" * 40_000, "12" * 20_000, "Ab-" * 20_000]
)
def test_clipping_with_byte_level_bpe(text: str, tiny_dream: Path, load: Load) -> None:
    tokenizer = load(tiny_dream).tokenizer
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    for budget in (2, 66, 300):
        assert tokenize_texts(tokenizer, [text], budget) == [whole[:budget]]


def test_a_text_that_never_fills_the_budget_is_read_up_to_a_limit() -> None:
    tokenizer = wordpiece()
    word = tokenizer("index", add_special_tokens=False)["input_ids"]
    assert tokenize_texts(tokenizer, [" " * (1 << 18) + "index", " " * 200_000 + "index"], 9) == [[], word]


def test_no_texts() -> None:
    assert tokenize_texts(wordpiece(), [], 5) == []


@pytest.mark.parametrize("role", ["cls_token", "sep_token"])
def test_a_tokenizer_without_a_special_token_is_named(tiny_bert: Path, tmp_path: Path, role: str) -> None:
    folder = copy_folder(tiny_bert, tmp_path / "copy")
    edit_json(folder / "tokenizer_config.json", **{role: None})
    with pytest.raises(ConfigError, match=rf"copy: its tokenizer has no {role}"):
        DiffRetriever.from_pretrained(folder)


@pytest.mark.parametrize("split", [None, False, True])
def test_special_tokens_in_a_text(tiny_dream: Path, split: bool | None) -> None:
    """They are read as tokens, as in the paper's code, or as characters; those of the prompt are always tokens."""
    model = DiffRetriever.from_pretrained(str(tiny_dream), split_special_tokens=split)
    plain = DiffRetriever.from_pretrained(str(tiny_dream))
    end = plain.tokenizer.convert_tokens_to_ids("<|im_end|>")
    (ids,) = tokenize_texts(model.tokenizer, ["the tower is <|im_end|> high"], 64)
    assert (end in ids) is not bool(split)
    assert model.tokenizer.decode(ids) == "the tower is <|im_end|> high"
    assert model.prepare.layouts == plain.prepare.layouts
    assert end in [*plain.prepare.layouts["query"].prefix, *plain.prepare.layouts["query"].suffix]
    assert (model.provenance.passage_fingerprint == plain.provenance.passage_fingerprint) is not bool(split)
