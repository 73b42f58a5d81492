"""Settings from files and options: messages for every mistake, and the options of the command."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import TrainingArguments
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from diffretriever_pyserini.cli import main, train
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.settings import given
from diffretriever_pyserini.training.lora import adapted_layers
from diffretriever_pyserini.training.settings import FIELDS, TrainSettings, read_settings

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path: Path, **values: object) -> Path:
    path.write_text(yaml.safe_dump({"model": "m", "data": "d.jsonl", "output": "out"} | values))
    return path


def test_options_override_the_file_and_are_converted(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("")
    path = write(tmp_path / "run.yaml", learning_rate="1e-5", batch_size=8, bf16=True, fsdp=None)
    settings = read_settings(path, batch_size="4", gradient_checkpointing="true", data=["a", "b"], seed=None)
    assert (settings.learning_rate, settings.batch_size, settings.bf16) == (1e-5, 4, True)
    assert (settings.gradient_checkpointing, settings.data, settings.seed) == (True, ("a", "b"), 42)
    assert read_settings(path).data == (str(tmp_path / "d.jsonl"),), "paths are relative to the file"


def test_none_unsets_a_file_of_many_devices(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", deepspeed="zero2.json")
    assert read_settings(path).deepspeed == "zero2.json"
    assert read_settings(path, deepspeed="none").deepspeed is None
    settings = read_settings(path, deepspeed="none", fsdp="fsdp.json")
    assert (settings.deepspeed, settings.fsdp) == (None, "fsdp.json")
    assert read_settings(write(path, fsdp="fsdp.json"), fsdp="none").fsdp is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"learning_rat": 1}, "did you mean learning_rate"),
        ({"batch_size": "many"}, r"run\.yaml: batch_size='many' must be a whole number of at least 1"),
        ({"batch_size": 1.5}, "must be a whole number"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"negatives": -1}, "at least 0"),
        ({"bf16": "perhaps"}, "must be true or false"),
        ({"on_error": "ignore"}, "must be one of 'stop', 'skip'"),
        ({"k_query": 0}, "k_query=0 must be a whole number of at least 1"),
        ({"mask_token_type": 2}, "must be one of 0, 1"),
        ({"temperature": 0}, "above 0"),
        ({"model": None}, "model is missing"),
        ({"data": []}, "data is missing"),
        ({"patience": 2}, "development set"),
        ({"margin_mse_weight": 1, "negatives": 0}, "margin"),
        ({"dev": "d.jsonl", "dev_rows": 2}, "both set"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": "nan"}, "above 0"),
        ({"max_steps": 0}, "at least 1"),
        ({"warmup_ratio": 100}, "at least 0 and below 1"),
        ({"denoising_weight": -1}, "at least 0"),
        ({"dtype": "float16"}, "must be one of"),
    ],
)
def test_mistakes_are_named(values: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_settings(write(tmp_path / "run.yaml", **values))


def test_the_defaults_are_the_papers_recipe() -> None:
    settings = TrainSettings(model="m", data=("d",), output="o")
    recipe = (settings.lora_r, settings.lora_alpha, settings.learning_rate, settings.epochs, settings.negatives)
    assert recipe == (16, 64, 1e-4, 1.0, 15)
    assert (settings.temperature, settings.lexical_weight) == (0.01, 1.0)
    assert settings.batch_size * 8 == 128


def test_the_output_is_relative_to_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert read_settings(write(tmp_path / "run.yaml")).output == "out"


def test_llada_adapts_its_output_head(conformance_dir: Path) -> None:
    import torch

    from diffretriever_pyserini.model.backbones.loading import load_base
    from diffretriever_pyserini.model.resolve import resolve_config

    for name, count in (("tiny-dream", 21), ("tiny-llada", 22)):
        model = load_base(resolve_config(str(conformance_dir / "checkpoints" / name)), torch.float32).model
        layers = adapted_layers(name.removeprefix("tiny-"), model)
        assert len(layers) == count and ("lm_head" in layers) == (name == "tiny-llada")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples" / "train").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configs_can_be_read(path: Path) -> None:
    settings = read_settings(path)
    assert settings.model and settings.data
    if settings.deepspeed:
        assert Path(settings.deepspeed).is_file()


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    assert len(FIELDS) == 70
    assert [name for name in FIELDS if f"  --{name.replace('_', '-')} " not in shown] == []


def test_the_commands_options_override_the_file(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    train.add_to(parser.add_subparsers())
    path = write(tmp_path / "run.yaml", bf16=True, batch_size=8)
    words = ["train", "--config", str(path), "--bf16", "false", "--epochs", "1e-1", "--mask-token-type", "1"]
    arguments = parser.parse_args(words)
    settings = read_settings(arguments.config, **given(TrainSettings, arguments))
    assert (settings.bf16, settings.batch_size, settings.epochs, settings.mask_token_type) == (False, 8, 0.1, 1)


def test_the_page_lists_every_setting() -> None:
    table = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8").split("## Settings")[1]
    assert [name for name in FIELDS if f"`{name}`" not in table] == []


def test_zero_stage_3_is_refused(tmp_path: Path) -> None:
    from diffretriever_pyserini.training.trainer import arguments

    path = tmp_path / "zero3.json"
    path.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(ConfigError, match="stage 3 is not supported"):
        arguments(TrainSettings(model="m", data=("d",), output=str(tmp_path / "o"), deepspeed=str(path)))


def test_the_shipped_deepspeed_and_fsdp_files_are_understood() -> None:
    """As far as this can be tested without GPUs: the libraries' own readers accept them."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    folder = REPOSITORY / "examples" / "train"
    assert HfDeepSpeedConfig(str(folder / "zero2.json")).is_zero2()
    arguments = object.__new__(TrainingArguments)
    arguments.fsdp, arguments.fsdp_config = True, str(folder / "fsdp-llada.json")
    arguments.gradient_checkpointing = arguments.activation_checkpointing = False
    plugin = arguments._process_fsdp_args()
    assert plugin["fsdp_version"] == 2
    assert plugin["transformer_cls_names_to_wrap"] == LlamaDecoderLayer.__name__


