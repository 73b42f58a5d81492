"""Two FAISS packages at once are detected, and the remedy is named."""

from importlib import metadata
from pathlib import Path

import pytest

from diffretriever_pyserini.runtime.faiss import FaissInstallation, faiss_installation


def test_one_package_is_fine() -> None:
    installation = FaissInstallation({"faiss-gpu": "1.15.1"})
    assert not installation.conflict
    assert installation.remedy == ""


def test_two_packages_conflict_and_the_gpu_one_is_kept() -> None:
    installation = FaissInstallation({"faiss-gpu-cu12": "1.12.0", "faiss-cpu": "1.12.0"})
    assert installation.conflict
    assert installation.remedy == (
        "run `pip uninstall -y faiss-cpu faiss-gpu-cu12` and then `pip install --no-deps faiss-gpu-cu12`"
    )


def test_without_faiss_the_package_to_install_is_named() -> None:
    assert "pip install faiss-gpu" in FaissInstallation({}).remedy


def test_the_metadata_on_the_path_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("faiss_cpu", "faiss_gpu", "faissade"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    metadata.metadata("pytest")  # imports its parser, which the path below would not find
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert faiss_installation().distributions == {"faiss-cpu": "1.0", "faiss-gpu": "1.0"}
