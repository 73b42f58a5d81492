"""Token layouts, prompts and content tokens against the recorded ones: every id exact."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from diffretriever_pyserini.model.layout import tokenize_texts
from diffretriever_pyserini.model.lexical import PUNCTUATION, content_words, split_words, stopwords
from diffretriever_pyserini.model.prompts import prompt_for

from .conftest import BASES, Goldens, side_and_k

KEYS = ("q_k1", "q_k4", "p_k1", "p_k4", "p_k16")


def test_prompts_are_rewritten_to_k(goldens: Goldens) -> None:
    cases = goldens.facts("prompt_adaptation")
    assert len(cases) == 36
    for case in cases:
        variant, side, k = case.pop("variant"), case.pop("side"), case.pop("K")
        assert asdict(prompt_for(side, k, variant)) == case


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize("key", KEYS)
def test_fixed_ids_and_tail(goldens: Goldens, model: str, key: str) -> None:
    facts = goldens.facts(f"{model}.tokenisation")["sides"][key]
    layout = goldens.model(model, key).layout(side_and_k(key)[0])
    assert list(layout.prefix) == facts["prefix_ids"]
    assert list(layout.suffix) == facts["suffix_ids"]
    assert list(layout.tail) == facts["tail_ids"]
    assert layout.pad_id == facts["pad_token_id"]
    assert layout.text_budget == facts["budgets"]["128"]["max_text_tokens"]


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("max_length", (128, 512))
def test_sequences_and_padding(goldens: Goldens, model: str, key: str, max_length: int) -> None:
    case = goldens.case(f"{model}.tokenisation")
    retriever = goldens.model(model, key, max_length=max_length)
    layout = retriever.layout(side_and_k(key)[0])
    ids = [layout.assemble(i) for i in tokenize_texts(retriever.tokenizer, goldens.texts, layout.text_budget)]
    width = max(map(len, ids))
    padded = np.array([[layout.pad_id] * (width - len(row)) + row for row in ids])
    mask = np.array([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    np.testing.assert_array_equal(padded, case[f"{key}/ml{max_length}/input_ids"])
    np.testing.assert_array_equal(mask, case[f"{key}/ml{max_length}/attention_mask"])


def test_stopwords_and_punctuation(goldens: Goldens) -> None:
    facts = goldens.facts("stopwords")
    assert stopwords() == set(facts["english"])
    assert set(facts["punctuation"]) == PUNCTUATION


@pytest.mark.parametrize("model", (*BASES, "tiny-llama", "tiny-qwen2"))
def test_content_tokens(goldens: Goldens, model: str) -> None:
    from transformers import PreTrainedTokenizerFast

    from diffretriever_pyserini.model.lexical import ContentTokens

    tokens = ContentTokens(PreTrainedTokenizerFast.from_pretrained(goldens.folder / "checkpoints" / model))
    cases = goldens.facts(f"{model}.content_ids")
    assert len(cases) == len(goldens.texts)
    for case, text in zip(cases, goldens.texts, strict=True):
        assert split_words(text) == case["tokens"]
        assert content_words(text) == case["words"]
        assert tokens(text) == case["content_token_ids"]
