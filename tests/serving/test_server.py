"""A server that goes away, refuses or is too old: one sentence, and what it has confirmed stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from diffretriever_pyserini import DiffRetrieverError, InputError, Store
from diffretriever_pyserini.serving import delete_passages

from .conftest import COUNT, DOCIDS, TOPICS, Collections
from .server import Server
from .test_changes import contents


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An empty server."""
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with Server() as server:
        yield server
        server.shutdown()


@pytest.fixture
def collections(server: Server) -> Collections:
    """Its collections."""
    return Collections("server", server.url, server)


def test_it_goes_away_in_the_middle_of_a_search(server: Server, collections: Collections, store: Store) -> None:
    collections.export(store)
    assert ("PUT", "/collections/c/index") in {(method, path.partition("?")[0]) for method, path, _ in server.seen}
    sentence = rf"^{server.url}: no answer from a Qdrant server \(.*\); start it, or correct the URL\.$"
    with collections.open() as index:
        server.answers = 1
        with pytest.raises(DiffRetrieverError, match=sentence):
            index.search({f"q{i}": f"query {i}" for i in range(40)}, "multi", hits=5)
        server.answers = None
        assert len(index.search(TOPICS, "multi", hits=5)["q1"]) == 5  # it is back


def test_it_goes_away_at_every_request_of_an_upload(server: Server, collections: Collections, store: Store) -> None:
    collections.export(store, "whole")
    whole = contents(collections, DOCIDS, "whole")
    del server.seen[:]
    attempts, answers, continued = 0, 1, 0
    while True:
        server.answers = answers
        try:
            collections.export(store, batch_size=2)
            break
        except DiffRetrieverError as error:
            assert "no answer" in str(error)
            continued += str(error).endswith("What it has confirmed stays, and the same command continues.")
        attempts, answers = attempts + 1, answers + 5
    server.answers = None
    assert attempts > 5
    assert continued > 1
    assert contents(collections, DOCIDS) == whole
    assert collections.export(store)["points"] == COUNT


def test_a_key_an_old_version_and_another_program(
    server: Server, collections: Collections, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client.create_collection("foreign", {})
    with pytest.raises(InputError, match="collection foreign at .* was not made by `diffretriever export qdrant`"):
        collections.export(store, "foreign", rebuild=True)
    assert server.client.collection_exists("foreign")
    server.key = "secret"
    with pytest.raises(DiffRetrieverError, match="wants a key; set the variable QDRANT_API_KEY"):
        collections.open()
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    with pytest.warns(UserWarning, match="insecure"):
        assert collections.export(store)["points"] == COUNT
    server.version = "1.15.5"
    with (
        pytest.warns(UserWarning, match="insecure"),
        pytest.raises(InputError, match="this server is Qdrant 1.15.5, and 1.16 or later"),
    ):
        delete_passages(server.url, "c", ["7"])


def test_nothing_listens_there() -> None:
    with pytest.raises(DiffRetrieverError, match=r"http://127.0.0.1:9: no answer .*Connection refused"):
        delete_passages("http://127.0.0.1:9", "c", ["7"])
    with pytest.raises(DiffRetrieverError, match="no-such-scheme"):
        delete_passages("no-such-scheme://127.0.0.1:9", "c", ["7"])


@pytest.mark.parametrize("answer", [b"<html>", b"{}"])
def test_another_program_listens_there(answer: bytes) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(DiffRetrieverError, match=r"what answers there is not a Qdrant server; correct the URL\.$"):
            delete_passages(f"http://127.0.0.1:{other.server_port}", "c", ["7"])
        other.shutdown()


def test_a_request_that_the_server_refuses(server: Server, collections: Collections, store: Store) -> None:
    collections.export(store)
    with collections.open() as index:
        server.client.delete_collection("c")
        with pytest.raises(
            DiffRetrieverError, match=r"collection c at .*: the server refuses the request \(.*not found"
        ):
            index.search(TOPICS, "dense")
