from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.training import atomic


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "value.json"
    atomic.write_bytes(path, b"old")
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "value.json"
    atomic.write_bytes(path, b"old")

    def write() -> None:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_a_killed_writer_leaves_the_old_file_and_its_leftover_can_be_removed(tmp_path):
    path = tmp_path / "value.json"
    atomic.write_bytes(path, b"old")
    program = (
        "import os, pathlib, sys; from components.training import atomic\n"
        "with atomic.replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'ne'); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run([sys.executable, "-c", program, str(path)], env=environment).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    atomic.remove_partial(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["value.json"]


def test_content_reaches_the_disk_before_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        events.append(("flush", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def watched_replace(source, target):
        events.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    atomic.write_bytes(tmp_path / "value", b"x")
    partial = f".value.{os.getpid()}.partial"
    assert events == [("flush", partial), ("rename", "value"), ("flush", tmp_path.name)]


@pytest.mark.parametrize("existing", ["nothing", "directory", "file"])
def test_a_directory_takes_the_place_of_what_was_there(tmp_path, existing):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("new")
    if existing == "directory":
        target.mkdir()
        (target / "stale").write_text("old")
    elif existing == "file":
        target.write_text("old")
    atomic.replace_directory(source, target)
    assert (target / "deep" / "file").read_text() == "new"
    assert not (target / "stale").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]
