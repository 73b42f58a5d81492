"""A server with the part of Qdrant's REST interface that exports and searches use, over the client's local mode."""

from __future__ import annotations

import json
import socket
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models


class Server(ThreadingHTTPServer):
    """Listens on a free port of this machine.

    Attributes
    ----------
    version : of Qdrant, as it says.
    answers : how many further requests are answered before it only breaks connections; None for all.
    seen : method, path and body of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.version, self.answers, self.key = "1.16.3", None, None
        self.answers: int | None
        self.key: str | None
        self.seen: list[tuple[str, str, Any]] = []
        self.client = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """No log."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        server, path = self.server, self.path.partition("?")[0]
        with server.lock, warnings.catch_warnings(action="ignore"):
            server.seen.append((self.command, self.path, body))
            if server.answers is not None:
                server.answers -= 1
                if server.answers < 0:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
            if server.key is not None and self.headers.get("api-key") != server.key:
                self._send(401, {"status": {"error": "Must provide an API key"}})
                return
            try:
                self._send(200, self._result(path.strip("/").split("/"), body))
            except ValueError as error:
                self._send(404, {"status": {"error": str(error)}, "time": 0.0})

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def _send(self, status: int, values: dict[str, Any]) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _result(self, path: list[str], body: dict[str, Any]) -> dict[str, Any]:
        if path == [""]:
            return {"title": "qdrant", "version": self.server.version}
        if path == ["collections"]:
            return {"result": self.server.client.get_collections().model_dump(mode="json"), "status": "ok", "time": 0.0}
        client, name = self.server.client, path[1]
        done = {"operation_id": 0, "status": "completed"}
        match self.command, path[2:]:
            case "GET", ["exists"]:
                result: Any = {"exists": client.collection_exists(name)}
            case "GET", []:
                result = client.get_collection(name).model_dump(mode="json")
            case "PUT", []:
                request = models.CreateCollection(**body)
                result = client.create_collection(
                    name,
                    vectors_config=request.vectors,
                    sparse_vectors_config=request.sparse_vectors,
                    metadata=request.metadata,
                )
            case "PATCH", []:
                result = client.update_collection(name, metadata=body["metadata"])
            case "DELETE", []:
                result = client.delete_collection(name)
            case "PUT", ["index"]:
                result = done
            case "PUT", ["points"]:
                client.upsert(name, [models.PointStruct(**point) for point in body["points"]])
                result = done
            case "POST", ["points"]:
                records = client.retrieve(
                    name, body["ids"], with_payload=body["with_payload"], with_vectors=body["with_vector"]
                )
                result = [record.model_dump(mode="json") for record in records]
            case "POST", ["points", "delete"]:
                client.delete(name, body["points"])
                result = done
            case "POST", ["points", "count"]:
                result = {"count": client.count(name).count}
            case "POST", ["points", "query", "batch"]:
                answers = client.query_batch_points(name, [models.QueryRequest(**one) for one in body["searches"]])
                result = [answer.model_dump(mode="json") for answer in answers]
            case other:
                raise ValueError(f"unknown request {other}")
        return {"result": result, "status": "ok", "time": 0.0}
