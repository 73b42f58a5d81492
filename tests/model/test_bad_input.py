"""Odd texts, invalid settings and models that return NaN give a clear error or a harmless result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffretriever_pyserini import ConfigError, DiffRetriever, InputError, NumericalError, resolve_config
from diffretriever_pyserini.model.tokenization import Preparer

from .conftest import Load, assert_close, copy_folder, edit_weights

MEGABYTES_10 = 10_000_000


@pytest.mark.parametrize("text", ["", " \n\t ", "the of and", "?!...,", "!", "\0", "\u200b", "\ufeff"])
def test_texts_without_content_have_vectors_and_no_terms(any_model: DiffRetriever, text: str) -> None:
    reps = any_model.encode([text, "dense retrieval"])
    assert np.linalg.norm(reps.vectors[0, 0]) == pytest.approx(1, abs=1e-5)
    assert np.isfinite(reps.vectors).all()
    assert set(reps.weights[0].indices) <= set(any_model.prepare.content(text))


@pytest.mark.parametrize("text", ["", "the of and", "! . ?"])
def test_nothing_but_stopwords_and_punctuation_has_no_terms(any_model: DiffRetriever, text: str) -> None:
    assert any_model.encode([text]).impacts == [{}]


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_dream"])
@pytest.mark.parametrize(
    "pattern", ["retrieval of dense words ", "a", "😀", " ", "? ", "<|mask|>", "\ud800"], ids=ascii
)
def test_ten_megabytes_equal_the_cut_text(request: pytest.FixtureRequest, load: Load, model: str, pattern: str) -> None:
    """Text beyond the token budget and beyond max_lexical_chars has no effect."""
    retriever = load(request.getfixturevalue(model), k_query=2, k_passage=3, max_length=160)
    text = (pattern * (MEGABYTES_10 // len(pattern) + 1))[:MEGABYTES_10]
    cut = text[: retriever.config.max_lexical_chars]
    long, expected = retriever.encode([text]), retriever.encode([cut])
    assert long.vectors.tobytes() == expected.vectors.tobytes()
    assert long.impacts == expected.impacts


@pytest.mark.parametrize("odd", ["a\ud800b", "\udfff", "x\udc80y dense"])
def test_lone_surrogates_are_replaced(any_model: DiffRetriever, odd: str) -> None:
    replaced = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in odd)
    reps, expected = any_model.encode([odd]), any_model.encode([replaced])
    assert reps.vectors.tobytes() == expected.vectors.tobytes()
    assert reps.impacts == expected.impacts


def test_nul_bytes_and_control_characters_are_harmless(any_model: DiffRetriever) -> None:
    texts = ["dense\0retrieval", "\0\0\0", "\x1b[31mred\x1b[0m", "a\u2028b\u2029c\x85d", "\r\n"]
    reps = any_model.encode(texts)
    assert np.isfinite(reps.vectors).all()
    for impacts in reps.impacts:
        for term in impacts:
            assert not any(c <= " " for c in term)
            assert any_model.term_names.name(any_model.term_names.row(term)) == term


@pytest.mark.parametrize("mask", ["<|mask|>", "[MASK]", "<|mdm_mask|>"])
def test_a_text_may_contain_the_mask_token(any_model: DiffRetriever, mask: str) -> None:
    """The K masks are known by position, so a mask in the text is an ordinary token and never a term."""
    texts = [f"dense {mask} retrieval", mask, "dense retrieval"]
    reps = any_model.encode(texts)
    mask_id = any_model.layout("passage").mask_id
    assert reps.weights[:, [mask_id]].nnz == 0
    assert_close(any_model.encode(texts, batch_size=1), reps)
    layout = any_model.layout("passage")
    ids = [any_model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    for i, text_ids in enumerate(ids):
        hidden, *_ = any_model.reader.forward([text_ids], layout)
        unit = torch.nn.functional.normalize(hidden.detach(), dim=-1).numpy()[0]
        kept = np.any(reps.vectors[i] != 0, axis=1)
        np.testing.assert_allclose(reps.vectors[i, kept], unit[kept], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "one text"}, InputError, r"list of texts; put a single text in brackets"),
        ({"texts": None}, InputError, "list of texts"),
        ({"texts": (text for text in ["a"])}, InputError, "list of texts"),
        ({"texts": ["a", None]}, InputError, "text 1 is NoneType, not a string: None"),
        ({"texts": ["a", "b", 7]}, InputError, "text 2 is int, not a string: 7"),
        ({"texts": [b"bytes"]}, InputError, "text 0 is bytes"),
        ({"texts": ["a"], "side": "document"}, ConfigError, '"query" or "passage", not \'document\''),
        ({"texts": ["a"], "batch_size": 0}, InputError, "batch_size=0 must be a whole number of at least 1"),
        ({"texts": ["a"], "batch_size": -3}, InputError, "batch_size=-3"),
        ({"texts": ["a"], "batch_size": 1.5}, InputError, "batch_size=1.5"),
    ],
)
@pytest.mark.parametrize("method", ["encode", "forward_masks"])
def test_anything_but_a_list_of_texts_is_refused(
    tiny_bert: Path, load: Load, method: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(load(tiny_bert), method)(**arguments)


def test_max_length_below_the_prompt_names_the_number_needed(any_model: DiffRetriever) -> None:
    layout = any_model.layout("passage")
    prompt = len(layout.prefix) + len(layout.suffix)
    with pytest.raises(
        ConfigError, match=rf"passage side: max_length={prompt} leaves no token .* at least {prompt + 1}"
    ):
        any_model.encode(["a"], max_length=prompt)
    assert any_model.encode(["a b c"], max_length=prompt + 1).vectors.shape == (1, 3, any_model.dimension)
    for impossible in (0, -5):
        with pytest.raises(ConfigError, match=rf"max_length={impossible}"):
            any_model.encode(["a"], max_length=impossible)
    query = any_model.layout("query")
    needed = len(query.prefix) + len(query.suffix) + 1
    with pytest.raises(ConfigError, match=rf"query side: max_length=2 leaves no token .* at least {needed}"):
        DiffRetriever.from_pretrained(any_model.config.backbone, k_query=2, max_length=2)


def test_nan_in_the_weights_names_the_text(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_bert, tmp_path / "damaged")
    row = 5  # the letter "a"
    edit_weights(folder, lambda weights: weights["bert.embeddings.word_embeddings.weight"][row].fill_(float("nan")))
    edit_weights(folder, lambda weights: weights.update({"cls.predictions.decoder.weight": torch.ones(
        weights["bert.embeddings.word_embeddings.weight"].shape)}))  # fmt: skip
    model = DiffRetriever.from_pretrained(folder)
    with pytest.raises(NumericalError, match=r"NaN or infinity for text .*weights are damaged"):
        model.encode(["b", "x a x", "c"])


def test_an_infinite_output_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_bert, tmp_path / "damaged")
    edit_weights(folder, lambda weights: weights["cls.predictions.bias"][3:4].fill_(float("inf")))
    model = DiffRetriever.from_pretrained(folder)
    for method in (model.encode, model.forward_masks, model.encode_queries_cached):
        with pytest.raises(NumericalError, match=r"text 0 \('words'\).*dtype='float32'"):
            method(["words"])


def test_harmless_containers_and_numbers_are_accepted(load: Load, tiny_bert: Path) -> None:
    model = load(tiny_bert, k_passage=3)
    texts = ["dense retrieval", "the index"]
    expected = model.encode(texts, max_length=64, batch_size=2).vectors
    for odd in (tuple(texts), np.array(texts), np.array(texts, dtype=object), dict.fromkeys(texts).keys()):
        assert model.encode(odd, max_length=64.0, batch_size=np.int64(2)).vectors.tobytes() == expected.tobytes()
    hidden = model.forward_masks(texts, batch_size=np.int64(2), max_length=np.int32(64)).hidden
    assert hidden.tobytes() == model.forward_masks(texts, max_length=64).hidden.tobytes()


@pytest.mark.parametrize("odd", [{"a": "x"}, {"x", "y"}, frozenset("x"), b"x", "x", iter(["x"]), None, 5])
def test_containers_without_order_are_refused(load: Load, tiny_bert: Path, odd: Any) -> None:
    with pytest.raises(InputError, match="encode takes a list of texts"):
        load(tiny_bert, k_passage=3).encode(odd)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", 2.5), ("batch_size", True), ("max_length", 6.5)]
)
def test_invalid_numbers_are_named(load: Load, tiny_bert: Path, name: str, value: Any) -> None:
    with pytest.raises((InputError, ConfigError), match=f"{name}={value} must be a whole number"):
        load(tiny_bert, k_passage=3).encode(["x"], **{name: value})


def test_a_panic_at_a_text_names_the_tokenizer(tiny_dream: Path) -> None:
    class PanicException(BaseException):
        """What a panic of a Rust library is to Python: no Exception."""

    config = resolve_config(str(tiny_dream))
    prepare = Preparer(config)

    def panics(*_: object, **__: object) -> None:
        raise PanicException("index out of range")

    prepare.tokenizer = panics
    with pytest.raises(ConfigError, match=r"failed at the text 'text' \(PanicError: index out of range\)"):
        prepare(["text"], "passage")
