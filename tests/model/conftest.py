"""Small checkpoints made for the tests, and models loaded once per session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever, Representations

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = list("abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-")
WORDS = ["the", "of", "retrieval", "passage", "word", "##ing", "##s", "dense", "index", "query", "é", "日", "☃"]
TEXTS = ["dense retrieval of passages", "the index", "", "x", "words of a query, " * 40, "日本 ☃ é!"]
Load = Callable[..., DiffRetriever]
CHAT_TEMPLATE = "{% for m in messages %}[CLS] {{ m.content }} [SEP]{% endfor %}"
_CAUSAL_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "head_dim": 8,
}


def wordpiece(*more: str) -> Any:
    """A WordPiece tokenizer of some hundred tokens that knows every ASCII digit, a few words and ``more``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS, *more]
    core = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(strip_accents=False)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def save_masked_lm(folder: Path, kind: str = "bert", **settings: Any) -> Any:
    """Write a random masked LM of ``kind`` with :func:`wordpiece`'s tokenizer; the model is returned."""
    import torch
    from transformers import AutoConfig, AutoModelForMaskedLM

    tokenizer = wordpiece()
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 3,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 320,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    ids = {key: getattr(tokenizer, key) for key in ("cls_token_id", "sep_token_id")}
    if kind == "modernbert":
        sizes |= ids | {
            "bos_token_id": ids["cls_token_id"],
            "eos_token_id": ids["sep_token_id"],
            "global_attn_every_n_layers": 2,
        }
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForMaskedLM.from_config(AutoConfig.for_model(kind, **(sizes | settings))).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def save_causal(folder: Path, kind: str, template: str = CHAT_TEMPLATE, seed: int = 3, **settings: Any) -> Any:
    """Write a random causal LM of ``kind``; Llama's tokenizer puts [CLS] first. The model is returned."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = wordpiece()
    tokenizer.eos_token, tokenizer.chat_template = "[SEP]", template
    if kind == "llama":
        first = [("[CLS]", tokenizer.cls_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=first)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    window = {"sliding_window": 80} if kind == "mistral" else {}
    sizes = _CAUSAL_SIZES | {"vocab_size": len(tokenizer) + 3}
    config = AutoConfig.for_model(kind, **(sizes | ids | window | settings))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON object on disk; None removes the key."""
    values = json.loads(path.read_text()) if path.exists() else {}
    values |= changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "model.safetensors") -> None:
    """Rewrite a weight file after ``change`` has altered its dict of tensors."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / name)
    change(weights)
    (folder / name).unlink()
    save_file(weights, folder / name, metadata={"format": "pt"})


def headless(tiny_bert: Path, folder: Path) -> Path:
    """The tiny BERT as a sentence encoder: no masked-word head."""
    copy_folder(tiny_bert, folder)
    edit_weights(folder, lambda w: [w.pop(key) for key in list(w) if key.startswith("cls.")])
    return folder


def copy_folder(source: Path, target: Path) -> Path:
    """A writable copy of a checkpoint folder."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    return target


def assert_close(actual: Representations, expected: Representations, vectors: float = 1e-5, edge: int = 1) -> None:
    """Vectors within ``vectors``; impacts within ``edge``, where an absent weight is 0."""
    np.testing.assert_allclose(actual.vectors, expected.vectors, rtol=0, atol=vectors)
    assert np.abs((actual.weights - expected.weights).toarray()).max(initial=0) <= edge


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: for models this small, waiting for threads costs up to ten times what they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BertForMaskedLM with 320 positions; needs no shared data."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    save_masked_lm(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(conformance_dir: Path) -> Path:
    """The folder of the shared tiny checkpoints."""
    return conformance_dir / "checkpoints"


@pytest.fixture(scope="session")
def tiny_llada(checkpoints: Path) -> Path:
    """A tiny LLaDA checkpoint with random weights."""
    return checkpoints / "tiny-llada"


@pytest.fixture(scope="session")
def tiny_a2d(checkpoints: Path) -> Path:
    """A tiny A2D checkpoint (Qwen3) with random weights."""
    return checkpoints / "tiny-a2d-qwen3"


@pytest.fixture(scope="session")
def tiny_llada_moe(checkpoints: Path) -> Path:
    """A tiny LLaDA-MoE checkpoint with random weights."""
    return checkpoints / "tiny-llada-moe"


@pytest.fixture(scope="session")
def load() -> Load:
    """``DiffRetriever.from_pretrained``, which loads each request once."""
    known: dict[str, DiffRetriever] = {}

    def load_once(folder: Path, **settings: Any) -> DiffRetriever:
        key = repr((str(folder), sorted(settings.items())))
        if key not in known:
            known[key] = DiffRetriever.from_pretrained(folder, **settings)
        return known[key]

    return load_once


@pytest.fixture(scope="session", params=["tiny-bert", "tiny-dream", "tiny-llada", "tiny-a2d", "tiny-llada-moe"])
def any_model(request: pytest.FixtureRequest, load: Load) -> DiffRetriever:
    """One model of each family, K = 2 and 3; the shared ones are skipped if they are absent."""
    folder = request.getfixturevalue(request.param.replace("-", "_"))
    return load(folder, k_query=2, k_passage=3, max_length=160)
