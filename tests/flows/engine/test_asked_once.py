"""What is remembered while a stage is recorded: the same answers as DVC's and git's own, with fewer questions."""

from __future__ import annotations

import subprocess

import pytest
import toy_dag
import workspace
from dvc.output import Output
from scmrepo.git import Git

from flows.engine.asked_once import TrackedFiles, hashed_once
from flows.engine.graph import DvcGraph


@pytest.fixture
def repository(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("a.txt", "folder/b.txt", "folder.txt", "folder-2/c.txt"):
        workspace.write(tmp_path, name, name)
    return tmp_path


def track(root, *names):
    subprocess.run(["git", "-C", str(root), "add", *names], check=True)


def test_files_are_tracked_that_git_says_are_also_after_its_index_has_changed(repository):
    git = Git(str(repository))
    ours = TrackedFiles(git.dulwich.repo, git.root_dir)
    asked = ["a.txt", "folder", "folder/b.txt", "folder.txt", "fold", "folder-2", "folder-2/c.txt", "nothing", "z"]
    for names in ([], ["folder.txt", "folder-2"], ["folder"], ["a.txt"]):
        if names:
            track(repository, *names)
        for name in asked:
            path = str(repository / name)
            assert ours.is_tracked(path) == git.dulwich.is_tracked(path), (names, name)


class Hashed:
    """A dependency that counts how often it is hashed."""

    def __init__(self):
        self.hashes, self.builds = 0, []

    def get_hash(self):
        self.hashes += 1
        return self.hashes

    def _build(self, cache, path, fs, hash_name, *, dry_run=False):
        self.builds.append((hash_name, dry_run))
        if len(self.builds) == 1:
            raise OSError("disk")
        return len(self.builds)


def test_a_hash_is_asked_for_once_for_each_way_of_hashing_and_anew_in_the_next_block():
    dependency = Hashed()
    with hashed_once([dependency]):
        with pytest.raises(OSError, match="disk"):
            dependency._build(0, 1, 2, "md5")  # a failure is not remembered
        assert dependency._build(0, 1, 2, "md5") == dependency._build(0, 1, 2, "md5") == 2
        assert dependency._build(0, 1, 2, "md5", dry_run=True) == 3
        assert dependency._build(0, 1, 2, "sha256") == 4
        assert dependency.get_hash() == dependency.get_hash() == 1
    assert dependency.get_hash() == 2


def test_looking_a_stage_up_and_recording_it_hash_every_input_once(tmp_path, monkeypatch):
    toy_dag.make(tmp_path, {"first": [], "second": ["first"]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("first", "second"):
        (tmp_path / "out" / name).write_text("1")
    graph = DvcGraph(tmp_path)
    graph.commit("first")
    built = []
    build = Output._build
    monkeypatch.setattr(Output, "_build", lambda self, *a, **k: built.append(self.def_path) or build(self, *a, **k))
    asked = []
    read = Git.is_tracked
    monkeypatch.setattr(Git, "is_tracked", lambda self, path: asked.append(path) or read(self, path))
    assert not graph.restore("second")
    assert sorted(built) == ["in/second.txt", "out/first"]
    built.clear()
    graph.commit("second")
    assert sorted(set(built)) == ["in/second.txt", "out/first", "out/second"]
    assert built.count("in/second.txt") == built.count("out/first") == 1
    assert not asked
    graph.close()
