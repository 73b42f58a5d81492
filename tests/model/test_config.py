"""Sources of settings, their precedence, and what is refused. No weights are loaded here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffretriever_pyserini.errors import ConfigError, ModelNotFoundError
from diffretriever_pyserini.model.config import FIELDS, RetrieverConfig, check_side, family_of
from diffretriever_pyserini.model.prebuilt import list_prebuilt, prebuilt_dir, prebuilt_values, read_yaml
from diffretriever_pyserini.model.resolve import HUB_BASES, resolve_config

from .conftest import copy_folder, edit_json

RELEASE: dict[str, Any] = {
    "model_type": "dream",
    "mask_token_id": 9,
    "max_length": 156,
    "n_gen_tokens": 4,
    "n_gen_q_tokens": 2,
    "n_gen_p_tokens": 8,
    "n_tail": 3,
    "query_prefix_ids": [1, 2],
    "query_suffix_ids": [3],
    "passage_prefix_ids": [4],
    "passage_suffix_ids": [5, 6],
}


def write_json(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A bare Dream base: its config.json alone decides the settings."""
    write_json(tmp_path / "base" / "config.json", {"model_type": "Dream", "mask_token_id": 7})
    return tmp_path / "base"


@pytest.fixture
def release(base: Path) -> Path:
    """A released adapter folder next to its base."""
    folder = base.parent / "release"
    write_json(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "../base"})
    write_json(folder / "retriever_config.json", RELEASE)
    return folder


def test_a_bare_base_is_zero_shot(base: Path) -> None:
    config = resolve_config(str(base))
    assert (config.family, config.mask_token_id, config.max_length, config.prompt) == ("dream", 7, 512, "auto")
    assert (config.cut_at_stop, config.impact_rounding, config.denoising_schedule) == (True, "zero", "zero_shot")
    assert (config.k_query, config.k_passage, config.adapter) == (1, 1, None)
    assert Path(config.backbone) == base


def test_a_release_has_its_own_settings(release: Path, base: Path) -> None:
    config = resolve_config(str(release))
    assert (config.k_query, config.k_passage, config.max_length, config.mask_token_id) == (2, 8, 156, 9)
    assert (config.cut_at_stop, config.impact_rounding, config.denoising_schedule) == (False, "nearest", "trained")
    assert config.fixed_ids("query") == ((1, 2), (3,))
    assert config.fixed_ids("passage") == ((4,), (5, 6))
    assert (Path(config.adapter or ""), Path(config.backbone)) == (release, base)


def test_precedence(release: Path, tmp_path: Path) -> None:
    """defaults < checkpoint < YAML < keyword overrides; None overrides nothing."""
    file = tmp_path / "mine.yaml"
    file.write_text("adapter: release\nk_query: 3\nmax_length: 64\n")
    assert resolve_config(str(file)).top_terms == 128  # the default
    config = resolve_config(str(file))
    assert (config.k_passage, config.k_query, config.max_length) == (8, 3, 64)  # checkpoint, YAML, YAML
    config = resolve_config(str(file), max_length=32, cut_at_stop=True, k_query=None, impact_rounding=None)
    assert (config.max_length, config.cut_at_stop, config.k_query, config.impact_rounding) == (32, True, 3, "nearest")


def test_yaml_paths_count_from_the_file(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / "dream.yaml"
    file.write_text("backbone: ../base\nk_query: 4\n")
    monkeypatch.chdir("/")
    config = resolve_config(str(file))
    assert (config.backbone, config.k_query) == (str(base), 4)
    assert config.name == str(file)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"n_gen_q_tokens": None, "n_gen_p_tokens": None}, (4, 4)),  # the legacy key is used
        ({"n_gen_q_tokens": 1, "n_gen_p_tokens": 1}, (1, 1)),  # but never wins: a release with K = 1 may have 4 there
        ({"n_gen_p_tokens": None}, (2, 4)),
    ],
)
def test_legacy_k(release: Path, keys: dict[str, Any], expected: tuple[int, int]) -> None:
    edit_json(release / "retriever_config.json", **keys)
    config = resolve_config(str(release))
    assert (config.k_query, config.k_passage) == expected


