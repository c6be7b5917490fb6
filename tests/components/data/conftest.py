"""A file server on the loopback, and small data sets to declare."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.data.declaration import DataSet


class FileServer:
    """Serves `files` by path; `cut` paths break off half-way, `slow` paths answer too late."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.slow: set[str] = set()
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("authorization")))
                if self.path in outer.slow:
                    time.sleep(1.5)
                if self.path not in outer.files:
                    return self.send_error(404)
                content = outer.files[self.path]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if self.path in outer.cut else content)

            def log_message(self, *_) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def mirror(tmp_path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


@pytest.fixture
def declare():
    """Return a function that declares a data set of one table and one edition, "e"."""
    return _declare


def _declare(
    *sources: dict, columns: dict | None = None, table: str = "text.parquet", content: str | None = None, **rest
):
    declared = {
        "title": "Stand-in",
        "licence": "CC0",
        "attribution": "nobody",
        "embedded": any(source["kind"] in ("package", "generator") for source in sources),
        "tables": {table: {"columns": columns or {"text": "string"}}},
        "editions": {"e": {"says": "a stand-in", "content": {table: content} if content else {}}},
        "sources": [{"edition": "e", **source} for source in sources],
    }
    return DataSet.model_validate(declared | rest)
