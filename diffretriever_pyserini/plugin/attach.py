"""Apply one touch point to Pyserini, after checking what it replaces, and undo it."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..model.encoder_names import WORD

Undo = Callable[[], None]


class PyseriniMismatch(Exception):  # noqa: N818
    """Pyserini differs from what a touch point expects; the message says how."""


def nothing() -> None:
    """Undo a touch point that has changed nothing."""


def made_by(maker: str) -> Callable[..., Any]:
    """The function that ``maker`` ("file:function" of this folder) names."""
    file, function = maker.split(":")
    made: Callable[..., Any] = getattr(importlib.import_module(f"{__package__}.{file}"), function)
    return made


def attach(module: ModuleType, attribute: str, parameters: tuple[str, ...] | None, maker: str) -> Undo:
    """Replace ``module.attribute`` by what ``maker`` ("file:function" of this folder) returns.

    Parameters
    ----------
    parameters : as in :class:`~.touch_points.TouchPoint`.

    Returns
    -------
    A function that undoes the replacement.

    Raises
    ------
    PyseriniMismatch
        When the attribute is missing or differs from what is expected; nothing has been changed then.
    """
    make = made_by(maker)
    if not attribute:
        return make()
    *path, name = attribute.split(".")
    owner: Any = module
    for part in path:
        owner = getattr(owner, part, None)
    if owner is None or name not in vars(owner):
        raise PyseriniMismatch("it does not exist")
    if parameters is None:
        return _put_first(vars(owner)[name], make)
    return _replace(owner, name, parameters, make)


def _put_first(mapping: Any, value: Any) -> Undo:
    """Make our word, or the keys of a dictionary ``value``, the first keys of ``mapping``, to which Pyserini refers."""
    if not isinstance(mapping, dict):
        raise PyseriniMismatch(f"it is not a dictionary but {type(mapping).__name__}")
    ours = value if isinstance(value, dict) else {WORD: value}
    rest = {key: other for key, other in mapping.items() if key not in ours}
    mapping.clear()
    mapping.update(ours | rest)

    def undo() -> None:
        for key, own in ours.items():
            if mapping.get(key) is own:
                del mapping[key]

    return undo


def _replace(owner: Any, name: str, parameters: tuple[str, ...], make: Callable[[Any], Any]) -> Undo:
    """Replace a function or method (also static or class method) of ``owner`` by ``make(original)``."""
    raw = vars(owner)[name]
    kind = type(raw) if isinstance(raw, staticmethod | classmethod) else None
    original = raw.__func__ if kind else raw
    if not inspect.isfunction(original):
        raise PyseriniMismatch(f"it is not a Python function but {type(raw).__name__}")
    actual = tuple(inspect.signature(original).parameters)
    if actual[: len(parameters)] != parameters:
        raise PyseriniMismatch(f"its parameters are ({', '.join(actual)}), expected ({', '.join(parameters)}, ...)")
    function = functools.wraps(original)(make(original))
    replacement = kind(function) if kind else function
    setattr(owner, name, replacement)

    def undo() -> None:
        if vars(owner).get(name) is replacement:
            setattr(owner, name, raw)

    return undo