@pytest.mark.parametrize("value", ["abc", [1, "x"], 5, [-1], [True]])
def test_invalid_token_ids_are_named_with_their_file(release: Path, value: Any) -> None:
    edit_json(release / "retriever_config.json", query_prefix_ids=value)
    with pytest.raises(
        ConfigError, match=r"retriever_config\.json: query_prefix_ids=.* must be a list in which each value is a whole"
    ):
        resolve_config(str(release))


def test_no_k_at_all(release: Path) -> None:
    edit_json(release / "retriever_config.json", n_gen_tokens=None, n_gen_q_tokens=None)
    with pytest.raises(ConfigError, match=r"retriever_config\.json: K is missing; give n_gen_q_tokens"):
        resolve_config(str(release))


@pytest.mark.parametrize(("use_eos", "n_tail"), [(None, 0), (False, 0), (True, 1)])
def test_releases_without_n_tail_have_an_older_layout(release: Path, use_eos: bool | None, n_tail: int) -> None:
    edit_json(release / "retriever_config.json", n_tail=None, use_eos=use_eos)
    assert resolve_config(str(release)).n_tail == n_tail


def test_releases_without_max_length_have_that_of_the_paper(release: Path) -> None:
    edit_json(release / "retriever_config.json", max_length=None)
    assert resolve_config(str(release)).max_length == 156


@pytest.mark.parametrize(
    ("key", "value"), [("normalize", False), ("use_k_adapter", True), ("use_k_pre_encoder", True), ("model_type", "t5")]
)
def test_releases_that_are_not_supported(release: Path, key: str, value: Any) -> None:
    edit_json(release / "retriever_config.json", **{key: value})
    with pytest.raises(ConfigError, match=rf"retriever_config.json: {key}"):
        resolve_config(str(release))


