"""Fixtures of the whole suite: the shared conformance data and collections, or a clear word that they are absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# No model hub is reachable in tests; without this, lookups hang and retry.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Models this small lose more to threads that wait for each other than they gain: on a busy machine a factor of ten.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from .warm import ENVIRONMENT  # the variables above are part of it

# For several workers: long files begin first, so that none is left over at the end, and these are shared out by their
# first parameter (a page, an encoder).
SPLIT = ("tests/docs/test_docs.py", "tests/end_to_end/test_literal_commands.py")
LONG = (*SPLIT, "tests/end_to_end/", "tests/training/", "tests/runtime/", "tests/encoding/", "tests/indexes/")


def _restore(environment: dict[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _restore(ENVIRONMENT)  # importing pyserini.encode changes it, and commands would no longer start warm (warm.py)
    items.sort(key=lambda item: next((i for i, name in enumerate(LONG) if item.nodeid.startswith(name)), len(LONG)))


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """What a library sets (accelerate does, for FSDP) is not there for the tests after it."""
    before = dict(os.environ)
    yield
    _restore(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Nor is what the fixtures of a file left for the files after it."""
    yield
    if nextitem is None or nextitem.path != item.path:
        _restore(ENVIRONMENT | {name: os.environ[name] for name in ("PYTEST_CURRENT_TEST",) if name in os.environ})


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile``, but for SPLIT and the order."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file, _, parameters = nodeid.partition("[")
            file = file.partition("::")[0]
            return f"{file}[{parameters.partition('-')[0].rstrip(']')}" if file in SPLIT else file

    config.option.loadscopereorder = False  # it would begin with the files of many short tests
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: the published goldens and collections are not part of this repository")
    return folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of goldens and test collections beside the repository."""
    return _folder("")


@pytest.fixture(scope="session")
def conformance_dir() -> Path:
    """Tiny checkpoints and recorded outputs of the published method."""
    return _folder("conformance")


@pytest.fixture(scope="session")
def tiny_dream(conformance_dir: Path) -> Path:
    """A tiny Dream checkpoint with random weights."""
    return conformance_dir / "checkpoints" / "tiny-dream"


@pytest.fixture(scope="session")
def tiny_name(tiny_dream: Path) -> str:
    """Encoder name of a tiny Dream checkpoint with random weights, H = 64."""
    return f"diffretriever:{tiny_dream}"


@pytest.fixture(scope="session")
def hook_installed() -> None:
    """The start-up hook runs in this environment; tests of what a fresh Python does need it."""
    import subprocess
    import sys

    program = "import sys; sys.exit('_diffretriever_pyserini_startup' not in sys.modules)"
    if subprocess.run([sys.executable, "-c", program], check=False).returncode:
        pytest.skip("the package is not installed here (only on the path), so its start-up hook does not run")