def test_the_commands_say_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model", "m"]) == 2
    assert "data is missing" in capsys.readouterr().err
    assert main(["train", "--config", "none.yaml"]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_settings_that_would_be_ignored_are_refused(conformance_dir: Path) -> None:
    from diffretriever_pyserini.model.backbones.loading import load_base
    from diffretriever_pyserini.model.resolve import resolve_config
    from diffretriever_pyserini.training.run import retriever_for

    checkpoints = conformance_dir / "checkpoints"
    values: dict[str, Any] = {"data": ("d",), "output": "o"}
    base = values | {"model": str(checkpoints / "tiny-dream")}
    adapter = values | {"model": str(checkpoints / "tiny-dream-adapter")}
    for changes in ({**adapter, "lora_layers": 1}, {**base, "lora_layers": 1, "lora_r": 0}):
        with pytest.raises(ConfigError, match="lora_layers is for a new adapter"):
            retriever_for(TrainSettings(**changes))
    with pytest.raises(ConfigError, match=r"prefix_budgets=\[1, 32\] exceed the 16 vectors"):
        retriever_for(TrainSettings(**base, prefix_budgets=(1, 32), k_passage=16, k_query=4))
    with pytest.raises(ConfigError, match="prefix_budgets"):
        TrainSettings(**base, prefix_budgets=(0,))
    model = load_base(resolve_config(base["model"]), "float32").model
    with pytest.raises(ConfigError, match="the base has only"):
        adapted_layers("dream", model, 99)


def test_inherited_budgets_shrink_with_k(conformance_dir: Path, tmp_path: Path) -> None:
    from diffretriever_pyserini.training.run import retriever_for

    path = tmp_path / "start.yaml"
    base = conformance_dir / "checkpoints" / "tiny-dream"
    path.write_text(f"backbone: {base}\nk_query: 4\nk_passage: 16\nprefix_budgets: [1, 4, 16]\n")
    settings = TrainSettings(model=str(path), data=("d",), output="o", k_passage=8)
    assert retriever_for(settings).prefix_budgets == (1, 4)
    assert retriever_for(dataclasses.replace(settings, prefix_budgets=())).prefix_budgets == ()


def test_a_base_named_in_a_file_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the folder that it was loaded from; and a file in a folder is no hub id."""
    from diffretriever_pyserini.training.release import base_name
    from diffretriever_pyserini.training.run import retriever_for

    monkeypatch.chdir(tmp_path)
    Path("mini").mkdir()
    Path("mini/start.yaml").write_text("family: masked_lm\nbackbone: sentence-transformers/all-MiniLM-L6-v2\n")
    config = retriever_for(TrainSettings(model="mini/start.yaml", data=("d",), output="o"))
    assert base_name("mini/start.yaml", config) == "sentence-transformers/all-MiniLM-L6-v2"