def test_base_lookup(release: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """backbone= wins, then the path relative to the folder, then as written, then the hub id of the model type."""
    written = release / "adapter_config.json"
    other = copy_folder(base, tmp_path / "other")
    assert resolve_config(str(release), backbone=str(other)).backbone == str(other)

    monkeypatch.chdir(tmp_path)
    copy_folder(base, tmp_path / "bases" / "base")
    copy_folder(base, release / "bases" / "base")
    edit_json(written, base_model_name_or_path="bases/base")
    assert resolve_config(str(release)).backbone == str(release / "bases" / "base")

    edit_json(written, base_model_name_or_path=str(other))
    assert resolve_config(str(release)).backbone == str(other)

    edit_json(written, base_model_name_or_path="someone/dream-7b")
    assert resolve_config(str(release)).backbone == "someone/dream-7b"

    for gone in (str(tmp_path / "gone"), "../gone", ""):
        edit_json(written, base_model_name_or_path=gone)
        assert resolve_config(str(release)).backbone == HUB_BASES["dream"]
    edit_json(release / "retriever_config.json", model_type="llada1")
    assert resolve_config(str(release)).backbone == HUB_BASES["llada"]


def test_a_masked_lm_adapter_without_a_base(release: Path) -> None:
    edit_json(release / "adapter_config.json", base_model_name_or_path="/gone")
    edit_json(release / "retriever_config.json", model_type="bert")
    with pytest.raises(ConfigError, match=r"its base '/gone' is neither a folder nor.*backbone="):
        resolve_config(str(release))


def test_a_plain_adapter_is_zero_shot(release: Path) -> None:
    (release / "retriever_config.json").unlink()
    config = resolve_config(str(release), k_query=4)
    assert (config.k_query, config.cut_at_stop, config.mask_token_id, config.max_length) == (4, True, 7, 512)


def test_a_fully_fine_tuned_folder(base: Path) -> None:
    """config.json + retriever_config.json, no adapter: fine-tuned settings, its own weights as backbone."""
    write_json(base / "retriever_config.json", RELEASE | {"mask_token_id": None})
    config = resolve_config(str(base))
    assert (config.adapter, Path(config.backbone), config.family) == (None, base, "dream")
    assert (config.k_passage, config.impact_rounding, config.cut_at_stop) == (8, "nearest", False)
    assert config.mask_token_id == 7, "from config.json, because retriever_config.json does not say it"


def test_a_release_that_also_has_a_config_json(release: Path, base: Path) -> None:
    write_json(release / "config.json", {"model_type": "diffretriever", "auto_map": {"AutoModel": "code.Model"}})
    config = resolve_config(str(release))
    assert (config.family, Path(config.backbone), config.k_passage) == ("dream", base, 8)


def test_masked_lms_have_their_own_defaults(tiny_bert: Path) -> None:
    config = resolve_config(str(tiny_bert))
    assert (config.family, config.prompt, config.max_length, config.n_tail) == ("masked_lm", "none", 256, 1)
    assert (config.k_query, config.mask_token_id) == (1, None)


@pytest.mark.parametrize(
    ("typed", "intended"),
    [("k_pasage", "k_passage"), ("maxlength", "max_length"), ("cut_on_stop", "cut_at_stop"), ("kquery", "k_query")],
)
def test_a_misspelt_setting_gets_a_suggestion(base: Path, typed: str, intended: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown setting '{typed}'; did you mean {intended}"):
        resolve_config(str(base), **{typed: 1})
    file = base.parent / "mine.yaml"
    file.write_text(f"backbone: base\n{typed}: 1\n")
    with pytest.raises(ConfigError, match=rf"mine\.yaml: unknown setting '{typed}'"):
        resolve_config(str(file))


def test_an_unknown_setting_without_a_similar_one_lists_all(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"known: .*backbone, .*k_query"):
        resolve_config(str(base), zzzz=1)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("k_query", 0),
        ("k_passage", -1),
        ("k_query", 2.5),
        ("k_query", "four"),
        ("k_query", True),
        ("max_length", 0),
        ("denoising_steps", 0),
        ("top_terms", 0),
        ("impact_scale", 0),
        ("max_lexical_chars", 0),
        ("n_tail", -1),
        ("n_tail", "three"),
        ("mask_token_id", -5),
        ("mask_token_id", "[MASK]"),
        ("cut_at_stop", "never"),
        ("family", "t5"),
        ("impact_rounding", "up"),
        ("denoising_schedule", "cosine"),
        ("lexical_terms", "all"),
        ("prompt", "two"),
        ("mask_position_ids", "head"),
        ("mask_token_type", 2),
    ],
)
def test_invalid_values_are_refused(base: Path, setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}="):
        resolve_config(str(base), **{setting: value})


def test_half_a_pair_of_ids(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"passage_prefix_ids and passage_suffix_ids go together"):
        resolve_config(str(base), passage_prefix_ids=[1])


def test_every_prebuilt_config_is_valid(tmp_path: Path) -> None:
    names = list_prebuilt()
    assert {f"diffretriever-{n}" for n in ("dream-7b-single", "llada-8b-single", "dream-7b-multi-q4-p16")} <= set(names)
    for name, values in names.items():
        assert set(values) <= FIELDS, name
        assert values["description"], name
        resolved = prebuilt_values(name)
        assert resolved is not None
        assert resolved["name"] == name
        # The checkpoint adds the family and the backbone; with stubs for them, the values pass every check.
        config = RetrieverConfig(**({"family": "dream", "backbone": "x", "name": name} | resolved))
        assert re.search(r"Apache-2\.0|MIT|Community License", config.description), f"{name}: names no licence"
        assert re.search(r"\bgated?\b", config.description), f"{name}: does not say whether its weights are gated"
        loaded = name == "diffretriever-mini"
        assert loaded != ("Never loaded here with its real weights" in config.description), name


