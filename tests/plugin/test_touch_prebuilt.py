"""Importing Pyserini without a connection, as installed and with files of prebuilt indexes that differ from 2.4.0's."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diffretriever_pyserini.plugin.attach import PyseriniMismatch
from diffretriever_pyserini.plugin.touch_prebuilt import load_without_download

from .. import warm
from .test_startup import make_pyserini, python

BODY = """
import json
from urllib.request import urlopen

URL = "https://raw.githubusercontent.com/castorini/prebuilt-indexes/0/"


class Mapping:
    def __init__(self, *urls):
        self._urls, self._info = urls, None

    def __getitem__(self, name):
        if self._info is None:
            records = []
            for url in self._urls:
                with urlopen(url, timeout=10) as response:
                    records += json.load(response)
            self._info = {record["name"]: {key: record[key] for key in ("md5", "description")} for record in records}
        return self._info[name]

    def __contains__(self, name):
        try:
            return bool(self[name])
        except KeyError:
            return False


class Catalogue:
    def __init__(self, *sources, aliases=None):
        self._sources, self._aliases = sources, aliases or {}

    def __getitem__(self, name):
        name = self._aliases.get(name, name)
        return next(source[name] for source in self._sources if name in source)


IMPACT_INDEX_INFO_MSMARCO = Mapping(URL + "a.json", URL + "b.json")
IMPACT_INDEX_INFO_MSMARCO_ALIASES = {"d2q": IMPACT_INDEX_INFO_MSMARCO["msmarco-v1-passage.unicoil"]}
IMPACT_INDEX_INFO = Catalogue(IMPACT_INDEX_INFO_MSMARCO, IMPACT_INDEX_INFO_MSMARCO_ALIASES)
"""
OTHER_NAME = BODY.replace("msmarco-v1-passage.unicoil", "msmarco-v3-passage.unicoil")
OTHER_MAPPING = BODY + 'OTHER = Mapping(URL + "c.json")\nOTHER["msmarco-v1-passage.unicoil"]\n'
REPAIRED = BODY.replace('IMPACT_INDEX_INFO_MSMARCO["msmarco-v1-passage.unicoil"]', '"msmarco-v1-passage.unicoil"')
NETWORK = """
import sys
asked = []
events = ("urllib.Request", "socket.getaddrinfo", "socket.connect")
sys.addaudithook(lambda event, arguments: asked.append((event, arguments)) if event in events else None)
"""


def module_of(body: str) -> Any:
    module = ModuleType("pyserini.prebuilt_index_info")
    return module, lambda module: exec(body, vars(module))


@pytest.fixture
def urlopen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses that are downloaded; each answer has one record, with the address as its digest."""
    import io
    import urllib.request

    downloaded: list[str] = []

    def download(url: str, timeout: float | None = None) -> io.BytesIO:
        downloaded.append(url)
        names = ("msmarco-v1-passage.unicoil", "msmarco-v3-passage.unicoil")
        return io.BytesIO(json.dumps([{"name": name, "md5": url, "description": ""} for name in names]).encode())

    monkeypatch.setattr(urllib.request, "urlopen", download)
    yield downloaded
    assert urllib.request.urlopen is download


def test_an_alias_is_looked_up_when_it_is_used(urlopen: list[str]) -> None:
    module, execute = module_of(BODY)
    load_without_download(execute, module)
    assert urlopen == []
    assert module.IMPACT_INDEX_INFO_MSMARCO_ALIASES == {"d2q": "msmarco-v1-passage.unicoil"}
    assert module.IMPACT_INDEX_INFO["d2q"]["md5"] == module.URL + "b.json"
    assert urlopen == [module.URL + "a.json", module.URL + "b.json"]
    assert module.IMPACT_INDEX_INFO["msmarco-v3-passage.unicoil"]["md5"] == module.URL + "b.json"


@pytest.mark.parametrize("body", [OTHER_NAME, OTHER_MAPPING])
def test_a_body_that_asks_for_more_is_a_mismatch(urlopen: list[str], body: str) -> None:
    module, execute = module_of(body)
    with pytest.raises(PyseriniMismatch):
        load_without_download(execute, module)
    assert urlopen == []
    execute(module)  # as the registry then does
    assert module.urlopen("http://other") and urlopen[:2] == [module.URL + "a.json", module.URL + "b.json"]


def test_a_body_without_downloads_is_not_changed(urlopen: list[str]) -> None:
    module, execute = module_of(REPAIRED)
    load_without_download(execute, module)
    assert module.IMPACT_INDEX_INFO_MSMARCO_ALIASES in module.IMPACT_INDEX_INFO._sources


def test_an_error_of_the_body_is_its_own(urlopen: list[str]) -> None:
    module, execute = module_of("import no_such_module_of_pyserini")
    with pytest.raises(ModuleNotFoundError):
        load_without_download(execute, module)


def test_other_downloads_are_real(urlopen: list[str]) -> None:
    """Of this thread from elsewhere, and of other threads."""
    module, execute = module_of("import urllib.request\nurllib.request.urlopen('https://elsewhere')\nother_thread()\n")

    def other_thread() -> None:
        import urllib.request

        url = "https://raw.githubusercontent.com/castorini/prebuilt-indexes/1/a.json"
        thread = threading.Thread(target=lambda: urllib.request.urlopen(url))
        thread.start()
        thread.join()

    module.other_thread = other_thread
    load_without_download(execute, module)
    assert urlopen == ["https://elsewhere", "https://raw.githubusercontent.com/castorini/prebuilt-indexes/1/a.json"]


@pytest.mark.usefixtures("hook_installed")
def test_another_body_is_executed_as_pyserini_does_after_one_warning(tmp_path: Path) -> None:
    pyserini = make_pyserini(tmp_path, {"__init__.py": "", "prebuilt_index_info.py": OTHER_NAME})
    local = "import io, json, urllib.request; urllib.request.urlopen = lambda url, timeout: io.BytesIO(json.dumps(["
    local += "{'name': 'msmarco-v3-passage.unicoil', 'md5': url, 'description': 'real'}]).encode()); "
    done = python(
        "-c", local + "import pyserini.prebuilt_index_info as p; print(p.IMPACT_INDEX_INFO['d2q'])", path=pyserini
    )
    assert "'description': 'real'" in done.stdout, done.stderr
    (warning,) = done.stderr.splitlines()
    assert "at pyserini.prebuilt_index_info (KeyError: 'msmarco-v3-passage.unicoil'). It was left unchanged" in warning


@pytest.mark.usefixtures("hook_installed")
def test_this_pyserini_is_imported_without_the_network(tmp_path: Path) -> None:
    """All that its commands import but the servers; two aliases of 2.4 are names then, and the mapping is unread."""
    modules = "encode, index.lucene, search.faiss, search.hybrid, search.lucene, query_iterator"
    program = f"{NETWORK}for name in {modules.split(', ')}: __import__('pyserini.' + name)\nassert asked == [], asked\n"
    program += (
        "from pyserini import prebuilt_index_info as p\n"
        "import urllib.request\n"
        "lazy = getattr(p.IMPACT_INDEX_INFO_MSMARCO, '_info', None) is None\n"
        "print(lazy, getattr(p, 'urlopen', urllib.request.urlopen) is urllib.request.urlopen)\n"
        "print('msmarco-passage-unicoil-d2q' in p.IMPACT_INDEX_INFO, asked)\n"
    )
    command = [warm.python(), "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-2:] == ["True True", "True []"], done.stderr
    assert "differs" not in done.stderr
