"""The fingerprint changes with everything that decides a representation, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini.errors import ConfigError, InputError
from diffretriever_pyserini.model import weights as weights_module
from diffretriever_pyserini.model.fingerprint import provenance_of
from diffretriever_pyserini.model.provenance import Provenance, differences, read_provenance, require_same_encoder
from diffretriever_pyserini.model.resolve import resolve_config
from diffretriever_pyserini.model.retriever import DiffRetriever
from diffretriever_pyserini.model.tokenization import Preparer
from diffretriever_pyserini.model.weights import cache_folder, tensor_digests

from .conftest import copy_folder, edit_json, edit_weights, save_masked_lm

Change = Callable[[Path], object]


def provenance(folder: Path, **settings: Any) -> Provenance:
    """The provenance of a model that is loaded from ``folder``."""
    config = resolve_config(str(folder), **settings)
    return provenance_of(config, Preparer(config))


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def swap_two_words(folder: Path) -> None:
    """Two entries of a vocabulary change their ids."""

    def change(values: dict[str, Any]) -> None:
        vocabulary = values["model"]["vocab"]
        one, other = sorted(vocabulary, key=vocabulary.get)[-2:]
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]

    edit_tokenizer(folder, change)


def add_lowercasing(folder: Path) -> None:
    edit_tokenizer(folder, lambda values: values.update(normalizer={"type": "Lowercase"}))


def one_element(name: str) -> Change:
    def change(weights: dict[str, Any]) -> None:
        weights[name].view(-1)[3] += 1e-3

    return lambda folder: edit_weights(folder, change)


DECIDING: dict[str, tuple[str, Change, str]] = {
    "rope_theta": (
        "tiny_dream",
        lambda folder: edit_json(folder / "config.json", rope_theta=500.0),
        "rope_theta is 500, was 1000000",
    ),
    "rms_norm_eps": (
        "tiny_llada",
        lambda folder: edit_json(folder / "config.json", rms_norm_eps=0.1),
        "rms_norm_eps is 0.1, was",
    ),
    "hidden_act": (
        "tiny_bert",
        lambda folder: edit_json(folder / "config.json", hidden_act="relu"),
        "hidden_act is relu, was",
    ),
    "num_attention_heads": (
        "tiny_bert",
        lambda folder: edit_json(folder / "config.json", num_attention_heads=2),
        "num_attention_heads is 2, was 4",
    ),
    "vocabulary": ("tiny_dream", swap_two_words, "another tokenizer (model)"),
    "normalizer": ("tiny_dream", add_lowercasing, "another tokenizer (normalizer)"),
    "one weight": ("tiny_bert", one_element("bert.encoder.layer.1.output.dense.weight"), "other weights"),
}
for setting, value in (("lora_alpha", 32), ("use_rslora", True)):

    def edit_adapter_config(folder: Path, setting: str = setting, value: object = value) -> None:
        edit_json(folder / "adapter_config.json", **{setting: value})

    DECIDING[setting] = ("tiny_dream_adapter", edit_adapter_config, f"{setting} is {json.dumps(value)}, was")


@pytest.fixture(scope="session")
def tiny_dream_adapter(checkpoints: Path) -> Path:
    """A LoRA adapter of the tiny Dream."""
    return checkpoints / "tiny-dream-adapter"


def editable(source: Path, target: Path) -> Path:
    """A copy of a checkpoint that may be changed; an adapter keeps its base."""
    base = resolve_config(str(source)).backbone
    copy_folder(source, target)
    if (target / "adapter_config.json").is_file():
        edit_json(target / "adapter_config.json", base_model_name_or_path=base)
    return target


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_a_representation_changes_the_fingerprint(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture, change, difference = DECIDING[name]
    folder = editable(request.getfixturevalue(fixture), tmp_path / "copy")
    before = provenance(folder)
    assert before == provenance(folder)
    change(folder)
    after = provenance(folder)
    assert after.fingerprint != before.fingerprint
    assert after.passage_fingerprint != before.passage_fingerprint
    listed = differences(before, after)
    assert any(difference in line for line in listed), listed
    with pytest.raises(InputError, match="INDEX holds vectors of another encoder: ") as error:
        require_same_encoder(before, after, "INDEX holds vectors", needed="vectors")
    assert difference in str(error.value)
    assert before.passage_fingerprint in str(error.value)
    assert after.passage_fingerprint in str(error.value)


NOT_DECIDING: dict[str, tuple[str, Change]] = {
    "decoder": ("tiny_dream", lambda folder: edit_tokenizer(folder, lambda values: values.update(decoder=None))),
    "post_processor": (
        "tiny_bert",
        lambda folder: edit_tokenizer(folder, lambda values: values.update(post_processor=None)),
    ),
    "a key of another version": (
        "tiny_dream",
        lambda folder: edit_tokenizer(folder, lambda values: values["model"].update(byte_fallback=False)),
    ),
    "length of a rotary model": (
        "tiny_dream",
        lambda folder: edit_json(folder / "config.json", max_position_embeddings=4096),
    ),
    "a further file": ("tiny_bert", lambda folder: (folder / "notes.txt").write_text("trained on Monday")),
}


@pytest.mark.parametrize("name", NOT_DECIDING)
def test_irrelevant_changes_keep_the_fingerprint(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    fixture, change = NOT_DECIDING[name]
    folder = editable(request.getfixturevalue(fixture), tmp_path / "copy")
    before = provenance(folder)
    change(folder)
    assert differences(before, provenance(folder)) == []


def test_a_file_added_to_a_loaded_checkpoint_changes_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_bert, tmp_path / "copy")
    model = DiffRetriever.from_pretrained(folder)
    (folder / "eval_results.json").write_text("{}")
    assert model.provenance == provenance(folder)
    assert DiffRetriever.from_pretrained(folder)._backbone is model._backbone


def test_the_split_into_files_changes_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    before = provenance(tiny_bert)
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert)
    folder = copy_folder(tiny_bert, tmp_path / "copy")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20kB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    assert provenance(folder).fingerprint == before.fingerprint
    (folder / "other.safetensors").write_bytes(b"is not read")
    assert provenance(folder).fingerprint == before.fingerprint
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = sorted(set(index["weight_map"].values()))[1]
    edit_weights(folder, lambda weights: next(iter(weights.values())).view(-1)[0].add_(1), shard)
    assert provenance(folder).weights != before.weights


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_saving_again_changes_nothing(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

    save_masked_lm(tmp_path / "old", kind)
    edit_json(tmp_path / "old" / "config.json", transformers_version="4.0.0", dtype=None, use_cache=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "old")
    tokenizer(["cut and padded", "text"], padding=True, truncation=True, max_length=3)
    for saved in (tokenizer, AutoModelForMaskedLM.from_pretrained(tmp_path / "old")):
        saved.save_pretrained(tmp_path / "new")
    everything = AutoConfig.from_pretrained(tmp_path / "old").to_dict()
    edit_json(tmp_path / "new" / "config.json", **everything)
    for file in ("config.json", "tokenizer.json"):
        assert (tmp_path / "old" / file).read_bytes() != (tmp_path / "new" / file).read_bytes()
    assert differences(provenance(tmp_path / "old"), provenance(tmp_path / "new")) == []
    assert provenance(tmp_path / "old").fingerprint == provenance(tmp_path / "new").fingerprint


def test_a_key_that_transformers_moved_changes_nothing(tmp_path: Path) -> None:
    save_masked_lm(tmp_path, "modernbert")
    before = provenance(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    theta = values["rope_parameters"]["full_attention"]["rope_theta"]
    local = values["rope_parameters"]["sliding_attention"]["rope_theta"]
    edit_json(tmp_path / "config.json", rope_parameters=None, global_rope_theta=theta, local_rope_theta=local)
    assert differences(before, provenance(tmp_path)) == []
    edit_json(tmp_path / "config.json", global_rope_theta=77.0)
    assert differences(before, provenance(tmp_path)) == [
        f"full_attention.rope_theta is 77, was {'the default' if theta == 160000.0 else theta}"
    ]


def test_saving_an_adapter_again_changes_nothing(tiny_dream_adapter: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    folder = editable(tiny_dream_adapter, tmp_path / "copy")
    before = provenance(folder)
    config = LoraConfig.from_pretrained(folder)
    config.target_modules = sorted(config.target_modules or (), reverse=True)
    config.save_pretrained(folder)
    edit_json(folder / "adapter_config.json", inference_mode=False, peft_version="0.1", lora_dropout=0.5)
    assert provenance(folder).fingerprint == before.fingerprint
    edit_weights(folder, lambda all_: next(iter(all_.values())).view(-1)[0].add_(1), "adapter_model.safetensors")
    assert differences(before, provenance(folder)) == ["other adapter weights"]
    assert "an adapter" in differences(provenance(Path(resolve_config(str(folder)).backbone)), before)


def test_a_stored_copy_of_a_tied_head_changes_nothing(tiny_bert: Path, tmp_path: Path) -> None:
    before = provenance(tiny_bert)
    folder = copy_folder(tiny_bert, tmp_path / "copy")
    name = "cls.predictions.decoder.weight"

    def store_head(weights: dict[str, Any]) -> None:
        assert name not in weights
        weights[name] = weights["bert.embeddings.word_embeddings.weight"].clone()

    edit_weights(folder, store_head)
    assert provenance(folder).fingerprint == before.fingerprint
    edit_weights(folder, lambda weights: weights[name].add_(1))
    assert provenance(folder).fingerprint != before.fingerprint


def test_a_record_is_read_as_it_was_written(tiny_bert: Path, tmp_path: Path) -> None:
    original = provenance(tiny_bert, k_query=2, k_passage=3)
    record = json.loads(json.dumps(original.record()))
    assert read_provenance(record, tmp_path) == original
    fingerprints = (original.fingerprint, original.passage_fingerprint)
    assert (record["fingerprint"], record["passage_fingerprint"]) == fingerprints
    for change, message in (
        ({"version": 1}, "another version of this package"),
        ({"weights": "0"}, "does not match its fingerprint"),
        ({"passage": 3}, "damaged"),
        ({"readout": {}}, "damaged"),
    ):
        with pytest.raises(InputError, match=f"{message}.*; encode it again"):
            read_provenance(record | change, tmp_path, "encode it again")
    with pytest.raises(InputError, match="another version"):
        read_provenance(None, tmp_path)


def test_what_must_agree_depends_on_the_comparison(tiny_bert: Path) -> None:
    recorded = provenance(tiny_bert, k_passage=3)
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"k_query": 2}, {"everything"}),
        ({"max_length": 100}, {"everything"}),
        ({"top_terms": 5}, {"everything", "terms"}),
        ({"passage_prefix_ids": (2, 9), "passage_suffix_ids": (3,)}, {"everything", "terms", "vectors"}),
        ({"k_passage": 4}, {"everything", "terms", "vectors"}),
    ]
    for settings, refused in cases:
        current = provenance(tiny_bert, **{"k_passage": 3} | settings)
        for needed in ("everything", "terms", "vectors"):
            if needed in refused:
                with pytest.raises(InputError):
                    require_same_encoder(recorded, current, "x", needed=needed)
            else:
                require_same_encoder(recorded, current, "x", needed=needed)


def test_a_checkpoint_replaced_after_loading_is_noticed(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_bert, tmp_path / "copy")
    model = DiffRetriever.from_pretrained(str(folder))
    one_element("bert.encoder.layer.1.output.dense.weight")(folder)
    with pytest.raises(ConfigError, match="files changed since it was loaded"):
        _ = model.provenance


@pytest.fixture
def caching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Cache the digests of every file, also of new ones; returns the list of the files that are read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_module, "CACHED_FROM", 0)
    monkeypatch.setattr(weights_module, "_SETTLED", -1)
    monkeypatch.setattr(weights_module, "_known", {})
    paths: list[Path] = []
    read = weights_module._read

    def logged(path: Path) -> weights_module.Digests:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(weights_module, "_read", logged)
    return paths


def test_an_unchanged_file_is_read_once(tiny_bert: Path, tmp_path: Path, caching: list[Path]) -> None:
    path = copy_folder(tiny_bert, tmp_path / "copy") / "model.safetensors"
    first = tensor_digests([path])
    assert tensor_digests([path]) == first
    weights_module._known.clear()  # as in another process
    assert tensor_digests([path]) == first
    assert caching == [path]
    cached = list(cache_folder().iterdir())
    assert [path.suffix for path in cached] == [".json"]
    for damage in ("", "[]", json.dumps({"path": str(path)})):
        weights_module._known.clear()
        cached[0].write_text(damage)
        assert tensor_digests([path]) == first
    assert len(caching) == 4
    (tmp_path / "link.safetensors").symlink_to(path)
    assert tensor_digests([tmp_path / "link.safetensors"]) == first
    assert len(caching) == 4


def test_a_file_changed_in_place_is_read_again(tiny_bert: Path, tmp_path: Path, caching: list[Path]) -> None:
    import os

    path = copy_folder(tiny_bert, tmp_path / "copy") / "model.safetensors"
    first, times = tensor_digests([path]), path.stat()
    with path.open("r+b") as file:
        file.seek(-3, 2)
        byte = file.read(1)[0]
        file.seek(-3, 2)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as after a copy that preserves size and time
    second = tensor_digests([path])
    assert len([name for name in first if first[name] != second[name]]) == 1
    weights_module._known.clear()
    assert tensor_digests([path]) == second


def test_an_unwritable_cache_is_not_an_error(
    tiny_bert: Path, tmp_path: Path, caching: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = tensor_digests([tiny_bert / "model.safetensors"])
    weights_module._known.clear()
    assert tensor_digests([tiny_bert / "model.safetensors"]) == first
    assert len(caching) == 2


def test_a_file_that_was_just_written_is_not_cached(
    tiny_bert: Path, tmp_path: Path, caching: list[Path], monkeypatch
) -> None:
    monkeypatch.setattr(weights_module, "_SETTLED", 1 << 62)
    for _ in range(2):
        tensor_digests([tiny_bert / "model.safetensors"])
    assert len(caching) == 2
    assert not cache_folder().exists()


def test_digests_are_of_type_shape_and_content(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    ones = torch.ones(4, 6)
    different = {
        "ones": ones,
        "reshaped": torch.ones(6, 4),
        "half": torch.ones(4, 12, dtype=torch.float16),
        "brain": torch.ones(4, 12, dtype=torch.bfloat16),
        "long": torch.ones(3, 1 << 18),  # more than one block
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3),
    }
    save_file(different | {"ones again": ones.clone()}, tmp_path / "a.safetensors")
    digests = tensor_digests([tmp_path / "a.safetensors"])
    assert digests.pop("ones again") == digests["ones"]
    assert len(set(digests.values())) == len(different)


@pytest.mark.parametrize("damage", [b"", b"nonsense and more", (1 << 60).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_not_safetensors_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(damage)
    with pytest.raises(ConfigError, match=r"x\.safetensors: damaged, or not safetensors"):
        tensor_digests([path])
    path.unlink()
    with pytest.raises(ConfigError, match=r"x\.safetensors: the weights cannot be read"):
        tensor_digests([path])


def test_a_file_cut_short_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((tiny_bert / "model.safetensors").read_bytes()[:-5])
    with pytest.raises(ConfigError, match="ends too early"):
        tensor_digests([path])
