"""Each check on a workspace that is broken on purpose."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple

import pytest

from flows.engine import doctor
from flows.engine.doctor import diagnose
from flows.engine.spool import Spool

DATA = """
words:
  title: Words
  licence: CC0 1.0
  attribution: nobody
  origin: https://example.org
  embedded: false
  tables:
    words.parquet: {rows: 1, columns: {word: string}}
  splits: {by: hash, column: word, shares: {train: 1.0}}
  editions:
    first: {says: the words, content: {words.parquet: "ZEROS"}}
  sources:
    - {kind: mirror, edition: first, files: {words.parquet: "HASH"}}
""".replace("ZEROS", "0" * 64)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    for name in ("TESSERA_MIRROR", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    # The accelerator has its own test; importing torch for each would take seconds.
    monkeypatch.setattr(doctor, "_CHECKS", tuple(check for check in doctor._CHECKS if check[0] != "accelerator"))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "ray-sessions"))
    root = tmp_path / "workspace"
    (root / "infra").mkdir(parents=True)
    (root / "params").mkdir()
    (root / "infra" / "requirements.lock").write_text(f"polars=={importlib.metadata.version('polars')}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (root / ".gitignore").write_text(".tessera/\n*.db\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def git(root, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def found(root, name, status):
    """Return the only finding of a name with a status, and demand that it says what to do."""
    findings = [finding for finding in diagnose(root) if finding.name == name and finding.status == status]
    assert len(findings) == 1, [finding for finding in diagnose(root) if finding.name == name]
    assert bool(findings[0].fix) == (status != "ok")
    return findings[0]


def test_a_sound_workspace_has_no_problem(workspace):
    assert [finding for finding in diagnose(workspace) if finding.status == "problem"] == []


def test_every_finding_that_is_not_ok_says_what_to_do(tmp_path):
    findings = diagnose(tmp_path)
    assert all(finding.fix for finding in findings if finding.status != "ok")
    assert {finding.name for finding in findings if finding.status == "problem"} >= {"packages", "git", "DVC"}


def test_a_missing_and_an_other_package_are_named(workspace):
    lock = workspace / "infra" / "requirements.lock"
    lock.write_text("polars==0.0.1\nno-such-package-at-all==1.0\n")
    assert "no-such-package-at-all" in found(workspace, "packages", "problem").says
    assert "instead of 0.0.1" in found(workspace, "packages", "warn").says


def test_a_local_build_of_a_locked_version_counts_as_locked(workspace, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu" if name == "torch" else "2.60.0")
    (workspace / "infra" / "requirements.lock").write_text("torch==2.13.0\n")
    assert "all 1 as locked" in found(workspace, "packages", "ok").says


def test_an_old_ray_without_token_authentication_is_a_problem(workspace, monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.51.1" if name == "ray" else real(name))
    assert "token authentication" in found(workspace, "Ray", "problem").says


def test_many_old_ray_sessions_are_mentioned(workspace, tmp_path):
    for number in range(21):
        (tmp_path / "ray-sessions" / "ray" / f"session_{number}").mkdir(parents=True)
    assert "21 old session folders" in found(workspace, "Ray", "warn").says


@pytest.mark.parametrize("free,status", [(10**8, "problem"), (5 * 10**9, "warn"), (10**11, "ok")])
def test_a_disk_that_fills_up_is_seen(workspace, monkeypatch, free, status):
    usage = namedtuple("usage", "total used free")(10**12, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "GiB free" in found(workspace, "disk", status).says


def test_little_memory_and_a_high_load_are_seen(workspace, monkeypatch):
    monkeypatch.setattr(doctor, "_meminfo", lambda: {"MemAvailable": 10**9})
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0, 0))
    assert "0.9 GiB" in found(workspace, "memory", "warn").says
    assert "busier" in found(workspace, "processor", "warn").says


def test_no_git_a_change_and_a_merge_conflict_are_told_apart(workspace, tmp_path):
    (workspace / "dvc.yaml").write_text("stages: {a: {cmd: mine}}\n")
    assert "1 changed files: dvc.yaml" in found(workspace, "git", "warn").says
    git(workspace, "checkout", "-qb", "other")
    git(workspace, "commit", "-qam", "mine")
    git(workspace, "checkout", "-q", "-")
    (workspace / "dvc.yaml").write_text("stages: {a: {cmd: yours}}\n")
    git(workspace, "commit", "-qam", "yours")
    subprocess.run(["git", "merge", "other"], cwd=workspace, capture_output=True, check=False)
    assert "in the middle of a merge: dvc.yaml" in found(workspace, "git", "problem").says
    shutil.rmtree(workspace / ".git")
    assert "not a git repository" in found(workspace, "git", "problem").says


@pytest.mark.parametrize(
    "path,text,says",
    [
        (".dvc/config", "[core\n", ".dvc/config cannot be read"),
        (".dvc/tmp/rwlock", '{"half', "rwlock is damaged"),
        ("dvc.lock", "schema: '2.0'\nstages:\n  a:\n    cmd: tru", "torn or unmerged lock files: dvc.lock"),
        ("params/p/dvc.lock", "schema: '2.0'\n<<<<<<< HEAD\n", "params/p/dvc.lock"),
        ("params/p/dvc.lock", "", "params/p/dvc.lock"),
    ],
)
def test_damaged_files_of_dvc_are_named(workspace, path, text, says):
    (workspace / path).parent.mkdir(parents=True, exist_ok=True)
    (workspace / path).write_text(text)
    assert says in found(workspace, "DVC", "problem").says


def test_a_workspace_without_dvc_is_a_problem(workspace):
    shutil.rmtree(workspace / ".dvc")
    assert ".dvc is missing" in found(workspace, "DVC", "problem").says


def test_the_dvc_cache_is_measured_where_the_configuration_puts_it(workspace, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "object").write_bytes(b"x" * 1000)
    (workspace / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'elsewhere'}\n")
    assert "in 1 files" in found(workspace, "DVC", "ok").says


def test_a_run_that_is_going_on_is_told(workspace):
    lock = workspace / ".tessera" / "lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"pid": 7, "host": "here", "command": "tessera reproduce p"}))
    assert "running" not in {finding.name for finding in diagnose(workspace)}
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "process 7 on here: tessera reproduce p" in found(workspace, "running", "ok").says


def test_processes_of_a_dead_driver_are_found_and_those_of_a_living_one_are_not(workspace, tmp_path):
    def start(*command, mark):
        environment = os.environ | {doctor.reaper.MARK: mark}
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *command], env=environment)

    orphan = start(mark="orphan-of-this-test")
    child = start(mark="living-of-this-test")
    reaper = start("reaper.py", "1", "living-of-this-test", mark="")
    try:
        time.sleep(0.3)
        finding = found(workspace, "left-over processes", "warn")
        assert str(orphan.pid) in finding.fix.split()
        assert str(child.pid) not in finding.fix.split()
    finally:
        for process in (orphan, child, reaper):
            process.kill()
            process.wait()


def test_a_server_that_does_not_answer_is_a_warning_without_its_password(workspace, monkeypatch):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    for name in ("MLflow", "Prefect"):
        finding = found(workspace, name, "warn")
        assert "does not answer" in finding.says
        assert "secret" not in finding.says


def database(workspace, version):
    connection = sqlite3.connect(workspace / "mlflow.db")
    connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
    connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    connection.execute("INSERT INTO alembic_version VALUES (?)", [version])
    connection.commit()
    return connection


def test_the_newest_schema_is_the_one_that_mlflow_itself_expects():
    from mlflow.store.db.utils import _get_latest_schema_revision

    assert doctor._mlflow_schemas()[1] == _get_latest_schema_revision()


def test_databases_of_older_newer_and_this_mlflow_are_told_apart(workspace):
    known, newest = doctor._mlflow_schemas()
    assert "no database yet" in found(workspace, "MLflow", "ok").says
    connection = database(workspace, newest)
    assert "0 runs" in found(workspace, "MLflow", "ok").says
    connection.execute("UPDATE alembic_version SET version_num = ?", [min(known - {newest})])
    connection.commit()
    assert "mlflow db upgrade" in found(workspace, "MLflow", "problem").fix
    connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    connection.commit()
    assert "newer MLflow" in found(workspace, "MLflow", "problem").says


def test_a_locked_and_a_damaged_database_are_told_apart(workspace, monkeypatch):
    monkeypatch.setattr(doctor, "SMALL_WAIT_SECONDS", 0.1)
    connection = database(workspace, doctor._mlflow_schemas()[1])
    connection.execute("BEGIN EXCLUSIVE")
    assert "locked" in found(workspace, "MLflow", "warn").says
    connection.close()
    (workspace / "mlflow.db").write_bytes(b"this is no database" * 100)
    assert "cannot be read" in found(workspace, "MLflow", "problem").says
    (workspace / "mlflow.db").write_bytes(b"")
    assert "cannot be read" in found(workspace, "MLflow", "problem").says


def test_an_old_file_store_that_would_hide_the_database_is_mentioned(workspace):
    (workspace / "mlruns" / "0").mkdir(parents=True)
    (workspace / "mlruns" / "0" / "meta.yaml").write_text("name: old")
    assert "--backend-store-uri" in found(workspace, "MLflow", "warn").fix


def test_records_that_wait_or_were_refused_are_counted(workspace):
    spool = Spool(workspace / ".tessera" / "spool", "run")
    spool.write({})
    spool.write({})
    spool.reject(spool.write({}), "no")
    waiting, refused = (finding for finding in diagnose(workspace) if finding.name == "tracking spool")
    assert "2 records wait" in waiting.says
    assert "refused 1 records" in refused.says


def test_a_mirror_that_is_missing_incomplete_or_rotten_is_seen(workspace, tmp_path, monkeypatch):
    content = b"PAR1"
    declared = DATA.replace("HASH", hashlib.sha256(content).hexdigest())
    (workspace / "params" / "data.yaml").write_text(declared)
    mirror = tmp_path / "mirror"
    monkeypatch.setenv("TESSERA_MIRROR", str(mirror))
    assert "is no folder" in found(workspace, "mirror", "problem").says
    mirror.mkdir()
    assert "words/words.parquet" in found(workspace, "mirror", "warn").says
    (mirror / "words").mkdir()
    (mirror / "words" / "words.parquet").write_bytes(content)
    assert "1 small files hashed" in found(workspace, "mirror", "ok").says
    (mirror / "words" / "words.parquet").write_bytes(b"rotten")
    assert "words/words.parquet" in found(workspace, "mirror", "problem").says


def test_data_out_of_reach_are_named_with_the_reason(workspace):
    (workspace / "params" / "data.yaml").write_text(DATA.replace("HASH", "0" * 64))
    assert "words (TESSERA_MIRROR is not set)" in found(workspace, "data", "warn").says
    (workspace / "data" / "words").mkdir(parents=True)
    (workspace / "data" / "words" / "meta.json").write_text("{}")
    assert "1 here" in found(workspace, "data", "ok").says


def test_a_check_that_breaks_does_not_hide_the_others(workspace, monkeypatch):
    def broken(root):
        raise RuntimeError("surprise")

    monkeypatch.setattr(doctor, "_CHECKS", (("Ray", broken), *doctor._CHECKS))
    findings = diagnose(workspace)
    assert "surprise" in findings[0].says
    assert len(findings) > 10


def test_the_accelerator_is_described():
    (finding,) = doctor._accelerator(None)
    assert finding.name == "accelerator"


def test_looking_changes_nothing(workspace):
    def state():
        return sorted((str(path), path.stat().st_mtime_ns) for path in workspace.rglob("*"))

    before = state()
    diagnose(workspace)
    assert state() == before