def test_every_baseline_of_the_paper_has_a_config() -> None:
    """Names, read-outs, K and texts around the text, as published (docs/method.md §8)."""
    settings = {
        name: RetrieverConfig(**(prebuilt_values(name) or {})) for name in list_prebuilt() if "mini" not in name
    }
    for base in ("qwen2.5-7b", "llama-3-8b", "mistral-7b-v0.2"):
        single, multi = settings[f"promptreps-{base}-single"], settings[f"promptreps-{base}-multi-q20-p20"]
        assert (single.readout, single.k_query, multi.k_query, multi.k_passage) == ("next_token", 1, 20, 20)
        assert single.cut_at_stop and single.impact_rounding == "zero", "zero-shot"
    assert {settings[f"diffembed-{base}"].readout for base in ("dream-7b", "llada-8b")} == {"mean"}
    repllama, e5 = settings["repllama-v1-7b"], settings["e5-mistral-7b-instruct"]
    assert (repllama.text_prefix("query"), repllama.text_prefix("passage")) == ("query: ", "passage: ")
    assert e5.text_prefix("query").startswith("Instruct: ") and e5.text_prefix("query").endswith("\nQuery: ")
    assert not e5.text_prefix("passage") and e5.ends_with_eos and repllama.ends_with_eos


def test_prebuilt_names_work_without_their_first_word() -> None:
    for path in (prebuilt_dir() / "models").glob("diffretriever-*.yaml"):
        short = path.stem.removeprefix("diffretriever-")
        assert (prebuilt_values(short) or {})["name"] == path.stem
    assert prebuilt_values("no-such-model") is None
    assert prebuilt_values("../models/dream-7b-zeroshot-q1-p1") is None


@pytest.mark.parametrize(
    "name",
    [n for n, values in list_prebuilt().items() if "/" in str(values.get("backbone")) and n != "diffretriever-mini"],
)
def test_hub_models_offline_say_what_to_download(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"hf download .*backbone="):
        resolve_config(name)


def test_a_prebuilt_name_wins_over_a_folder(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "dream-7b-zeroshot-q4-p16"
    copy_folder(base, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError):
        resolve_config(name)
    assert resolve_config(f"./{name}").k_passage == 1


def test_overrides_can_point_a_prebuilt_config_at_a_local_base(base: Path) -> None:
    config = resolve_config("dream-7b-zeroshot-q4-p16", backbone=str(base))
    assert (config.k_query, config.k_passage, config.backbone) == (4, 16, str(base))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k_query: 4\n", "names neither a backbone nor an adapter"),
        ("- a\n- b\n", "expected settings"),
        ("", "expected settings"),
        ("a: [1\n", "cannot be read as YAML"),
        ("backbone: !!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
    ],
)
def test_yaml_files_that_are_not_a_config(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=rf"odd\.yaml: {message}"):
        resolve_config(str(file))


def test_files_that_are_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"\x80\x02")
    with pytest.raises(ConfigError, match=r"not this file"):
        resolve_config(str(file))
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ConfigError, match=r"config\.json, line 1: broken JSON"):
        resolve_config(str(tmp_path))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"expected a JSON object, found list"):
        resolve_config(str(tmp_path))
    with pytest.raises(ConfigError, match=r"cannot be read as YAML"):
        read_yaml(tmp_path / "absent.yaml")


def test_replace_and_to_dict(base: Path) -> None:
    config = resolve_config(str(base))
    assert config.replace(k_query=3).k_query == 3
    assert RetrieverConfig(**config.to_dict()) == config
    assert yaml.safe_load(yaml.safe_dump(config.to_dict())) == config.to_dict()
    with pytest.raises(ConfigError, match=r"did you mean k_query"):
        config.replace(kquery=3)


def test_sides_and_families() -> None:
    assert check_side("query") == "query"
    with pytest.raises(ConfigError, match=r"'doc'"):
        check_side("doc")
    assert family_of({"model_type": "Dream"}, Path("x")) == "dream"
    assert family_of({"model_type": "A2D-Qwen3"}, Path("x")) == "a2d"
    assert family_of({"model_type": "llada", "d_model": 64}, Path("x")) == "llada"
    assert family_of({"model_type": "llada", "num_experts": 8}, Path("x")) == "llada_moe"
    assert family_of({"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]}, Path("x")) == "llada_moe"
    with pytest.raises(ConfigError, match=r"x: model_type 'gpt2' is not supported .supported: a2d, a2d-llama"):
        family_of({"model_type": "gpt2"}, Path("x"))
