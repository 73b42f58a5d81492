"""FAISS is imported, whichever package it is from; two packages at once are detected, and one command is named."""

import subprocess
import sys
from pathlib import Path

import pytest

from diffretriever_pyserini.runtime.faiss import FaissInstallation, faiss_installation

_BOTH = "run `pip uninstall -y faiss-cpu faiss-gpu && pip install --no-deps faiss-gpu==1.1`"


@pytest.mark.parametrize(
    ("version", "distributions", "remedy"),
    [
        ("1.15.1", {"faiss-gpu": "1.15.1"}, ""),
        ("1.15.1", {"faiss-cpu": "1.15.1"}, ""),
        ("1.15.1", {}, ""),  # of conda
        ("1.15.1", {"faiss-gpu": "1.1", "faiss-cpu": "1.2"}, _BOTH),
        ("", {"faiss-gpu": "1.1", "faiss-cpu": "1.2"}, _BOTH),
        ("", {"faiss-cpu": "1.2"}, "run `pip uninstall -y faiss-cpu && pip install --no-deps faiss-cpu==1.2`"),
    ],
)
def test_one_command_repairs_it(version: str, distributions: dict[str, str], remedy: str) -> None:
    assert FaissInstallation(version, "" if version else "broken", distributions).remedy == remedy


def test_without_faiss_the_package_to_install_is_named() -> None:
    assert "pip install faiss-cpu" in FaissInstallation("", "No module named 'faiss'").remedy


def test_this_environment_has_one() -> None:
    import faiss

    installation = faiss_installation()
    assert installation.version == faiss.__version__
    assert (installation.problem, installation.remedy) == ("", "")
    assert len(installation.distributions) == 1


def test_the_metadata_on_the_path_and_the_import_decide(tmp_path: Path) -> None:
    for name in ("faiss_cpu", "faiss_gpu", "faissade"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (tmp_path / "faiss.py").write_text("raise AttributeError('half of each')")
    program = (  # the parser of metadata is imported before the path is replaced
        "import sys; from importlib import metadata; metadata.metadata('pytest')\n"
        "from diffretriever_pyserini.runtime.faiss import faiss_installation\n"
        f"sys.path[:] = [{str(tmp_path)!r}]; one = faiss_installation(); print(one, one.problem, sep='; ')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "faiss-cpu 1.0, faiss-gpu 1.0; AttributeError: half of each"
