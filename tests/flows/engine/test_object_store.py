"""What machines hand each other through a DVC remote: a plain folder, and an S3 store that the test starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.engine.object_store import ObjectStore, RemoteUnusable, remote_settings


@pytest.fixture(scope="module")
def s3():
    """An S3 store in this process; the address of an empty bucket's folder."""
    import boto3
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="papers")
    yield {"url": "s3://papers/store", "endpointurl": url}
    server.stop()
    patch.undo()


@pytest.fixture(params=["folder", "s3"])
def settings(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return {"url": str(tmp_path / "remote")}


@pytest.fixture
def output(tmp_path) -> Path:
    folder = tmp_path / "output"
    (folder / "figures").mkdir(parents=True)
    (folder / "metrics.parquet").write_bytes(b"metrics" * 1000)
    (folder / "figures" / "curve.svg").write_text("<svg/>")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_one_machine_puts_another_gets_under_the_same_hash(settings, output, tmp_path):
    name = ObjectStore(settings, tmp_path / "here").put(output)
    there = ObjectStore(settings, tmp_path / "there", linked=True)
    there.get(name, tmp_path / "workspace" / "output")
    assert contents(tmp_path / "workspace" / "output") == contents(output)
    assert there.put(tmp_path / "workspace" / "output") == name
    there.write("tessera/checkpoints/a/state", output / "metrics.parquet")
    assert ObjectStore(settings, tmp_path / "third").read("tessera/checkpoints/a", tmp_path / "back")
    assert contents(tmp_path / "back") == {"state": b"metrics" * 1000}
    there.remove("tessera/checkpoints/a")
    assert not there.read("tessera/checkpoints/a", tmp_path / "none")


def test_the_hash_is_the_one_that_dvc_records(output, tmp_path):
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "output").mkdir()
    for path, content in contents(output).items():
        (repository / "output" / path).parent.mkdir(exist_ok=True)
        (repository / "output" / path).write_bytes(content)
    for words in (["init", "-q", "--no-scm"], ["add", "-q", "output"]):
        subprocess.run([sys.executable, "-m", "dvc", *words], cwd=repository, check=True, capture_output=True)
    name = ObjectStore({"url": str(tmp_path / "remote")}, tmp_path / "cache").put(output)
    assert f"md5: {name}" in (repository / "output.dvc").read_text()


def test_a_damaged_or_missing_object_is_refused_and_what_was_there_stays(output, tmp_path):
    settings = {"url": str(tmp_path / "remote")}
    name = ObjectStore(settings, tmp_path / "here").put(output)
    target = tmp_path / "workspace"
    target.mkdir()
    (target / "old").write_text("old")
    for path in (tmp_path / "remote").rglob("*"):
        if path.is_file() and path.stat().st_size == 7000:
            path.chmod(0o644)
            path.write_bytes(b"x" * 7000)
    with pytest.raises(RemoteUnusable, match="damaged"):
        ObjectStore(settings, tmp_path / "there").get(name, target)
    with pytest.raises(RemoteUnusable, match="cannot get"):
        ObjectStore(settings, tmp_path / "there").get("0" * 32 + ".dir", target)
    assert contents(target) == {"old": b"old"}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".fetching")] == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "0" * 31, "g" * 32, "0" * 32 + ".dir/.."])
def test_what_is_no_hash_is_never_looked_for(name, tmp_path):
    with pytest.raises(RemoteUnusable, match="no hash"):
        ObjectStore({"url": str(tmp_path / "remote")}, tmp_path / "cache").get(name, tmp_path / "x")


def test_a_worker_is_told_where_the_remote_is_and_no_secret():
    declared = {
        "url": "s3://bucket/folder",
        "endpointurl": "http://store",
        "access_key_id": "planted",
        "secret_access_key": "planted",
        "session_token": "planted",
        "password": "planted",
    }
    told = remote_settings({"remote": {"store": declared}}, "store")
    assert told == {"url": "s3://bucket/folder", "endpointurl": "http://store"}
    with pytest.raises(RemoteUnusable, match="Did you mean 'store'"):
        remote_settings({"remote": {"store": declared}}, "stor")


def test_a_store_that_does_not_answer_is_named_with_what_to_check(tmp_path, output, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    settings = {"url": "s3://papers/store", "endpointurl": "http://127.0.0.1:9", "connect_timeout": 1}
    with pytest.raises(RemoteUnusable, match="AWS_ACCESS_KEY_ID") as raised:
        ObjectStore(settings, tmp_path / "cache").put(output)
    assert "planted-secret" not in str(raised.value)
