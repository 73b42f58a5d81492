"""Pyserini's REST and MCP servers with the configuration of docs/servers.md, asked by clients over the network."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffretriever_pyserini import (
    Corpus,
    DiffRetriever,
    EncodeOptions,
    IndexOptions,
    build_index,
    encode_corpus,
    open_index,
)
from diffretriever_pyserini.indexes import MultiBuild
from diffretriever_pyserini.searching import SearchIndex

from .. import warm
from .commands import write_corpus
from .test_literal_commands import PASSAGES, QUERIES

pytestmark = pytest.mark.java
PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
QUERY = "tower in tokyo"
MODES = {"hybrid": "hybrid", "dense": "dense", "multi": "multi", "lexical": "lexical", "texts": "bm25"}
MODES |= {"faiss": "dense", "maxsim": "multi", "impact": "lexical"}
TEXTS = {docid: f"{title} {text}".strip() for docid, title, text in PASSAGES}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``servers.yaml`` of the page and the index that it names."""
    folder = tmp_path_factory.mktemp("servers")
    write_corpus(folder / "C", ({"id": i, "title": t, "text": x} for i, t, x in PASSAGES))
    model = DiffRetriever.from_pretrained("diffretriever")
    encode_corpus(model, Corpus(folder / "C"), folder / "S", EncodeOptions(workers=0))
    options = IndexOptions(multi=MultiBuild(bytes_per_vector=90), text=True, quiet=True)
    build_index(folder / "S", folder / "INDEX", options)
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "servers.yaml").write_text(config)
    return folder


@pytest.fixture(scope="module")
def index(work: Path) -> Iterator[SearchIndex]:
    with open_index(work / "INDEX") as index:
        yield index


