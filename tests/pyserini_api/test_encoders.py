"""Our encoders behind Pyserini's interfaces, on a tiny real model."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever, DiffRetrieverDocumentEncoder, DiffRetrieverQueryEncoder
from diffretriever_pyserini.errors import ConfigError, InputError, ModelNotFoundError
from diffretriever_pyserini.model.lexical import strongest
from diffretriever_pyserini.pyserini_api.encoders import join_titles

TEXTS = ["the quick brown fox", "masked positions are predicted jointly", ""]


@pytest.fixture(scope="module")
def model(tiny_dream: Path) -> DiffRetriever:
    return DiffRetriever.from_pretrained(str(tiny_dream))


def test_both_are_pyserinis_encoders(tiny_name: str) -> None:
    from pyserini.encode import DocumentEncoder, QueryEncoder

    assert isinstance(DiffRetrieverDocumentEncoder(tiny_name), DocumentEncoder)
    encoder = DiffRetrieverQueryEncoder(tiny_name)
    assert isinstance(encoder, QueryEncoder) and isinstance(encoder.lexical, QueryEncoder)


def test_pyserinis_maps_give_them_by_name(tiny_name: str, tiny_dream: Path) -> None:
    from pyserini.encode import document_encoder_class_map, query_encoder_class_map

    for mapping, keyword, expected in (
        (document_encoder_class_map, "model_name", DiffRetrieverDocumentEncoder),
        (query_encoder_class_map, "encoder_dir", DiffRetrieverQueryEncoder),
    ):
        key = next(key for key in mapping if key in f"diffretriever:{tiny_dream}/../ance-dpr-clip-dse-auto".lower())
        assert isinstance(mapping[key](**{keyword: tiny_name, "device": "cpu"}), expected)


def test_passages_are_pooled_vectors(tiny_name: str, model: DiffRetriever) -> None:
    encoder = DiffRetrieverDocumentEncoder(tiny_name, "cpu")
    vectors = encoder.encode(TEXTS)
    assert isinstance(vectors, np.ndarray) and vectors.dtype == np.float32 and vectors.shape == (3, 64)
    np.testing.assert_allclose(vectors, model.encode(TEXTS, side="passage").pooled, atol=1e-6)
    assert encoder.dimension == 64 and encoder.provenance.fingerprint == model.fingerprint


def test_passages_are_term_weights_by_suffix(tiny_name: str, model: DiffRetriever) -> None:
    impacts = DiffRetrieverDocumentEncoder(f"{tiny_name}-lexical").encode(TEXTS)
    assert impacts == model.encode(TEXTS, side="passage").impacts
    assert impacts[2] == {}
    json.dumps(impacts)  # plain ints, as Pyserini's writer needs
    assert all(type(weight) is int and weight >= 1 for weights in impacts for weight in weights.values())


def test_titles_come_first_and_null_is_empty(tiny_name: str, model: DiffRetriever) -> None:
    encoder = DiffRetrieverDocumentEncoder(tiny_name)
    vectors = encoder.encode(["text", None, "alone", None], titles=["title", "title", None, None])
    expected = model.encode(["title text", "title", "alone", ""], side="passage").pooled
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_titles_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="2 texts but 1 titles"):
        join_titles(["a", "b"], ["c"])
    with pytest.raises(InputError, match="title 1 is int"):
        join_titles(["a", "b"], ["c", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="in brackets"):
        join_titles("a", None)


def test_pyserinis_max_length_only_shortens(tiny_name: str) -> None:
    long = "word " * 300
    encoder = DiffRetrieverDocumentEncoder(tiny_name)
    whole = encoder.encode([long])
    np.testing.assert_array_equal(encoder.encode([long], max_length=100_000), whole)
    assert np.abs(encoder.encode([long], max_length=100) - whole).max() > 1e-4
    assert DiffRetrieverQueryEncoder(tiny_name, max_length=100_000).model.config.max_length == 512
    assert DiffRetrieverQueryEncoder(tiny_name, max_length=100).model.config.max_length == 100


def test_every_option_of_pyserini_is_accepted(tiny_name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        DiffRetrieverQueryEncoder(
            encoder_dir=tiny_name, tokenizer_name=None, device="cpu", prefix=None, fp16=False, pooling="cls",
            l2_norm=True, multimodal=False, instruction_config=None, explicit_truncate=False,
        )  # fmt: skip
        encoder = DiffRetrieverDocumentEncoder(
            model_name=tiny_name, device="cpu", pooling="mean", l2_norm=True, prefix=None, multimodal=False
        )
        encoder.encode(texts=["a"], titles=["b"], fp16=False, max_length=256, add_sep=False)
    assert caplog.messages == []


def test_an_option_without_effect_gives_one_warning(tiny_name: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = DiffRetrieverDocumentEncoder(tiny_name, prefix="passage: ", brand_new_option=3)
    for _ in range(2):
        encoder.encode(["a"], add_sep=True)
    warnings = [
        message.split(": ", 1)[1] if message.startswith("diffretriever") else message for message in caplog.messages
    ]
    assert len(warnings) == 3
    for message, word in zip(warnings, ("brand_new_option", "prefix", "add_sep"), strict=True):
        assert word in message and "no effect" in message


def test_a_field_that_is_not_read_is_refused(tiny_name: str) -> None:
    encoder = DiffRetrieverDocumentEncoder(tiny_name)
    with pytest.raises(InputError, match=r"title and text, not 'abstract'"):
        encoder.encode(texts=["a"], abstracts=["b"])


def test_a_misspelt_setting_is_refused(tiny_name: str) -> None:
    with pytest.raises(ConfigError, match="did you mean k_query"):
        DiffRetrieverQueryEncoder(tiny_name, k_qery=4)


def test_a_missing_model_fails_before_anything_is_read() -> None:
    with pytest.raises(ModelNotFoundError):
        DiffRetrieverDocumentEncoder("diffretriever:/no/such/folder")


def test_queries_dense_and_lexical_share_model_and_forward_pass(
    tiny_name: str, model: DiffRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = DiffRetrieverQueryEncoder(tiny_name)
    lexical = DiffRetrieverQueryEncoder(tiny_name, device=None).lexical
    assert dense.model is lexical.dense.model is DiffRetrieverDocumentEncoder(tiny_name).model
    calls: list[list[str]] = []
    encode = DiffRetriever.encode
    monkeypatch.setattr(
        DiffRetriever, "encode", lambda self, texts, **k: calls.append(list(texts)) or encode(self, texts, **k)
    )
    queries = ["what does the fox say", "who predicts jointly", "what does the fox say"]
    vectors = dense.encode_batch(queries)
    terms = [lexical.encode(query) for query in queries]
    assert calls == [queries[:2]]
    reps = model.encode(queries, side="query")
    np.testing.assert_allclose(vectors, reps.pooled, atol=1e-6)
    assert vectors.dtype == np.float32 and vectors.shape == (3, 64)
    assert terms == reps.impacts
    np.testing.assert_array_equal(dense.encode(queries[1]), vectors[1])
    assert DiffRetrieverQueryEncoder(f"{tiny_name}-lexical").encode(queries[0]) == terms[0]


def test_odd_queries_are_harmless_and_others_refused(tiny_name: str) -> None:
    encoder = DiffRetrieverQueryEncoder(tiny_name)
    for text in ("", "   ", "the of and", "?!.", "a\x00b", "lone \ud800 surrogate"):
        assert np.isfinite(encoder.encode(text)).all()
        assert isinstance(encoder.lexical.encode(text), dict)
    assert encoder.lexical.encode("") == {}
    assert encoder.encode_batch([]).shape == (0, 64)
    with pytest.raises(InputError, match="a query must be a string, not NoneType"):
        encoder.encode(None)  # type: ignore[arg-type]


def test_lucenes_limit_keeps_the_strongest_terms() -> None:
    impacts = {f"t{i:04d}": 1 + i // 2 for i in range(2000)}
    terms = strongest(impacts, 1024)
    assert len(terms) == 1024
    assert min(terms.values()) == 489 and "t0976" in terms and "t0975" not in terms
    assert strongest({"a": 1}, 1024) == {"a": 1}


def test_half_precision_is_another_model_of_the_same_name(tiny_name: str) -> None:
    import torch

    encoder = DiffRetrieverDocumentEncoder(tiny_name)
    full = encoder.encode(TEXTS)
    half = encoder.encode(TEXTS, fp16=True)
    assert encoder.model.dtype == torch.bfloat16
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, full, atol=0.1)
    assert np.abs(half - full).max() > 0


def test_settings_of_the_config_can_be_given(tiny_name: str) -> None:
    encoder = DiffRetrieverDocumentEncoder(tiny_name, k_passage=3)
    provenance = encoder.record(7).provenance
    assert (provenance.encoder, provenance.k_passage) == (tiny_name, 3)
    assert provenance.fingerprint != DiffRetrieverDocumentEncoder(tiny_name).provenance.fingerprint


def test_importing_an_encoder_attaches_the_plugin_where_the_hook_does_not_run(tiny_name: str) -> None:
    """However it is imported: a hybrid search with Pyserini's own fusion would be wrong without a warning."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from diffretriever_pyserini.pyserini_api.encoders import DiffRetrieverQueryEncoder as inner\n"
        "from diffretriever_pyserini import DiffRetrieverQueryEncoder\n"
        "assert DiffRetrieverQueryEncoder is inner\n"
        "from diffretriever_pyserini.plugin import registry\nprint(registry.route())\n"
        f"DiffRetrieverQueryEncoder({tiny_name!r})\nprint(registry.route())\n"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["encoder", "encoder"]
