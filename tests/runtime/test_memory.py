"""How much memory is free, from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffretriever_pyserini.runtime.memory import available_bytes


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Files of a machine with 8 GiB free and no control group."""
    write(tmp_path / "proc", meminfo="MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    return tmp_path / "proc"


def test_the_memory_of_the_machine(proc: Path, tmp_path: Path) -> None:
    assert available_bytes(proc, tmp_path / "none") == 8 << 30
    assert available_bytes(tmp_path / "nothing", tmp_path / "none") is None


def test_a_control_group_of_version_two_and_the_one_above_it(proc: Path, tmp_path: Path) -> None:
    write(proc, self__cgroup="0::/user/job\n")
    groups = tmp_path / "groups"
    (groups / "user" / "job").mkdir(parents=True)
    for name, text in {"max": "3000", "current": "1000", "stat": "anon 900\ninactive_file 250\n"}.items():
        (groups / "user" / "job" / f"memory.{name}").write_text(text)
    assert available_bytes(proc, groups) == 2250
    for name, text in {"max": "1500", "current": "1000"}.items():
        (groups / "user" / f"memory.{name}").write_text(text)
    assert available_bytes(proc, groups) == 500
    (groups / "user" / "memory.max").write_text("max")
    assert available_bytes(proc, groups) == 2250


def test_a_container_of_version_one(proc: Path, tmp_path: Path) -> None:
    write(proc, self__cgroup="4:cpu:/x\n3:memory:/path/on/the/machine\n")
    folder = tmp_path / "groups" / "memory"
    folder.mkdir(parents=True)
    for name, text in {"limit_in_bytes": "9000", "usage_in_bytes": "4000", "stat": "total_inactive_file 1\n"}.items():
        (folder / f"memory.{name}").write_text(text)
    assert available_bytes(proc, tmp_path / "groups") == 5001


def test_this_machine() -> None:
    size = available_bytes()
    assert size is None or size > 1 << 20
