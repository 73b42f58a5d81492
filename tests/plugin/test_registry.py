"""Applying and undoing the table of touch points, on fake modules of Pyserini."""

import inspect
import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

import _diffretriever_pyserini_startup as startup
import diffretriever_pyserini
from diffretriever_pyserini.plugin import attach, registry
from diffretriever_pyserini.plugin.registry import TOUCH_POINTS


def pyserini_function(parameters: tuple[str, ...]) -> object:
    namespace: dict[str, object] = {}
    exec(f"def function({', '.join(parameters)}, *args, **kwargs): return 'pyserini'", namespace)
    return namespace["function"]


def make_pyserini() -> dict[str, ModuleType]:
    """Fake modules that have exactly what the table names."""
    modules: dict[str, ModuleType] = {}
    for point in TOUCH_POINTS:
        module = modules.setdefault(point.module, ModuleType(point.module))
        *path, name = point.attribute.split(".") if point.attribute else [""]
        owner: object = module
        for part in path:
            if not hasattr(owner, part):
                setattr(owner, part, type(part, (), {}))
            owner = getattr(owner, part)
        if point.parameters is None:
            setattr(owner, name, {"ance": 1, "dpr": 2})
        elif point.attribute:
            function = pyserini_function(point.parameters)
            kind = {"cls": classmethod, "self": lambda f: f}.get(
                point.parameters[0], staticmethod if path else lambda f: f
            )
            setattr(owner, name, kind(function))
    return modules


@pytest.fixture
def pyserini(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The fake modules instead of Pyserini's, and nothing registered; everything is restored afterwards."""
    was_on, switched_off = registry.route(), registry._switched_off
    registry.unregister()
    for name in [name for name in sys.modules if name == "pyserini" or name.startswith("pyserini.")]:
        monkeypatch.delitem(sys.modules, name)
    modules = make_pyserini()
    registry._warned.clear()
    yield modules
    registry.unregister()
    monkeypatch.undo()
    if was_on:
        registry.register(route=was_on)
    else:
        registry._switched_off = switched_off
        startup.install()


def show(monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def snapshot(modules: dict[str, ModuleType]) -> list[object]:
    values = []
    for point in TOUCH_POINTS:
        *path, name = point.attribute.split(".")
        owner: object = modules[point.module]
        for part in path:
            owner = getattr(owner, part)
        value = vars(owner).get(name)
        values.append(list(value) if isinstance(value, dict) else value)
    return values


def test_every_touch_point_is_applied_and_undone(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, pyserini)
    before = snapshot(pyserini)
    diffretriever_pyserini.register()
    assert [registry.state(point)[0] for point in TOUCH_POINTS] == ["active"] * len(TOUCH_POINTS)
    changed = snapshot(pyserini)
    assert all(a != b for a, b, point in zip(before, changed, TOUCH_POINTS, strict=True) if point.attribute)
    diffretriever_pyserini.register()  # a second time changes nothing
    assert snapshot(pyserini) == changed
    diffretriever_pyserini.unregister()
    assert snapshot(pyserini) == before
    assert {registry.state(point)[0] for point in TOUCH_POINTS} == {"off"}
    assert registry.route() is None


def test_our_key_comes_first_in_the_map_that_pyserini_already_has(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, pyserini)
    class_map = pyserini["pyserini.encode"].document_encoder_class_map
    registry.register()
    assert list(class_map) == ["diffretriever", "ance", "dpr"]


def test_methods_keep_their_kind_and_signature(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, pyserini)
    before = snapshot(pyserini)
    registry.register()
    for old, new in zip(before, snapshot(pyserini), strict=True):
        if callable(old) or isinstance(old, staticmethod | classmethod):
            assert type(new) is type(old)
            plain = [value.__func__ if isinstance(value, staticmethod | classmethod) else value for value in (old, new)]
            assert inspect.signature(plain[0]) == inspect.signature(plain[1])


def test_modules_are_waited_for(pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register()
    assert {registry.state(point)[0] for point in TOUCH_POINTS} == {"waiting"}
    assert startup.finder.callbacks.keys() == {point.module for point in TOUCH_POINTS}
    assert startup.finder in sys.meta_path
    registry.unregister()
    assert startup.finder not in sys.meta_path


def test_a_missing_attribute_is_named_once_and_the_rest_works(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    del pyserini["pyserini.search.hybrid"].HybridSearcher.search
    pyserini["pyserini.encode"].query_encoder_class_map = ["not a dictionary"]
    show(monkeypatch, pyserini)
    with caplog.at_level(logging.WARNING):
        registry.register()
        registry.register()
    assert len(caplog.records) == 2
    assert "pyserini.encode.query_encoder_class_map (it is not a dictionary but list)" in caplog.messages[0]
    assert "pyserini.search.hybrid.HybridSearcher.search (it does not exist)" in caplog.messages[1]
    states = [registry.state(point)[0] for point in TOUCH_POINTS]
    assert states.count("left out") == 2 and states.count("active") == len(TOUCH_POINTS) - 2


def test_an_error_of_ours_is_a_warning_too(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from diffretriever_pyserini.plugin import touch_search

    monkeypatch.delattr(touch_search, "hybrid_search")
    show(monkeypatch, pyserini)
    registry.register()
    assert ["HybridSearcher.search (AttributeError" in message for message in caplog.messages] == [True]


def test_somebody_elses_later_change_is_not_undone(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, pyserini)
    registry.register()
    other = pyserini_function(("self", "query"))
    pyserini["pyserini.search.hybrid"].HybridSearcher.search = other
    registry.unregister()
    assert pyserini["pyserini.search.hybrid"].HybridSearcher.search is other


def test_making_an_encoder_registers_unless_it_was_switched_off(
    pyserini: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, pyserini)
    monkeypatch.delenv(startup.OPT_OUT, raising=False)
    registry.ensure_registered()
    assert registry.route() is None  # unregister() still applies
    monkeypatch.setattr(registry, "_switched_off", False)
    monkeypatch.setenv(startup.OPT_OUT, "1")
    registry.ensure_registered()
    assert registry.route() is None
    monkeypatch.delenv(startup.OPT_OUT)
    registry.ensure_registered()
    assert registry.route() == "encoder"


def test_the_table_is_complete_and_without_repeats() -> None:
    names = [(point.name, point.attach) for point in TOUCH_POINTS]
    assert len(set(names)) == len(names)
    for point in TOUCH_POINTS:
        file, function = point.attach.split(":")
        module = __import__(f"diffretriever_pyserini.plugin.{file}", fromlist=[function])
        made = getattr(module, function)
        assert callable(made) or (point.parameters is None and isinstance(made, dict) and made)
        assert point.why and point.checked


def test_a_mismatch_changes_nothing() -> None:
    module = ModuleType("module")
    module.function = original = lambda other: other  # type: ignore[attr-defined]
    with pytest.raises(attach.PyseriniMismatch, match=r"its parameters are \(other\)"):
        attach.attach(module, "function", ("self",), "touch_search:hybrid_search")
    assert module.function is original
