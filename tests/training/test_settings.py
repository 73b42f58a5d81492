"""Settings from files and flags: every mistake is named; the plan's arithmetic; the command's flags."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from transformers import TrainingArguments
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.training.lora import LoraSettings, adapted_layers, trainable_backbone
from diffretriever_pyserini.training.plan import PAPER, SHAPES, memory, plan, shape_of
from diffretriever_pyserini.training.settings import FIELDS, TrainSettings, read_settings

REPOSITORY = Path(__file__).resolve().parents[2]


def write(path: Path, **values: object) -> Path:
    path.write_text(yaml.safe_dump({"model": "m", "data": "d.jsonl", "output": "out"} | values))
    return path


def test_flags_go_over_the_file_and_are_read_as_their_kind(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("")
    path = write(tmp_path / "run.yaml", learning_rate="1e-5", batch_size=8, bf16=True, fsdp=None)
    settings = read_settings(path, batch_size="4", gradient_checkpointing="true", data=["a", "b"], seed=None)
    assert (settings.learning_rate, settings.batch_size, settings.bf16) == (1e-5, 4, True)
    assert (settings.gradient_checkpointing, settings.data, settings.seed) == (True, ("a", "b"), 42)
    assert read_settings(path).data == (str(tmp_path / "d.jsonl"),), "paths count from the file"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"learning_rat": 1}, "did you mean learning_rate"),
        ({"batch_size": "many"}, "not of type int"),
        ({"batch_size": 1.5}, "not of type int"),
        ({"batch_size": 0}, "at least 1"),
        ({"negatives": -1}, "must not be negative"),
        ({"bf16": "perhaps"}, "not of type bool"),
        ({"on_error": "ignore"}, "not one of"),
        ({"temperature": 0}, "above 0"),
        ({"model": None}, "model is missing"),
        ({"data": []}, "data is missing"),
        ({"patience": 2}, "development set"),
        ({"margin_mse_weight": 1, "negatives": 0}, "margin"),
        ({"dev": "d.jsonl", "dev_rows": 2}, "both set"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": "nan"}, "above 0"),
        ({"max_steps": 0}, "at least 1"),
        ({"warmup_ratio": 100}, r"\[0, 1\)"),
        ({"denoising_weight": -1}, "must not be negative"),
        ({"dtype": "float16"}, "not one of"),
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


def test_the_output_counts_from_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert read_settings(write(tmp_path / "run.yaml")).output == "out"


def test_shapes_count_the_parameters_of_the_real_models() -> None:
    assert SHAPES["dream-7b"].parameters == pytest.approx(7.62e9, rel=2e-3)
    assert SHAPES["llada-8b"].parameters == pytest.approx(8.02e9, rel=2e-3)


@pytest.mark.parametrize("name", ["tiny-dream", "tiny-llada"])
def test_shapes_count_what_is_really_there(name: str, conformance_dir: Path) -> None:
    import torch

    from diffretriever_pyserini.config import resolve_config

    folder = conformance_dir / "checkpoints" / name
    shape = shape_of(str(folder))
    backbone = trainable_backbone(resolve_config(str(folder)), torch.float32, LoraSettings(r=4))
    counted = {True: 0, False: 0}
    for parameter in backbone.model.parameters():
        counted[parameter.requires_grad] += parameter.numel()
    assert shape.parameters == counted[False]
    assert shape.lora(4) == counted[True]
    assert shape.family == name.removeprefix("tiny-")


def test_llada_adapts_its_output_head(conformance_dir: Path) -> None:
    import torch

    from diffretriever_pyserini.backbones.loading import load_base
    from diffretriever_pyserini.config import resolve_config

    for name, count in (("tiny-dream", 21), ("tiny-llada", 22)):
        model = load_base(resolve_config(str(conformance_dir / "checkpoints" / name)), torch.float32).model
        layers = adapted_layers(name.removeprefix("tiny-"), model)
        assert len(layers) == count and ("lm_head" in layers) == (name == "tiny-llada")


def recipe(family: str, **changes: object) -> TrainSettings:
    return TrainSettings(data=("-",), output="-", **(PAPER[family] | changes))  # type: ignore[arg-type]


def test_memory_falls_with_chunks_and_checkpointing_and_stages() -> None:
    shape = SHAPES["dream-7b"]

    def total(gpus: int = 8, zero: int = 2, **changes: object) -> float:
        return sum(line.size for line in memory(recipe("dream", **changes), shape, gpus, zero))

    assert total(chunk=4) < total() < total(chunk=0)
    assert total() < total(gradient_checkpointing=False)
    assert total(zero=3) < total() < total(zero=0)
    assert total(k_passage=1) < total()


def test_the_plan_follows_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind, weights in (("dream-7b", "ZeRO-2", "weights, bfloat16"), ("llada-8b", "FSDP", "weights, float32")):
        path = REPOSITORY / "examples" / "train" / f"{name}-msmarco.yaml"
        assert main(["train", "--plan", "--config", str(path)]) == 0
        out = capsys.readouterr().out
        assert kind in out and weights in out and "fits into" in out


def test_the_plan_shows_its_arithmetic_and_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    text = plan(recipe("llada"), SHAPES["llada-8b"], 8, 80)
    assert "= 2 B x 8.02e9" in text and "fits into 80 GB" in text and "128 queries" in text
    assert "does NOT fit into 16 GB" in plan(recipe("llada"), SHAPES["llada-8b"], 8, 16)
    assert main(["train", "--plan", "--model", "llada-8b", "--gpus", "4", "--batch-size", "32"]) == 0
    assert "4 device(s)" in capsys.readouterr().out
    assert main(["train", "--plan", "--model", "no-such-model"]) == 2


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples" / "train").glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_configs_can_be_read(path: Path) -> None:
    settings = read_settings(path)
    assert settings.model and settings.data
    if settings.deepspeed:
        assert Path(settings.deepspeed).is_file()


def test_the_page_lists_every_setting() -> None:
    table = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8").split("## Settings")[1]
    assert [name for name in FIELDS if f"`{name}`" not in table] == []


def test_the_page_shows_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    shown = page.partition("The first of them says:\n\n```text\n")[2].partition("\n```\n")[0]
    assert main(["train", "--plan", "--model", "dream-7b", "--gpus", "8"]) == 0
    assert capsys.readouterr().out.strip() == shown


def test_the_plans_figures_by_hand() -> None:
    """Every line for 8 GPUs with ZeRO-2, from the published configurations, written out."""
    dream = 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944 + 3584 + 2 * 512) + 57 * 3584 + 2 * 152064 * 3584
    lora = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert (dream, lora) == (7_615_616_512, 40_370_176)
    vectors = 8 * 8 * 16 * 16 * (16 * 3584 + 2 * 64)
    expected = {
        "weights, bfloat16": 2 * dream,
        "trained weights": 4 * lora,
        "gradients": 4 * lora / 8,
        "Adam, two moments and a float32 copy": 12 * lora / 8,
        "inputs of the blocks": 28 * 16 * (156 + 16 + 3) * 3584 * 2,
        "one block at work": 16 * 175 * (2 * (10 * 3584 + 2 * 512 + 5 * 18944) + 8 * (6 * 3584 + 18944)),
        "attention mask": 2 * 16 * 175**2,
        "logits at the K rows": 4 * 16 * 16 * 152064,
        "vectors of all passages, with gradients": vectors,
        "MaxSim": 8 * 16 * 4 * (8 * 16 * 16) * 16,
        "CUDA, libraries, fragmentation": 1.5e9,
    }
    lines = memory(recipe("dream"), SHAPES["dream-7b"], 8)
    assert {line.what: line.size for line in lines} == pytest.approx(expected)
    llada = 32 * (4 * 4096**2 + 3 * 4096 * 12288) + 65 * 4096 + 2 * 126464 * 4096
    lora = 16 * (32 * (4 * (4096 + 4096) + 3 * (4096 + 12288)) + 4096 + 126464)  # the output head, too
    assert (llada, lora) == (8_015_581_184, 44_032_000)
    found = {line.what: line.size for line in memory(recipe("llada"), SHAPES["llada-8b"], 8)}
    assert (found["weights, bfloat16"], found["trained weights"]) == (2 * llada, 4 * lora)


def test_zero_stage_3_is_refused(tmp_path: Path) -> None:
    from diffretriever_pyserini.training.trainer import arguments

    path = tmp_path / "zero3.json"
    path.write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(ConfigError, match="stage 3 is not supported"):
        arguments(TrainSettings(model="m", data=("d",), output=str(tmp_path / "o"), deepspeed=str(path)))


def test_the_shipped_deepspeed_and_fsdp_files_are_understood() -> None:
    """As far as it goes without GPUs: the libraries' own readers take them."""
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