def answers(port: int) -> bool:
    """Whether something listens at ``port``."""
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[int]:
    """A server that runs ``python -m pyserini.server.<arguments> --port N``; yields N once it answers there."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [warm.python(), "-m", f"pyserini.server.{arguments[0]}", *arguments[1:], "--port", str(port)]
    with (folder / "log").open("w+") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 300
            while not answers(port):
                assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-4000:]
                time.sleep(0.2)
            yield port
        finally:
            server.kill()
            server.wait()


def ask(port: int, path: str, **parameters: str | int) -> tuple[int, dict[str, Any]]:
    """(status, answer) of a GET request."""
    url = f"http://127.0.0.1:{port}/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=300) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def check(index: SearchIndex, name: str, candidates: list[tuple[str, float, Any]]) -> None:
    """The docids and scores are those of ``diffretriever search``, and the documents those of the corpus."""
    (hits,) = index.search({"q": QUERY}, MODES[name], 5).values()
    assert {docid: score for docid, score, _ in candidates} == pytest.approx(dict(hits), abs=2e-4) and hits
    if name in ("hybrid", "dense", "multi", "lexical"):  # Pyserini's own types have another order of ties
        assert [docid for docid, _, _ in candidates] == [docid for docid, _ in hits]
    for docid, _, text in candidates:
        assert text["contents"].split() == TEXTS[docid].split()


def test_rest_serves_every_type_beside_prebuilt_indexes(work: Path, index: SearchIndex) -> None:
    with served(work, "rest", "--config", "servers.yaml", "--host", "127.0.0.1") as port:
        for name in MODES:
            status, answer = ask(port, f"{name}/search", query=QUERY, hits=5)
            assert status == 200, answer
            check(index, name, [(one["docid"], one["score"], one["doc"]) for one in answer["candidates"]])
            status, answer = ask(port, f"{name}/doc/d02")
            assert (status, answer["doc"]["title"]) == (200, "Tokyo Tower")
        status, answer = ask(port, f"{urllib.parse.quote(str(work / 'INDEX/lexical'), safe='')}/search", query=QUERY)
        assert status == 400
        assert "INDEX/lexical holds a model's term weights or vectors, and BM25 needs texts" in answer["error"]


async def use_tools(url: str, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """The results of MCP tools; of an error its message."""
    from mcp import Client

    async with Client(url, read_timeout_seconds=300) as client:
        results = [await client.call_tool(name, arguments) for name, arguments in calls]
    texts = [result.content[0].text for result in results]
    return [text if result.is_error else json.loads(text) for text, result in zip(texts, results, strict=True)]


def test_mcp_serves_every_type_and_fuses_one_hit(work: Path, index: SearchIndex) -> None:
    one, two = {"docid": "d02", "score": 3.0}, {"docid": "d01", "score": 2.0}
    calls: list[tuple[str, dict[str, Any]]] = [
        *(("search", {"query": QUERY, "index": name, "hits": 5}) for name in MODES),
        ("fuse_search_results", {"results1": [one], "results2": [two, one]}),
        ("get_document", {"docid": "d02", "index": "hybrid"}),
        ("list_indexes", {"index_type": "diffretriever-multi"}),
        ("list_indexes", {"index_type": "tf"}),
        ("get_index", {"index_name": "hybrid"}),
        ("search", {"query": QUERY, "index": "hybrid", "encoder": "bge"}),
    ]
    with served(work, "mcp", "--config", "servers.yaml", "--transport", "http") as port:
        results = asyncio.run(use_tools(f"http://127.0.0.1:{port}/mcp", calls))
    for name, (first, *rest) in zip(MODES, results, strict=False):
        assert first == f"Query Results for: {QUERY}"
        heads = [line.removeprefix("DocID: ").split(" | Score: ") for line in rest[::2]]
        check(
            index, name, [(docid, float(score), text) for (docid, score), text in zip(heads, rest[1::2], strict=True)]
        )
    fused, documents, multi, texts, status, refused = results[len(MODES) :]
    assert fused == [{"docid": "d02", "score": 0.5}, {"docid": "d01", "score": 0.0}]  # the list of one hit adds 0
    assert documents[0]["title"] == "Tokyo Tower"
    assert multi == ["multi"]
    assert texts[0] == "texts" and "msmarco-v1-passage" in texts
    assert status["path"] == str(work / "INDEX") and status["no_prebuilt_indexes"] is False
    assert "encoder=bge has no effect: hybrid is searched with the encoder that made it" in refused


@contextmanager
def backend(folder: Path, indexes: dict[str, Any] | None = None, **options: Any) -> Iterator[Any]:
    """What both servers ask, with the configuration of the page or ``indexes``."""
    from pyserini.server.backend import SharedSearchBackend

    config = folder / "servers.yaml"
    if indexes is not None:
        config = folder / "other.yaml"
        config.write_text(yaml.safe_dump({"indexes": indexes}))
    backend = SharedSearchBackend(str(config), **options)
    try:
        yield backend
    finally:
        backend.close_all()


def test_only_configured_indexes_are_served_alike(work: Path, index: SearchIndex) -> None:
    with backend(work, no_prebuilt_indexes=True) as server:
        for name in MODES:
            answer = server.search(QUERY, name, 5)
            check(index, name, [(one["docid"], one["score"], one["doc"]) for one in answer["candidates"]])
        assert server.get_indexes("diffretriever") == ["hybrid"]
        assert server.get_status("hybrid")["no_prebuilt_indexes"] is True


def test_threads_get_their_own_results(work: Path) -> None:
    queries = [text for _, text in QUERIES]
    asked = [(query, name) for query in queries for name in ("texts", "lexical", "hybrid", "impact")]
    with backend(work) as server:
        got = []
        for _ in range(3):  # each time in new threads
            server._search_cached.cache_clear()
            with ThreadPoolExecutor(8) as pool:
                got += pool.map(lambda one: server.search(*one, 5), asked)
        server._search_cached.cache_clear()
        expected = [server.search(query, name, 5) for query, name in asked]
    assert got == expected * 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("INDEX/lexical", "INDEX/lexical holds a model's term weights or vectors, and BM25 needs texts"),
        ("INDEX/multi", "INDEX/multi holds a model's term weights or vectors"),
        ("INDEX", "INDEX is not a Lucene index of texts: name it .*, with index_type: diffretriever"),
        ("S", "S is not a Lucene index of texts"),
    ],
)
def test_a_folder_of_ours_is_not_searched_by_bm25(work: Path, name: str, message: str) -> None:
    from pyserini.server.errors import IndexNotAvailableError

    for no_prebuilt_indexes in (False, True):
        indexes = {"texts": "INDEX/text", "wrong": name, "ours": {"path": "INDEX", "index_type": "diffretriever"}}
        with backend(work, indexes, no_prebuilt_indexes=no_prebuilt_indexes) as server:
            asked = ["wrong"] if no_prebuilt_indexes else ["wrong", str(work / name)]
            for index_name in asked:
                for ask in (server.search, server.get_document):
                    with pytest.raises(IndexNotAvailableError, match=message):
                        ask(*((QUERY, index_name) if ask == server.search else ("d02", index_name)))


def test_an_index_that_cannot_be_opened_says_why(work: Path, tiny_dream: Path, tmp_path: Path) -> None:
    from pyserini.server.errors import IndexNotAvailableError

    build_index(work / "S", tmp_path / "I", IndexOptions(lexical=False, quiet=True))
    other, lexical = f"diffretriever:{tiny_dream}", str(work / "INDEX/lexical")
    indexes = {
        "texts": str(work / "INDEX/text"),
        "other": {"path": "I", "index_type": "diffretriever", "encoder": other},
        "impact": {"path": lexical, "index_type": "impact", "encoder": other, "base_index": "texts"},
        "hybrid": {"path": "I", "index_type": "diffretriever-hybrid"},
        "graph": {"path": "I", "index_type": "diffretriever", "ef_search": 9, "base_index": "texts"},
        "without": {"path": "I", "index_type": "diffretriever"},
    }
    messages = {
        "other": "Unable to open index: other: .*I holds passages of another encoder: ",
        "impact": "Unable to open index: impact: .*lexical holds .* of another encoder: ",
        "hybrid": "Unable to open index: hybrid: .*no lexical signal",
        "graph": "Unable to open index: graph: .*efSearch",
        "without": "I has no texts, which a server returns",
    }
    with backend(tmp_path, indexes) as server:
        for name, message in messages.items():
            with pytest.raises(IndexNotAvailableError, match=message):
                server.search(QUERY, name, 5)


def test_a_server_without_our_indexes_is_pyserinis_own(work: Path) -> None:
    from pyserini.search.faiss import DenseSearchResult
    from pyserini.server.mcp.extension import McpSearchExtension

    one = DenseSearchResult("d02", 3.0)
    with backend(work, {"texts": "INDEX/text"}) as server:
        assert [hit["docid"] for hit in server.search(QUERY, "texts", 2)["candidates"]] == ["d02", "d05"]
        assert "texts" not in server.get_indexes("tf")
        with pytest.raises(ZeroDivisionError):
            McpSearchExtension(server).fuse_search_results([one], [one])
