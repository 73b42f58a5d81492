"""Applies and undoes the touch points: everything that we change inside Pyserini.

An entry is applied while its module of Pyserini is imported, or right after. It first checks that Pyserini has what it
expects. If not, one warning names the entry, it is left out, and Pyserini and all other entries continue to work.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import ModuleType

import _diffretriever_pyserini_startup as startup

from .attach import PyseriniMismatch, Undo, attach, made_by, nothing
from .touch_points import TOUCH_POINTS, TouchPoint

logger = logging.getLogger(__name__)

_LOADING = {point.module: point for point in TOUCH_POINTS if point.loads}
_lock = threading.RLock()
_undo: dict[TouchPoint, Undo] = {}
_problems: dict[TouchPoint, str] = {}
_warned: set[TouchPoint] = set()
_route: str | None = None
_switched_off = False


def register(route: str = "explicit") -> None:
    """Apply all touch points, now or when their modules are imported. A second call changes nothing.

    The start-up hook calls this. Call it yourself where that does not run (``python -S``, ``pip install --target``).

    Parameters
    ----------
    route : what `diffretriever doctor` shows as the caller.

    Examples
    --------
    >>> from diffretriever_pyserini import register, unregister
    >>> register()
    >>> from pyserini.search.faiss import FaissSearcher
    """
    global _route, _switched_off
    with _lock:
        _switched_off = False
        _route = _route or route
        for module in dict.fromkeys(point.module for point in TOUCH_POINTS):
            if module in sys.modules:
                _attach_module(sys.modules[module])
            else:
                startup.finder.watch(module, _attach_module, _load_module if module in _LOADING else None)


def unregister() -> None:
    """Undo all changes to Pyserini in this process, and stay off until :func:`register` is called.

    Examples
    --------
    >>> from diffretriever_pyserini import register, unregister
    >>> unregister()
    >>> register()
    """
    global _route, _switched_off
    with _lock:
        _switched_off = True
        _route = None
        for module in {point.module for point in TOUCH_POINTS}:
            startup.finder.forget(module)
        for point in reversed(list(_undo)):
            _undo.pop(point)()
        _problems.clear()


def ensure_registered() -> None:
    """Register, unless that was done or switched off (environment variable, or :func:`unregister`)."""
    if _route is None and not _switched_off and not startup.opted_out():
        register(route="encoder")


def route() -> str | None:
    """How the plugin was registered: ``hook``, ``explicit``, ``encoder`` (our encoders were imported), or None."""
    return _route


def state(point: TouchPoint) -> tuple[str, str]:
    """(``active`` | ``waiting`` | ``left out`` | ``off``, detail) of one touch point."""
    if point in _undo:
        return "active", ""
    if point in _problems:
        return "left out", _problems[point]
    if _route is None:
        return "off", ""
    return "waiting", f"{point.module} is not imported yet"


def _load_module(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute the body of a module of Pyserini as its touch point does, or else as Pyserini does."""
    point = _LOADING[module.__name__]
    try:
        _undo[point] = made_by(point.attach)(execute, module)
    except PyseriniMismatch as error:
        _leave_out(point, error)
        execute(module)


def _attach_module(module: ModuleType) -> None:
    """Apply every touch point of a module of Pyserini that has just been imported."""
    with _lock:
        for point in TOUCH_POINTS:
            if point.module == module.__name__ and point not in _undo:
                if point.loads:
                    if point not in _problems:  # imported before us, so there is nothing left to do
                        _undo[point] = nothing
                    continue
                try:
                    _undo[point] = attach(module, point.attribute, point.parameters, point.attach)
                    _problems.pop(point, None)
                except Exception as error:
                    _leave_out(point, error)


def _leave_out(point: TouchPoint, error: Exception) -> None:
    _problems[point] = str(error) if isinstance(error, PyseriniMismatch) else f"{type(error).__name__}: {error}"
    if point not in _warned:
        _warned.add(point)
        logger.warning(
            "This Pyserini differs from what DiffRetriever expects at %s (%s). It was left unchanged, so %s does not "
            "hold. Pyserini 2.3 and 2.4 are known to work; `diffretriever doctor` shows all touch points.",
            point.name,
            _problems[point],
            f"'{point.why}'",
        )
