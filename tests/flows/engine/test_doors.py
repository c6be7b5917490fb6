"""Open doors are found: a cluster without a token, a password on its way in clear, a server on every interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple

import pytest

from flows.engine import doors
from flows.engine.doors import open_doors

Person = namedtuple("Person", "pw_name pw_uid pw_shell")


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    """Of this machine only what a test opens itself is seen."""
    monkeypatch.setattr(doors, "_SERVERS", ("a_server_of_this_test",))
    monkeypatch.setattr(doors, "DVC_SITE", tmp_path / "site")


def said(**environment: str) -> str:
    return "\n".join(door.says for door in open_doors(environment))


def test_a_machine_as_it_should_be_has_no_open_door():
    assert said(RAY_AUTH_MODE="token", MLFLOW_TRACKING_URI="sqlite:///mlflow.db") == ""


def test_a_cluster_without_a_token_is_a_problem():
    (door,) = open_doors({"RAY_AUTH_MODE": "disabled"})
    assert door.status == "problem"


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"MLFLOW_TRACKING_URI": "http://me:secret12@host:5000"}, "unencrypted to http://host:5000"),
        ({"MLFLOW_TRACKING_URI": "http://host:5000", "MLFLOW_TRACKING_PASSWORD": "secret12"}, "unencrypted"),
        ({"PREFECT_API_URL": "http://10.0.0.7:4200/api", "PREFECT_API_AUTH_STRING": "a:secret12"}, "unencrypted"),
        ({"MLFLOW_TRACKING_URI": "https://me:secret12@host"}, ""),
        ({"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", "MLFLOW_TRACKING_PASSWORD": "secret12"}, ""),
        ({"MLFLOW_TRACKING_URI": "http://host:5000"}, ""),
    ],
)
def test_a_password_in_clear_is_found_and_not_repeated(environment, found):
    words = said(**environment)
    assert found in words
    assert bool(found) == bool(words)
    assert "secret12" not in words


@pytest.mark.parametrize(("host", "found"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_a_server_on_every_interface_is_found(host, found):
    code = "import socket, sys; s = socket.create_server((sys.argv[2], 0)); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, "a_server_of_this_test", host]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        server.stdout.readline()
        seen = said()
        server.stdin.close()
    assert ("a_server_of_this_test can be reached" in seen) == found


def test_a_cache_of_pickles_that_others_can_write_is_found_where_there_are_others(monkeypatch, tmp_path):
    doors.DVC_SITE.mkdir()
    doors.DVC_SITE.chmod(0o777)
    person, root = Person("b", 4321, "/bin/bash"), Person("root", 0, "/bin/bash")
    for people, found in (
        ([root, person], True),
        ([root], False),
        ([root, Person("c", 4322, "/usr/sbin/nologin")], False),
    ):
        monkeypatch.setattr("pwd.getpwall", lambda people=people: people)
        assert ("DVC keeps pickles" in said()) == (found and os.getuid() != person.pw_uid)
    monkeypatch.setattr("pwd.getpwall", lambda: [root, person])
    assert said(DVC_SITE_CACHE_DIR=str(tmp_path)) == ""
    doors.DVC_SITE.chmod(0o700)
    assert said() == ""
