"""The public names: complete, documented with an example that runs, and shown by what they hold."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path

import pytest

import diffretriever_pyserini
from diffretriever_pyserini import (
    Corpus,
    DiffRetriever,
    DiffRetrieverQueryEncoder,
    EncodeOptions,
    IndexOptions,
    Store,
    build_index,
    encode_corpus,
    explain,
    open_index,
)

ROOT = Path(__file__).resolve().parents[1]
NAMES = [name for name in diffretriever_pyserini.__all__ if name not in ("__version__", "scoring")]
PACKAGES = [
    name
    for _, name, is_package in pkgutil.walk_packages(diffretriever_pyserini.__path__, "diffretriever_pyserini.")
    if is_package
]
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE
SCORING = [f"diffretriever_pyserini.scoring.{name}" for name in diffretriever_pyserini.scoring.__all__]


def resolve(name: str) -> object:
    """The object that ``name``, with or without its package, stands for."""
    package, _, own = name.rpartition(".")
    return getattr(importlib.import_module(package or "diffretriever_pyserini"), own)


@pytest.mark.parametrize("name", [*NAMES, *SCORING])
def test_the_example_of_a_public_name_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    target = resolve(name)
    text = inspect.getdoc(target) or ""
    test = doctest.DocTestParser().get_doctest(text, {}, name, inspect.getsourcefile(target), None)
    assert test.examples, f"{name} has no example"
    with warnings.catch_warnings(action="error", category=UserWarning):
        outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
    assert outcome.failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", [*NAMES, *SCORING])
def test_a_public_function_says_what_it_takes_and_raises(name: str) -> None:
    target = resolve(name)
    text = inspect.getdoc(target) or ""
    if inspect.isfunction(target) and inspect.signature(target).parameters:
        assert "Parameters\n---" in text, name
        for parameter in inspect.signature(target).parameters:
            assert re.search(rf"\b{parameter}\b", text.split("Examples\n---")[0]), f"{name} says nothing of {parameter}"
    if "raise " in inspect.getsource(target) and inspect.isfunction(target):
        assert "Raises\n---" in text, name


@pytest.mark.parametrize("package", ["diffretriever_pyserini", *PACKAGES])
def test_every_name_that_a_package_lists_is_there(package: str) -> None:
    module = importlib.import_module(package)
    listed = getattr(module, "__all__", [])
    if package.count(".") < 2 and package.rpartition(".")[2] not in ("cli", "demo", "files", "runtime"):
        assert listed, f"{package} lists no public names"
    assert all(getattr(module, name) is not None for name in listed)
    source = inspect.getsource(module)
    if "TYPE_CHECKING" in source:  # what type checkers see is what is there
        block = source.split("if TYPE_CHECKING:")[1].split("\n_HOMES")[0]
        seen = [
            name.strip() for line in re.findall(r"import (.+)", block.replace("(\n", "")) for name in line.split(",")
        ]
        assert sorted(filter(None, seen)) == sorted(set(listed) - {"__version__"})


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Corpora'"):
        _ = diffretriever_pyserini.Corpora


def test_leaving_the_side_out_warns_and_means_passages() -> None:
    model = DiffRetriever.from_pretrained("diffretriever")
    with pytest.warns(UserWarning, match="encode_query or encode_document"):
        left_out = model.encode(["dense retrieval"])
    with warnings.catch_warnings(action="error"):
        passage, query = model.encode_document(["dense retrieval"]), model.encode_query(["dense retrieval"])
    assert left_out.vectors.tobytes() == passage.vectors.tobytes()
    assert query.vectors.shape[1] == model.config.k_query


def test_what_is_shown_at_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "p1", "contents": "Paris is in France."}\n')
    model, corpus = DiffRetriever.from_pretrained("diffretriever"), Corpus(tmp_path / "corpus.jsonl")
    encode_corpus(model, corpus, tmp_path / "store", EncodeOptions())
    build_index(tmp_path / "store", tmp_path / "index", IndexOptions(quiet=True))
    k, h, v = model.config.k_passage, model.dimension, model.vocab_size
    assert repr(corpus) == f"Corpus({str(tmp_path / 'corpus.jsonl')!r})"
    for part in (f"k_passage={k}", f"dimension={h}", "device='cpu'", "float32"):
        assert part in repr(model)
    assert f"vectors float32 [1, {k}, {h}], weights int32 [1, {v}]" in repr(model.encode_document(["Paris"]))
    assert f"1 rows, all vectors [{k}, {h}] float16" in repr(Store(tmp_path / "store"))
    assert "pooled vectors, device='cpu')" in repr(DiffRetrieverQueryEncoder("diffretriever"))
    with open_index(tmp_path / "index") as index:
        assert "modes=('dense', 'lexical', 'hybrid')" in repr(index)
        explanation = explain(index, "where is <Paris>", ["p1"])[0]
    frame = explanation._repr_html_()
    assert frame.startswith("<iframe srcdoc=") and "&lt;html" in frame and "<html" not in frame


def test_the_page_is_written_from_the_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    write_api = importlib.import_module("write_api")
    assert (ROOT / "docs" / "api.md").read_text() == write_api.page(), "run python scripts/write_api.py"
    shown = {name for names in write_api.GROUPS.values() for name in names}
    assert shown - {"searching.SearchIndex"} == {
        *NAMES,
        *(name.removeprefix("diffretriever_pyserini.") for name in SCORING),
    }
