"""Commands for several GPUs, run with two CPU processes: those of docs/training.md, FSDP, and DeepSpeed's file."""

from __future__ import annotations

import dataclasses
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import ConfigError, DiffRetrieverError
from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.run import train
from diffretriever_pyserini.training.settings import TrainSettings, read_settings
from diffretriever_pyserini.training.trainer import arguments

from .. import warm

Settings = Callable[..., TrainSettings]
REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples" / "train"
ON_CPU = Path(__file__).with_name("fsdp_on_cpu.py")
TEXTS = ["which plants grow in spring", "The rivers need clean water.", ""]


def page_commands() -> list[str]:
    """The lines of docs/training.md that start the two shipped configurations."""
    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    return re.findall(r"^torchrun .*--config examples/train/\S+$", text, re.M)


def launched(command: list[str], folder: Path) -> str:
    """Output of a command that torchrun starts; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def test_the_page_starts_both_configurations() -> None:
    names = [command.rpartition("/")[2] for command in page_commands()]
    assert names == ["dream-7b-msmarco.yaml", "llada-8b-msmarco.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [pytest.param(one, marks=[pytest.mark.rare] if "llada" in one else []) for one in page_commands()],
    ids=lambda command: command.rpartition("/")[2],
)
def test_the_commands_of_the_page(command: str, conformance_dir: Path, rows_file: Path, tmp_path: Path) -> None:
    """As on the page, but with 2 processes, a tiny model of the same family, few steps, CPUs and no DeepSpeed."""
    words = command.replace("--nproc-per-node 8", "--nproc-per-node 2").split()
    assert words[:5] == ["torchrun", "--nproc-per-node", "2", "-m", "diffretriever_pyserini"]
    shipped = read_settings(REPOSITORY / words[-1])
    family = "dream" if "dream" in shipped.model.lower() else "llada"
    small = dataclasses.replace(
        shipped,
        model=str(conformance_dir / "checkpoints" / f"tiny-{family}"),
        data=(str(rows_file),),
        output=str(tmp_path / "out"),
        batch_size=2,
        negatives=2,
        chunk=4,
        max_steps=2,
        dev_rows=8,
        eval_steps=2,
        log_steps=1,
        workers=1,
        deepspeed=None,
        device="cpu",
    )
    words[-1] = str(tmp_path / "run.yaml")
    Path(words[-1]).write_text(yaml.safe_dump(small.to_dict()))
    program = [str(ON_CPU)] if small.fsdp else words[3:5]
    output = launched([*warm.torchrun(), *program, *words[5:]], tmp_path)
    assert ("FSDPMaskReader" in output) == (family == "llada")
    steps = [record for record in read_log(tmp_path / "out" / "log.jsonl") if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2]
    model = DiffRetriever.from_pretrained(str(tmp_path / "out"))
    assert (model.config.k_query, model.config.k_passage) == (shipped.k_query, shipped.k_passage)
    assert np.isfinite(model.encode(TEXTS).vectors).all()


@pytest.mark.slow
@pytest.mark.rare
def test_two_nodes(tiny_settings: Settings, tmp_path: Path) -> None:
    """Two launchers that connect at an address, as on two machines, write one checkpoint."""
    settings = tiny_settings(batch_size=2, max_steps=2, dev_rows=8, eval_steps=2)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings.to_dict()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [warm.torchrun()[0], "--nnodes", "2", "--nproc-per-node", "1"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "nodes"]
    command = [*launcher, "-m", "diffretriever_pyserini", "train", "--config", str(file)]
    nodes = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    try:
        outputs = [node.communicate(timeout=600) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sum(b"Checkpoint:" in out for out, _ in outputs) == 1, "only one process reports"
    assert DiffRetriever.from_pretrained(str(tmp_path / "out")).encode(TEXTS).vectors.shape[:2] == (3, 3)


@pytest.mark.slow
def test_fsdp_trains_saves_resumes_and_encodes_as_one_process(tiny_settings: Settings, tmp_path: Path) -> None:
    """Sharded over two processes: weights as from one process and after resuming, and a checkpoint that encodes."""
    common = {"lora_dropout": 0.0, "max_length": 128, "dev_rows": 8, "eval_steps": 2, "chunk": 4}
    alone = tiny_settings("tiny-llada", output=str(tmp_path / "one"), **common)
    together = tiny_settings(
        "tiny-llada",
        output=str(tmp_path / "two"),
        batch_size=2,
        dtype="float32",
        fsdp=str(EXAMPLES / "fsdp-llada.json"),
        **common,
    )
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(together.to_dict()))
    command = [*warm.torchrun(), str(ON_CPU), "train", "--config", str(file)]
    output = launched(command, tmp_path)
    sharded = re.search(r"FSDPMaskReader: \S+ is a DTensor, (\d+) of (\d+) values here", output)
    assert sharded and int(sharded[1]) * 2 == int(sharded[2]), output
    figures = train(alone, say=lambda _: None)
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    for one, two in zip(*([record for record in log if "loss" in record] for log in logs), strict=True):
        for name in ("loss", "dense", "lexical", "grad_norm"):
            assert two[name] == pytest.approx(one[name], rel=2e-3), name
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, atol=3e-4, rtol=0)
    ours, theirs = (DiffRetriever.from_pretrained(str(tmp_path / name)).encode(TEXTS) for name in ("one", "two"))
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=2e-3)

    last = tmp_path / "two" / f"checkpoint-{figures['steps']}"
    assert not list(last.glob("pytorch_model*")), "no second copy of all weights"
    shutil.rmtree(last)
    (tmp_path / "two" / "adapter_model.safetensors").unlink()
    launched([*command, "--resume"], tmp_path)
    resumed = load_file(tmp_path / "two" / "adapter_model.safetensors")
    for key, tensor in weights[1].items():
        torch.testing.assert_close(resumed[key], tensor, atol=1e-6, rtol=0)


def test_fsdp_where_it_would_do_nothing(
    tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = str(EXAMPLES / "fsdp-llada.json")
    with pytest.raises(ConfigError, match="start the run with torchrun"):
        train(tiny_settings(fsdp=shipped), say=lambda _: None)
    file = tmp_path / "fsdp1.json"
    file.write_text('{"version": 1}')
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"fsdp1\.json: version 1 of FSDP is not supported"):
        arguments(tiny_settings(fsdp=str(file)))
    with pytest.raises(ConfigError, match=r"missing\.json"):
        arguments(tiny_settings(fsdp=str(tmp_path / "missing.json")))


@pytest.mark.slow
def test_fsdp_on_cpus_is_not_left_out_silently(tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings("tiny-llada", fsdp=str(EXAMPLES / "fsdp-llada.json"), batch_size=2)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings.to_dict()))
    command = [*warm.torchrun(), "-m", "diffretriever_pyserini", "train", "--config", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0
    assert "fsdp spreads weights over GPUs" in done.stderr


def without_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffretriever_pyserini.training.trainer.find_spec", lambda name: None)


def test_deepspeed_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    without_deepspeed(monkeypatch)
    with pytest.raises(
        ConfigError, match="deepspeed is set but not installed: pip install deepspeed.*or leave the setting"
    ):
        arguments(read_settings(EXAMPLES / "dream-7b-msmarco.yaml"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "cannot be read"),
        ('{"zero_optimization": {"stage": 2}', "line 1: broken JSON"),
        ("[2]", "expected a JSON object"),
        ('{"zero_optimization": {"stage": 7}}', "stage 7 is not supported"),
        ('{"zero_optimization": {"stage": 3}}', "stage 3 is not supported"),
        ('{"train_micro_batch_size_per_gpu": 8}', "train_micro_batch_size_per_gpu is 8, but batch_size is 4"),
        ('{"gradient_accumulation_steps": 2}', "gradient_accumulation_steps is 2, but accumulate is 1"),
        ('{"gradient_clipping": 0.5}', "gradient_clipping is 0.5, but max_grad_norm is 1.0"),
    ],
)
def test_deepspeed_files_are_checked_before_it_is_needed(
    text: str | None, problem: str, tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_deepspeed(monkeypatch)
    path = tmp_path / "zero.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DiffRetrieverError, match=problem) as caught:
        arguments(tiny_settings(deepspeed=str(path)))
    assert str(path) in str(caught.value)


def test_the_shipped_deepspeed_file_agrees_with_its_run() -> None:
    """accelerate's own comparison, in classes that need no DeepSpeed: every "auto" is filled and no value differs."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    class Config(HfTrainerDeepSpeedConfig, HfDeepSpeedConfig):  # type: ignore[misc]
        def __init__(self, path: str):
            HfDeepSpeedConfig.__init__(self, path)
            self.mismatches: list[str] = []

    settings = read_settings(EXAMPLES / "dream-7b-msmarco.yaml")
    assert settings.deepspeed
    config: Any = Config(settings.deepspeed)
    config.trainer_config_process(arguments(dataclasses.replace(settings, deepspeed=None, device="cpu")))
    assert config.mismatches == []
    assert config.config["train_micro_batch_size_per_gpu"] == settings.batch_size == 16
    assert config.config["gradient_accumulation_steps"] == settings.accumulate
    assert config.config["gradient_clipping"] == settings.max_grad_norm
    assert config.config["bf16"] == {"enabled": True}
    assert config.config["zero_optimization"]["stage"] == 2
