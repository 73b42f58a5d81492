"""Touch points that give Pyserini a suitable Java before the JVM starts."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..runtime import java
from .attach import nothing

_VARIABLES = ("JAVA_HOME", "JVM_PATH", "PATH")
configure_classpath = java.configuring


def point_environment() -> Callable[[], None]:
    """Set JAVA_HOME and PATH; no error where no Java is suitable, since much of Pyserini needs none."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    try:
        java.point_environment()
    except java.JavaNotFoundError:
        return nothing
    ours = {name: os.environ.get(name) for name in _VARIABLES}

    def undo() -> None:
        for name, value in before.items():
            if os.environ.get(name) == ours[name]:
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    return undo
