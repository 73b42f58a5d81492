"""The lock file and the requirements agree, and neither names a private index or path."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"


def locked() -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pins.setdefault(re.sub(r"[-_.]+", "-", requirement.name).lower(), []).append(requirement)
    return pins


def required() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for extra in extras.values() for text in extra)]
    return [Requirement(text) for text in texts if not text.startswith(project["name"])]


@pytest.mark.parametrize("requirement", required(), ids=lambda requirement: requirement.name)
def test_every_requirement_is_locked_within_its_bounds(requirement: Requirement) -> None:
    pins = locked()[re.sub(r"[-_.]+", "-", requirement.name).lower()]
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert requirement.specifier.contains(specifier.version)


def test_the_requirements_without_a_gpu_are_the_others_with_faiss_cpu() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    others = {str(Requirement(text)) for text in project["dependencies"] if not text.startswith("faiss-")}
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements-cpu.txt").read_text().splitlines()]
    (faiss,) = (Requirement(line) for line in lines if line.startswith("faiss-"))
    assert {str(Requirement(line)) for line in lines if line and not line.startswith("faiss-")} == others
    assert (faiss.name, faiss.marker) == ("faiss-cpu", None)
    assert any(
        faiss.specifier == Requirement(text).specifier for text in project["dependencies"] if "faiss-cpu" in text
    )


def test_the_image_is_made_of_files_that_exist() -> None:
    """No container is built here; `test_install.py` builds and installs the package from these files."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for name in allowed if not (ROOT / name).exists()} == set()
    assert set(re.findall(r"-[rc] (\S+)", (ROOT / "Dockerfile").read_text())) <= allowed


def test_the_lock_file_has_only_pins() -> None:
    text = LOCK.read_text()
    assert "://" not in text
    assert not re.search(r"^[-/.]", text, re.MULTILINE)


def test_every_dependency_has_a_comment_with_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().split("dependencies = [\n", 1)[1].split("]\n", 1)[0].splitlines()
    assert len(lines) > 15
    assert all(re.search(r'",\s+# \S+', line) for line in lines)


def test_the_project_has_authors_keywords_and_python_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / project["readme"]).read_text(encoding="utf-8")
    assert [author["name"] for author in project["authors"]] == ["DiffRetriever in Pyserini developers"]
    assert all(url in readme for url in project["urls"].values())
    assert len(project["keywords"]) == len(set(project["keywords"])) >= 5
    prefix = "Programming Language :: Python :: "
    listed = {line.removeprefix(prefix) for line in project["classifiers"] if line.startswith(prefix)}
    assert listed == {"3", "3.12", "3.13"}
    assert all(SpecifierSet(project["requires-python"]).contains(version) for version in listed - {"3"})


def test_one_version_everywhere() -> None:
    import diffretriever_pyserini

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == diffretriever_pyserini.__version__
