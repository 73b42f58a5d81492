"""Putting one touch point in its place inside the host, after checking what is there, and taking it out again."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..model.encoder_names import WORD

Undo = Callable[[], None]


class HostMismatch(Exception):  # noqa: N818
    """The host has something else than a touch point expects; the message says what."""


def attach(module: ModuleType, attribute: str, parameters: tuple[str, ...] | None, maker: str) -> Undo:
    """Put the replacement that ``maker`` ("file:function" of this folder) gives in the place of ``module.attribute``.

    Returns a function that takes it out again. ``parameters`` as in :class:`~.registry.TouchPoint`.

    Raises
    ------
    HostMismatch
        When the attribute is missing or not what it should be; nothing was changed then.
    """
    file, function = maker.split(":")
    make = getattr(importlib.import_module(f"{__package__}.{file}"), function)
    if not attribute:
        return make()
    *path, name = attribute.split(".")
    owner: Any = module
    for part in path:
        owner = getattr(owner, part, None)
    if owner is None or name not in vars(owner):
        raise HostMismatch("it does not exist")
    if parameters is None:
        return _put_first(vars(owner)[name], make)
    return _replace(owner, name, parameters, make)


def _put_first(mapping: Any, value: Any) -> Undo:
    """Make our word the first key of an encoder map, in place; the host keeps references to the map."""
    if not isinstance(mapping, dict):
        raise HostMismatch(f"it is no dictionary but {type(mapping).__name__}")
    rest = {key: other for key, other in mapping.items() if key != WORD}
    mapping.clear()
    mapping.update({WORD: value} | rest)

    def undo() -> None:
        if mapping.get(WORD) is value:
            del mapping[WORD]

    return undo


def _replace(owner: Any, name: str, parameters: tuple[str, ...], make: Callable[[Any], Any]) -> Undo:
    """Put ``make(original)`` in the place of a function or method of ``owner``, static and class methods included."""
    raw = vars(owner)[name]
    kind = type(raw) if isinstance(raw, staticmethod | classmethod) else None
    original = raw.__func__ if kind else raw
    if not inspect.isfunction(original):
        raise HostMismatch(f"it is no Python function but {type(raw).__name__}")
    found = tuple(inspect.signature(original).parameters)
    if found[: len(parameters)] != parameters:
        raise HostMismatch(f"its parameters are ({', '.join(found)}), expected ({', '.join(parameters)}, ...)")
    replacement = functools.wraps(original)(make(original))
    placed = kind(replacement) if kind else replacement
    setattr(owner, name, placed)

    def undo() -> None:
        if vars(owner).get(name) is placed:
            setattr(owner, name, raw)

    return undo
