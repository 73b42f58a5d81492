"""Touch points that give Pyserini a Java it can run on, before the JVM starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from ..runtime import java

logger = logging.getLogger(__name__)
_VARIABLES = ("JAVA_HOME", "JVM_PATH", "PATH")
_choice: java.JavaChoice | None = None


def point_environment() -> Callable[[], None]:
    """Set JAVA_HOME and PATH; silent where no Java suits, since much of Pyserini needs none."""
    global _choice
    if java.jvm_running():
        return _nothing
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        _choice = java.choose_java()
    except java.JavaNotFoundError:
        return _nothing
    java.point_environment_at(_choice.runtime)
    ours = {name: os.environ.get(name) for name in _VARIABLES}

    def undo() -> None:
        for name, value in before.items():
            if os.environ.get(name) == ours[name]:
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    return undo


def configure_classpath(original: Callable[..., None]) -> Callable[..., None]:
    """The host's set-up of the JVM, on the runtime of our choice and without what it cannot take or should not."""

    def configure(anserini_root: str = ".") -> None:
        if java.jvm_running():
            return original(anserini_root)
        choice = chosen()
        for note in choice.notes:
            logger.warning("%s", note)
        java.point_environment_at(choice.runtime)
        original(anserini_root)
        java.leave_signals_to_python()
        if not choice.runtime.vector:
            java.drop_vector_option()

    return configure


def chosen() -> java.JavaChoice:
    """The choice made when Pyserini was imported, unless JAVA_HOME was changed since. Raises JavaNotFoundError."""
    if _choice is not None and os.environ.get("JAVA_HOME") == str(_choice.runtime.home):
        return _choice
    return java.choose_java()


def _nothing() -> None:
    """There was nothing to change, so there is nothing to undo."""
