"""Downloads from a publisher and from the hub, against a server on the loopback."""

from __future__ import annotations

import hashlib
import io
import socket
import time

import polars as pl
import pytest

from components.data import download, network
from components.data.errors import MissingSource, SourceUnavailable, TruncatedParquet, WrongHash
from components.data.registry import materialise

TEXT = "one line\n" * 5000
HASH = hashlib.sha256(TEXT.encode()).hexdigest()
REVISION = "0" * 40


def origin(urls: list[str], sha256: str | None = HASH) -> dict:
    files = {"a.txt": {"urls": urls, "sha256": sha256}}
    return {"kind": "origin", "files": files, "convert": "components.data.texts.one_text"}


def test_a_download_that_breaks_off_is_a_reason_and_leaves_nothing(server, declare, tmp_path):
    server.files["/a.txt"] = TEXT.encode()
    server.cut.add("/a.txt")
    with pytest.raises(MissingSource, match=r"a.txt failed \(IncompleteRead\(22500 bytes read, 22500 more expected\)"):
        materialise("set", declare(origin([f"{server.url}/a.txt"])), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_address_serves_when_the_first_fails(server, declare, tmp_path):
    server.files["/b.txt"] = TEXT.encode()
    urls = ["http://127.0.0.1:9/a.txt", f"{server.url}/a.txt", f"{server.url}/b.txt"]
    provenance = materialise("set", declare(origin(urls)), tmp_path / "out")
    assert provenance.source["files"]["a.txt"]["url"] == urls[2]


def test_a_file_that_was_replaced_is_refused(server, declare, tmp_path):
    server.files["/a.txt"] = b"something else"
    with pytest.raises(WrongHash, match=rf"a.txt from {server.url}/a.txt has SHA-256 \w+, expected {HASH}"):
        materialise("set", declare(origin([f"{server.url}/a.txt"])), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_gone_is_a_reason(server, declare, tmp_path):
    with pytest.raises(MissingSource, match="404 Client Error"):
        materialise("set", declare(origin([f"{server.url}/a.txt"])), tmp_path / "out")


def test_a_silent_server_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "READ_SECONDS", 0.3)
    server.slow.add("/a.txt")
    with pytest.raises(SourceUnavailable, match=r"Read timed out. \(read timeout=0.3\)"):
        download.download([f"{server.url}/a.txt"], tmp_path / "a.txt")


def test_a_resolver_that_hangs_costs_no_more_than_the_limit(monkeypatch):
    def hang(*_, **__):
        time.sleep(20)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    began = time.monotonic()
    assert network.unreachable("https://example.org/x", 0.2) == "example.org did not answer within 0.2 s"
    assert time.monotonic() - began < 15


def test_an_unknown_host_is_named(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    reason = network.unreachable("https://example.org/x")
    assert reason == "example.org cannot be reached (Name or service not known)"


def test_a_proxy_is_asked_in_place_of_the_host(server, monkeypatch):
    monkeypatch.setenv("https_proxy", server.url)
    assert network.unreachable("https://example.invalid/x") is None
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert network.unreachable("http://127.0.0.1:9/") == "127.0.0.1 cannot be reached (Connection refused)"


def test_three_unreachable_sources_are_given_up_within_twenty_seconds():
    # One of every kind of source that needs the network, each waiting for its host in vain.
    assert 3 * network.CONNECT_SECONDS <= 15


@pytest.fixture
def hub(server, monkeypatch):
    """Two hub Parquet files of lines, and the source that declares them."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    files = {}
    for split, lines in {"test": ["", " = Title = \n", "a line \n"], "validation": ["b \n", ""]}.items():
        buffer = io.BytesIO()
        pl.DataFrame({"text": lines}).write_parquet(buffer)
        path = f"plain/{split}-00000-of-00001.parquet"
        server.files[f"/datasets/owner/name/resolve/{REVISION}/{path}"] = buffer.getvalue()
        files[path] = hashlib.sha256(buffer.getvalue()).hexdigest()
    convert = "components.data.texts.wikitext_from_hub"
    return {"kind": "hub", "dataset": "owner/name", "revision": REVISION, "files": files, "convert": convert}


COLUMNS = {"split": "string", "text": "string"}


def test_hub_files_are_fetched_at_their_commit_and_converted(server, declare, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    provenance = materialise("set", declare(hub, columns=COLUMNS), tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out/text.parquet").rows()
    assert rows == [("test", " \n = Title = \na line \n"), ("validation", "b \n \n")]
    assert {authorisation for _, authorisation in server.requests} == {"Bearer secret"}
    record = provenance.source["files"]["plain/test-00000-of-00001.parquet"]
    assert record["revision"] == REVISION
    assert "secret" not in (tmp_path / "out/meta.json").read_text()


def test_a_hub_file_that_was_cut_or_replaced_is_refused(server, declare, hub, tmp_path):
    path = f"/datasets/owner/name/resolve/{REVISION}/plain/test-00000-of-00001.parquet"
    whole = server.files[path]
    server.files[path] = whole[:-10]
    with pytest.raises(
        TruncatedParquet, match=r"plain/test-00000-of-00001\.parquet of owner/name@000000000000 is a trunc"
    ):
        materialise("set", declare(hub, columns=COLUMNS), tmp_path / "out")
    server.files[path] = whole[:4] + b"\0" + whole[5:]
    with pytest.raises(WrongHash, match="A commit's files never change"):
        materialise("set", declare(hub, columns=COLUMNS), tmp_path / "out")
    server.cut.add(path)
    with pytest.raises(MissingSource, match="IncompleteRead"):
        materialise("set", declare(hub, columns=COLUMNS), tmp_path / "out")


def test_an_unreachable_hub_is_a_reason(declare, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingSource, match=r"hub: 127.0.0.1 cannot be reached"):
        materialise("set", declare(hub, columns=COLUMNS), tmp_path / "out")
