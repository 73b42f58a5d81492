"""Factors for how often a term occurs: the formula, the counts, and that nothing changes without them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffretriever_pyserini import ConfigError, DiffRetriever, resolve_config
from diffretriever_pyserini.model.config import LexicalTf
from diffretriever_pyserini.model.method import tf_factors
from diffretriever_pyserini.model.tokenization import Preparer
from diffretriever_pyserini.training.data.batches import Collator

TF = {"k1": 1.2, "b": 0.5, "average_length": 8}
TEXT = "The fox saw another fox, and foxes saw the dog."  # saw 2, fox 2, another, foxes, dog: seven content words


def one(count: float, length: int, tf: LexicalTf, side: str = "passage") -> float:
    return float(tf_factors(np.array([count]), length, tf, side)[0])


@given(
    k1=st.floats(0.01, 100),
    b=st.floats(0, 1),
    average=st.integers(1, 10_000),
    length=st.integers(1, 100_000),
    count=st.integers(1, 10_000),
)
def test_more_occurrences_never_lower_a_weight(k1: float, b: float, average: int, length: int, count: int) -> None:
    tf = LexicalTf(k1, b, average)
    assert one(1, average, tf) == pytest.approx(1, rel=1e-5), "once in a text of average length changes nothing"
    assert one(count + 1, length, tf) >= one(count, length, tf) * (1 - 1e-6)
    assert one(count, length + 1, tf) <= one(count, length, tf) * (1 + 1e-6)
    assert one(count, length, tf) < (k1 + 1) * (1 + 1e-6)


def test_the_formula() -> None:
    tf = LexicalTf(**TF)
    assert one(2, 7, tf) == pytest.approx(2 * 2.2 / (2 + 1.2 * (1 - 0.5 + 0.5 * 7 / 8)))
    assert one(3, 7, tf, "query") == 3
    assert one(4, 7, LexicalTf(query_exponent=0.5), "query") == 2
    assert one(4, 7, LexicalTf(query_exponent=0), "query") == 1


def test_occurrences_are_counted_per_term(tiny_bert: Path) -> None:
    prepare = Preparer(resolve_config(str(tiny_bert)))
    plain = prepare.content(TEXT)
    ids, counts, length = prepare.content.counted(TEXT)
    assert ids == plain and length == 7
    by_word = {word: prepare.content(word) for word in ("fox", "saw", "dog", "another", "foxes")}
    for term, count in zip(ids, counts, strict=True):
        times = {"fox": 2, "saw": 2}
        assert count == sum(times.get(word, 1) for word, pieces in by_word.items() if term in pieces)


@pytest.mark.parametrize("side", ["query", "passage"])
def test_impacts_are_multiplied(tiny_bert: Path, side: str) -> None:
    options: dict[str, Any] = {"impact_scale": 10_000, "k_query": 2, "k_passage": 2}  # fine enough to compare
    plain = DiffRetriever.from_pretrained(str(tiny_bert), **options)
    model = DiffRetriever.from_pretrained(str(tiny_bert), lexical_tf=TF, **options)
    texts = [TEXT, "fox", "the of", "dog fox dog dog"]
    before, after = (one.encode(texts, side=side) for one in (plain, model))
    assert (before.vectors == after.vectors).all()
    for i, text in enumerate(texts):
        ids, counts, length = model.prepare.content.counted(text)
        factors = dict(zip(ids, tf_factors(np.array(counts), length, LexicalTf(**TF), side).tolist(), strict=True))
        row, expected = after.weights[i], before.weights[i]
        assert set(row.indices) == set(expected.indices) or text != TEXT
        for term, impact in zip(expected.indices.tolist(), expected.data.tolist(), strict=True):
            assert abs(row[0, term] - impact * factors[term]) <= 0.51 * (1 + factors[term])


def test_an_encoder_without_factors_is_the_one_of_before(tiny_bert: Path) -> None:
    plain = DiffRetriever.from_pretrained(str(tiny_bert)).provenance
    model = DiffRetriever.from_pretrained(str(tiny_bert), lexical_tf={}).provenance
    assert "lexical_tf" not in plain.readout and model.readout["lexical_tf"]["average_length"] == 60
    assert plain.fingerprint != model.fingerprint
    assert plain.passage_fingerprint == model.passage_fingerprint, "the vectors are the same"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"k1": 0}, r"lexical_tf=.* must be a mapping with k1 \(a number above 0 and at most 100\)"),
        ({"k2": 1}, "lexical_tf=.* must be a mapping with k1"),
        ({"b": 1.5}, "lexical_tf=.* must be a mapping with"),
        ("yes", "lexical_tf='yes' must be a mapping with"),
    ],
)
def test_wrong_settings(tiny_bert: Path, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_config(str(tiny_bert), lexical_tf=value)


def test_expansion_has_no_counts(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match="lexical_tf counts terms of the text, and lexical_terms=vocabulary adds"):
        resolve_config(str(tiny_bert), lexical_tf={}, lexical_terms="vocabulary")


def test_settings_in_a_file(tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(f"backbone: {tiny_bert}\nlexical_tf:\n  k1: 2\n  query_exponent: 0.5\n")
    config = resolve_config(str(tmp_path / "m.yaml"))
    assert config.lexical_tf == LexicalTf(k1=2, query_exponent=0.5)
    assert json.loads(json.dumps(config.to_dict()))["lexical_tf"]["k1"] == 2


def test_training_has_the_same_factors(tiny_bert: Path) -> None:
    config = resolve_config(str(tiny_bert), lexical_tf=TF)
    prepare = Preparer(config)
    collator = Collator(prepare.tokenizer, prepare.layouts, False, config=config)
    batch, prepared = collator.side([TEXT, "fox"], "passage"), prepare([TEXT, "fox"], "passage")
    assert prepared.factors is not None and prepared.content is not None
    for row in range(2):
        count = len(prepared.content[row])
        assert batch["content"][row, :count].tolist() == prepared.content[row].tolist()
        assert batch["factors"][row, :count].tolist() == prepared.factors[row].tolist()
        assert not batch["factors"][row, count:].any()
    without_terms = collator.side(["the of", ""], "query")
    assert without_terms["content"].tolist() == [[-1], [-1]] and without_terms["factors"].tolist() == [[0], [0]]


@pytest.mark.parametrize("times", [1, 20])
def test_scores_stay_whole_numbers(times: int) -> None:
    """Lucene adds scores as float32, in which whole numbers are exact up to 2^24: a long text as its own query."""
    model = DiffRetriever.from_pretrained("diffretriever", lexical_tf={})
    words = sorted(token for token in model.tokenizer.get_vocab() if token.isalpha() and len(token) > 4)
    text = " ".join(words[:600:3] * times)
    query, passage = (model.encode([text], side=side).impacts[0] for side in ("query", "passage"))
    assert len(query) > 100 and max(passage.values()) <= 1024
    assert sum(query[term] * passage.get(term, 0) for term in query) < 1 << 24
    assert sum(query.values()) <= 15_000 + len(query) / 2


def test_a_query_of_usual_length_is_not_scaled_down() -> None:
    model = DiffRetriever.from_pretrained("diffretriever", lexical_tf={})
    plain = DiffRetriever.from_pretrained("diffretriever")
    text = "which language models predict masked positions of a text jointly and without an order"
    assert model.encode([text], side="query").impacts == plain.encode([text], side="query").impacts


def test_a_config_can_be_replaced(tiny_bert: Path) -> None:
    config = resolve_config(str(tiny_bert)).replace(lexical_tf={"k1": 1})
    assert config.lexical_tf == LexicalTf(k1=1) and dataclasses.replace(config, lexical_tf=None).lexical_tf is None
