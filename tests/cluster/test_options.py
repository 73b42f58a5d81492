"""Options of a cluster, and what a worker takes of a node."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.cluster import ray
from diffretriever_pyserini.cluster.options import ClusterOptions
from diffretriever_pyserini.cluster.pool import Pool, _cause, _DiedError
from diffretriever_pyserini.cluster.searching import _answers
from diffretriever_pyserini.cluster.worker import Driver
from diffretriever_pyserini.errors import DiffRetrieverError, InputError

CPUS = [{"CPU": 4.0}, {"CPU": 32.0}, {"CPU": 32.0}]
GPUS = [{"CPU": 8.0}, {"CPU": 64.0, "GPU": 8.0}]


@pytest.mark.parametrize(
    ("nodes", "shards", "gpus", "expected"),
    [
        (CPUS, 1, None, (32, 2)),  # the largest node runs the only shard with all it has
        (CPUS, 2, None, (32, 2)),
        (CPUS, 8, None, (8, 8)),
        (CPUS, 17, None, (4, 17)),
        (CPUS, 500, None, (1, 68)),
        (GPUS, 64, 1, (8, 8)),
        (GPUS, 2, 1, (32, 2)),
        (GPUS, 64, 0.5, (4, 16)),
        (GPUS, 64, 4, (32, 2)),
    ],
)
def test_shards_share_the_processors(
    nodes: list[dict[str, float]],
    shards: int,
    gpus: float | None,
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    need = ray.need_of(ClusterOptions("auto", gpus), shards)
    assert (need.cpus, need.workers(nodes)) == expected


def test_a_machine_with_too_little_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"CPU": 2.0}])
    with pytest.raises(InputError, match=r"takes 4 processors, but Ray sees 2 processors and 0 GPUs on this machine"):
        ray.need_of(ClusterOptions(cpus_per_worker=4), 3)
    with pytest.raises(InputError, match=r"takes 1 processor and 1 GPU, but Ray sees 2 processors and 0 GPUs"):
        ray.need_of(ClusterOptions(gpus_per_worker=1), 3)


ENCODE = ["encode", "--corpus", "{corpus}", "--output", "{folder}/S"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*ENCODE, "--shards", "2"], "--shards belongs to --ray; without it, each process has its --shard-id"),
        ([*ENCODE, "--gpus-per-worker", "1"], "--gpus-per-worker belongs to --ray: add it"),
        (["search", "--index", "{folder}", "--topics", "{corpus}", "--output", "r", "--cpus-per-worker", "1"], "--ray"),
        ([*ENCODE, "--ray"], "--ray needs --shards N"),
        ([*ENCODE, "--ray", "--shards", "2", "--devices", "cpu,cpu"], "--ray makes its own shards"),
        ([*ENCODE, "--ray", "--shards", "2", "--shard-id", "1", "--shard-num", "2"], "--ray makes its own shards"),
        ([*ENCODE, "--ray", "--shards", "2", "--device", "cuda"], "Ray gives workers no GPU without --gpus-per-worker"),
        ([*ENCODE, "--ray", "--shards", "2", "--encoder", "nowhere"], "'nowhere' is neither a folder"),
        (["index", "--store", "{folder}", "--output", "I", "--ray"], "--ray needs --shards N with N above 1"),
    ],
)
def test_commands_that_cannot_work(
    command: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "contents": "text"}\n')
    assert main([word.format(folder=tmp_path, corpus=tmp_path / "corpus.jsonl") for word in command]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DiffRetrieverError, match=r"pip install 'diffretriever-pyserini\[ray\]'"), ray.connected("auto"):
        pass


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "[::1]:{}", "ray://127.0.0.1:{}", "unknown.invalid:{}"])
def test_an_address_where_nothing_listens_fails_at_once(form: str) -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        address = form.format(bound.getsockname()[1])
        with (
            pytest.raises(DiffRetrieverError, match=rf"--ray {re.escape(address)}: no connection to a Ray cluster"),
            ray.connected(address),
        ):
            pass


def test_a_worker_that_ray_ends_for_lack_of_memory_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray as engine

    def out_of_memory(references: object) -> None:
        raise engine.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory. More.")

    monkeypatch.setattr(engine, "get", out_of_memory)
    with pytest.raises(_DiedError, match="running low on memory"):
        Pool._result(Mock(), "reference", Mock())
    with pytest.raises(DiffRetrieverError, match=r"a worker died .* running low on memory"):
        _answers(["reference"])


def test_a_node_without_the_folder_or_with_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"nowhere cannot be opened on this node .*folder that all nodes share"):
        Driver(str(tmp_path / "nowhere")).follow()
    with pytest.raises(InputError, match=r"this node has diffretriever-pyserini .*, but the driver has 0\.0\.1"):
        Driver(version="0.0.1").follow()


def test_how_a_worker_died_is_a_sentence() -> None:
    report = (
        "The actor died unexpectedly before finishing this task.\n\tclass_name: A\nThe actor is dead because its "
        "worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a "
        "connection error code 2. End of file. Some common causes include: many."
    )
    assert _cause(report) == "Worker unexpectedly exits with a connection error code 2"
    assert _cause("The actor died.") == "The actor died"
