"""Putting the table of touch points on and taking it off, on make-believe host modules."""

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


def host_function(parameters: tuple[str, ...]) -> object:
    namespace: dict[str, object] = {}
    exec(f"def function({', '.join(parameters)}, *args, **kwargs): return 'host'", namespace)
    return namespace["function"]


def make_host() -> dict[str, ModuleType]:
    """A host that has exactly what the table names."""
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
            function = host_function(point.parameters)
            kind = {"cls": classmethod, "self": lambda f: f}.get(
                point.parameters[0], staticmethod if path else lambda f: f
            )
            setattr(owner, name, kind(function))
    return modules


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The make-believe host in sys.modules, our registration fresh; the real one is put back afterwards."""
    was_on = registry.route()
    registry.unregister()
    for name in [name for name in sys.modules if name == "pyserini" or name.startswith("pyserini.")]:
        monkeypatch.delitem(sys.modules, name)
    modules = make_host()
    registry._warned.clear()
    yield modules
    registry.unregister()
    monkeypatch.undo()
    if was_on:
        registry.register(route=was_on)


def show(monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType]) -> None:
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def snapshot(modules: dict[str, ModuleType]) -> list[object]:
    found = []
    for point in TOUCH_POINTS:
        *path, name = point.attribute.split(".")
        owner: object = modules[point.module]
        for part in path:
            owner = getattr(owner, part)
        value = vars(owner).get(name)
        found.append(list(value) if isinstance(value, dict) else value)
    return found


def test_every_touch_point_goes_on_and_off(host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, host)
    before = snapshot(host)
    diffretriever_pyserini.register()
    assert [registry.state(point)[0] for point in TOUCH_POINTS] == ["active"] * len(TOUCH_POINTS)
    changed = snapshot(host)
    assert all(a != b for a, b, point in zip(before, changed, TOUCH_POINTS, strict=True) if point.attribute)
    diffretriever_pyserini.register()  # a second time changes nothing
    assert snapshot(host) == changed
    diffretriever_pyserini.unregister()
    assert snapshot(host) == before
    assert {registry.state(point)[0] for point in TOUCH_POINTS} == {"off"}
    assert registry.route() is None


def test_our_key_comes_first_in_the_map_that_the_host_already_holds(
    host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, host)
    held = host["pyserini.encode"].document_encoder_class_map
    registry.register()
    assert list(held) == ["diffretriever", "ance", "dpr"]


def test_kinds_of_methods_and_their_looks_are_kept(
    host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, host)
    before = snapshot(host)
    registry.register()
    for old, new in zip(before, snapshot(host), strict=True):
        if callable(old) or isinstance(old, staticmethod | classmethod):
            assert type(new) is type(old)
            plain = [value.__func__ if isinstance(value, staticmethod | classmethod) else value for value in (old, new)]
            assert inspect.signature(plain[0]) == inspect.signature(plain[1])


def test_modules_are_waited_for(host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register()
    assert {registry.state(point)[0] for point in TOUCH_POINTS} == {"waiting"}
    assert startup.finder.callbacks.keys() == {point.module for point in TOUCH_POINTS}
    assert startup.finder in sys.meta_path
    registry.unregister()
    assert startup.finder not in sys.meta_path


def test_what_is_missing_is_named_once_and_the_rest_works(
    host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    del host["pyserini.search.hybrid"].HybridSearcher.search
    host["pyserini.encode"].query_encoder_class_map = ["not a dictionary"]
    show(monkeypatch, host)
    with caplog.at_level(logging.WARNING):
        registry.register()
        registry.register()
    assert len(caplog.records) == 2
    assert "pyserini.encode.query_encoder_class_map (it is no dictionary but list)" in caplog.messages[0]
    assert "pyserini.search.hybrid.HybridSearcher.search (it does not exist)" in caplog.messages[1]
    states = [registry.state(point)[0] for point in TOUCH_POINTS]
    assert states.count("left out") == 2 and states.count("active") == len(TOUCH_POINTS) - 2


def test_an_error_of_ours_is_a_warning_too(
    host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from diffretriever_pyserini.plugin import touch_search

    monkeypatch.delattr(touch_search, "hybrid_search")
    show(monkeypatch, host)
    registry.register()
    assert ["HybridSearcher.search (AttributeError" in message for message in caplog.messages] == [True]


def test_somebody_elses_later_change_is_not_undone(
    host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, host)
    registry.register()
    other = host_function(("self", "query"))
    host["pyserini.search.hybrid"].HybridSearcher.search = other
    registry.unregister()
    assert host["pyserini.search.hybrid"].HybridSearcher.search is other


def test_making_an_encoder_registers_unless_it_was_switched_off(
    host: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(monkeypatch, host)
    monkeypatch.delenv(startup.OPT_OUT, raising=False)
    registry.ensure_registered()
    assert registry.route() is None  # unregister() was called, and stays in force
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
        assert callable(getattr(module, function))
        assert point.why and point.checked


def test_a_mismatch_changes_nothing() -> None:
    module = ModuleType("host")
    module.function = original = lambda other: other  # type: ignore[attr-defined]
    with pytest.raises(attach.HostMismatch, match=r"its parameters are \(other\)"):
        attach.attach(module, "function", ("self",), "touch_search:hybrid_search")
    assert module.function is original
