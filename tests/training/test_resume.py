"""A killed and resumed run has the weights (bit for bit) and the log of an unbroken run; two devices train as one."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.training.data.sources import digests
from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.run import _start, last_complete, train
from diffretriever_pyserini.training.settings import TrainSettings

from .. import warm

Settings = Callable[..., TrainSettings]
STEPS = 8


def command(settings: TrainSettings, file: Path, *start: str) -> list[str]:
    file.write_text(yaml.safe_dump(settings.to_dict()))
    return [*start, "-m", "diffretriever_pyserini", "train", "--config", str(file)]


def same_bits(one: Path, two: Path, name: str = "adapter_model.safetensors") -> None:
    first, second = load_file(one / name), load_file(two / name)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


def test_kill_at_a_random_step_and_resume(tiny_settings: Settings, tmp_path: Path) -> None:
    def settings(name: str) -> TrainSettings:
        # 40 rows are 8 batches and 4 updates per epoch: checkpoints are written inside an epoch and at its end.
        return tiny_settings(
            output=str(tmp_path / name), max_steps=STEPS, save_steps=2, batch_size=5, accumulate=2, dev_rows=8
        )

    train(settings("unbroken"), say=lambda _: None)
    stop_after = random.randrange(2, STEPS - 1)
    broken = tmp_path / "broken"
    start = command(settings("broken"), tmp_path / "broken.yaml", warm.python())
    process = subprocess.Popen(start, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while max((record["step"] for record in read_log(broken / "log.jsonl")), default=0) < stop_after:
            assert process.poll() is None and time.monotonic() < deadline, "the run ended or hung before the kill"
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()  # until the pipe's end: the command has ended, too
    assert not (broken / "adapter_model.safetensors").is_file(), f"killed after step {stop_after}, yet finished"
    train(settings("broken"), resume=True, say=lambda _: None)
    same_bits(broken, tmp_path / "unbroken")
    losses = [
        [(record["step"], record["loss"]) for record in read_log(tmp_path / name / "log.jsonl") if "loss" in record]
        for name in ("broken", "unbroken")
    ]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, STEPS + 1))


def test_a_half_written_checkpoint_is_skipped_and_removed(tmp_path: Path) -> None:
    for step, state in ((2, "{}"), (10, '{"global_step": 1'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_complete(list(tmp_path.glob("checkpoint-*"))) == tmp_path / "checkpoint-2"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"], "incomplete ones are removed"
    assert last_complete([]) is None


def test_settings_that_a_kill_left_half_written_do_not_stop_the_next_run(
    tiny_settings: Settings, tmp_path: Path
) -> None:
    settings = tiny_settings(output=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.yaml.partial").write_text("outp")
    assert _start(tmp_path / "run", settings, resume=False) is None
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["data", "train.yaml"]


def test_a_link_to_a_missing_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    settings = TrainSettings(model="m", data=[str(tmp_path / "rows.jsonl")], output=str(tmp_path / "run"))
    (tmp_path / "run").symlink_to("disk/run")
    assert _start(tmp_path / "run", settings, resume=False) is None
    assert (tmp_path / "disk" / "run" / "train.yaml").is_file() and (tmp_path / "run").is_symlink()


def test_early_stopping_keeps_the_best_checkpoint(tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings(max_steps=6, learning_rate=0.5, dev_rows=8, eval_steps=1, patience=1, metric="multi")
    figures = train(settings, say=lambda _: None)
    assert figures["steps"] < 6, "a learning rate of 0.5 only makes it worse"
    seen = [record["eval_multi"] for record in read_log(tmp_path / "out" / "log.jsonl") if "eval_multi" in record]
    assert figures["development_after"]["eval_multi"] == pytest.approx(max(seen[1:]))
    same_bits(tmp_path / "out", tmp_path / "out" / figures["best_checkpoint"])


def test_the_best_evaluation_is_kept_wherever_it_falls(tiny_settings: Settings, tmp_path: Path) -> None:
    """Evaluated each step, saved every fourth: the best weights occur between two saves and are saved too."""
    settings = tiny_settings(
        max_steps=4, learning_rate=0.5, dev_rows=8, eval_steps=1, save_steps=4, metric="multi", keep_checkpoints=1
    )
    figures = train(settings, say=lambda _: None)
    seen = [record["eval_multi"] for record in read_log(tmp_path / "out" / "log.jsonl") if "eval_multi" in record]
    assert len(seen) == 5, "before the first step and after each; the best weights are not logged again"
    assert figures["best_checkpoint"] == f"checkpoint-{seen.index(max(seen[1:]), 1)}" != "checkpoint-4"
    assert figures["development_after"]["eval_multi"] == pytest.approx(max(seen[1:]))


def test_early_stopping_counts_on_after_a_resume(tiny_settings: Settings, tmp_path: Path) -> None:
    settings = tiny_settings(
        max_steps=9, learning_rate=0.5, dev_rows=8, eval_steps=1, patience=2, metric="multi", keep_checkpoints=0
    )
    unbroken = train(settings, say=lambda _: None)
    assert 2 < unbroken["steps"] < 9
    before = load_file(tmp_path / "out" / "adapter_model.safetensors")
    shutil.rmtree(tmp_path / "out" / f"checkpoint-{unbroken['steps']}")
    assert train(settings, resume=True, say=lambda _: None) == unbroken
    after = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("dev_rows", [0, 8])
def test_a_finished_run_is_not_trained_further(dev_rows: int, tiny_settings: Settings, tmp_path: Path) -> None:
    """Killed between the last checkpoint and the end, or resumed by mistake: the weights do not change."""
    settings = tiny_settings(save_steps=3, schedule="constant", dev_rows=dev_rows)
    figures = train(settings, say=lambda _: None)
    before = load_file(tmp_path / "out" / "adapter_model.safetensors")
    log = (tmp_path / "out" / "log.jsonl").read_text()
    (tmp_path / "out" / "adapter_model.safetensors").unlink()
    assert train(settings, resume=True, say=lambda _: None) == figures
    after = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert (tmp_path / "out" / "log.jsonl").read_text() == log


def test_a_resume_with_other_data_is_refused(tiny_settings: Settings, rows_file: Path, tmp_path: Path) -> None:
    """The content counts even with the same name, size and time. A file that was only touched is accepted."""
    data, dev = tmp_path / "data", tmp_path / "dev.jsonl"
    data.mkdir()
    rows = rows_file.read_text()
    for name in ("a.jsonl", "b.jsonl"):
        (data / name).write_text(rows)
    dev.write_text("\n".join(rows.splitlines()[:4]))
    settings = tiny_settings(data=(str(data),), dev=(str(dev),), save_steps=2)
    train(settings, say=lambda _: None)
    shutil.rmtree(tmp_path / "out" / "checkpoint-3")

    def refused(path: Path) -> None:
        with pytest.raises(ConfigError, match=r"resume with the same rows") as caught:
            train(settings, resume=True, say=lambda _: None)
        assert str(caught.value).startswith(f"{path}: ")

    for path in (data / "b.jsonl", dev):
        before, times = path.read_text(), path.stat()
        path.write_text(before.replace("spring", "summer"))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert path.stat().st_size == times.st_size
        refused(path)
        path.write_text(before)
        os.utime(path)
    (data / "b.jsonl").rename(data / "c.jsonl")
    refused(data / "b.jsonl")
    (data / "c.jsonl").rename(data / "b.jsonl")
    (data / "c.tsv").write_text("a query\ta passage")
    refused(data / "c.tsv")
    (data / "c.tsv").unlink()
    assert train(settings, resume=True, say=lambda _: None)["steps"] == 3


def test_the_files_of_a_beir_collection_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    files = [folder / name for name in ("corpus.jsonl", "queries.jsonl.gz", "qrels/train.tsv")]
    for file in (*files, folder / "qrels" / "test.tsv"):
        file.write_text(file.name)
    before = digests([str(folder), "owner/name"])
    assert list(before) == [str(file) for file in files]
    files[1].write_text("QUERIES.jsonl.gz")
    after = digests([str(folder), "owner/name"])
    assert [name for name in before if before[name] != after[name]] == [str(files[1])]


def test_two_devices_make_the_same_step_as_one(tiny_settings: Settings, tmp_path: Path) -> None:
    """Cross-device negatives: loss and gradient norm of 2 x 2 queries are those of one batch of 4."""

    def settings(name: str, batch_size: int) -> TrainSettings:
        return tiny_settings(
            output=str(tmp_path / name),
            batch_size=batch_size,
            lora_dropout=0.0,
            max_steps=2,
            chunk=4,
            learning_rate=1e-4,
            warmup_ratio=0.0,
            dev_rows=8,
            eval_steps=1,
        )

    train(settings("one", 4), say=lambda _: None)
    done = subprocess.run(
        command(settings("two", 2), tmp_path / "two.yaml", *warm.torchrun()),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    for alone, together in zip(*([record for record in log if "eval_dense" in record] for log in logs), strict=True):
        assert together["eval_dense"] == pytest.approx(alone["eval_dense"], abs=0.02)
    one, two = ([record for record in log if "loss" in record] for log in logs)
    assert len(one) == 2
    for alone, together in zip(one, two, strict=True):
        for name in ("loss", "dense", "lexical", "grad_norm"):
            assert together[name] == pytest.approx(alone[name], rel=2e-3), name
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two")]
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, atol=3e-4, rtol=0)
    last = tmp_path / "two" / "checkpoint-2"
    unbroken = load_file(last / "adapter_model.safetensors")
    shutil.rmtree(last)
    done = subprocess.run(
        [*command(settings("two", 2), tmp_path / "two.yaml", *warm.torchrun()), "--resume"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    resumed = load_file(last / "adapter_model.safetensors")
    for key, tensor in unbroken.items():
        torch.testing.assert_close(resumed[key], tensor, atol=1e-6, rtol=0)
