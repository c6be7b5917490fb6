"""What could be served right now, without fetching anything."""

from __future__ import annotations

import subprocess
import sys

HASH = "a" * 64


def sources(url: str) -> list[dict]:
    convert = "components.data.texts.one_text"
    files = {"a.txt": {"urls": ["http://127.0.0.1:9/a.txt", f"{url}/a.txt"], "sha256": HASH}}
    hub = {"dataset": "owner/name", "revision": "0" * 40, "files": {"a.txt": HASH}}
    return [
        {"kind": "mirror", "files": {"a.txt": HASH}, "convert": convert},
        {"kind": "origin", "files": files, "convert": convert},
        {"kind": "hub", **hub, "convert": convert},
        {"kind": "package", "packages": ["polars", "no-such"], "function": "components.data.digits.read"},
        {"kind": "generator", "function": "components.data.shapes.generate"},
    ]


def test_every_source_has_a_state_and_a_reason(declare, mirror, server, monkeypatch):
    from components.data.availability import availability

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    declaration = declare(*sources(server.url), content=HASH)
    rows = availability({"set": declaration}, mirror)
    assert [(row.source, row.ready) for row in rows] == [
        ("mirror", False),
        ("origin", True),
        ("hub", False),
        ("package", False),
        ("generator", True),
    ]
    assert rows[0].detail == f"{mirror} lacks set/a.txt"
    assert rows[2].detail == "127.0.0.1 cannot be reached (Connection refused)"
    assert rows[3].detail == "not installed: no-such"
    assert server.requests == []


def test_a_mirror_with_the_file_is_ready_and_none_is_not(declare, mirror, server):
    from components.data.availability import availability

    declaration = declare(sources(server.url)[0])
    (mirror / "set").mkdir()
    (mirror / "set/a.txt").write_bytes(b"x")
    (row,) = availability({"set": declaration}, str(mirror))
    assert row.ready
    (row,) = availability({"set": declaration}, None)
    assert (row.ready, row.detail) == (False, "TESSERA_MIRROR is not set")


def test_declarations_and_availability_load_neither_polars_nor_a_download_library():
    code = "import components.data.availability, components.data.declaration, sys; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for library in ("polars", "pooch", "requests", "huggingface_hub", "numpy", "torch"):
        assert f"'{library}'" not in loaded
