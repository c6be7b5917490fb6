"""A planted secret appears nowhere after a run that fails while it speaks of it: in no log, tag, record or message."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked import ROOT, files, text, texts
from workspace import command, edit, make_workspace, write

from flows import cli
from flows.engine.mlflow_page import NoRuns, runs_page
from flows.engine.tracking import Tracker
from flows.engine.workspace_lock import command_line
from flows.stage import run_request

# Long random words, so that finding one is no accident.
PLANTED = {
    "HF_TOKEN": "hf_" + "Zq7Rk2Vw9Lx4Tn8B" * 2,
    "AWS_SECRET_ACCESS_KEY": "wJa1rXUtn2FEMIK7/MDENG+bPxRfiCYkey0",
    "PREFECT_API_AUTH_STRING": "tessera:Yb5Gd3Hc8Jf6Ks1Q",
    "MLFLOW_TRACKING_PASSWORD": "Vt4Mz9Xe2Pn7Wu5C",
    "RAY_AUTH_TOKEN": "3f9c1d7e5b2a4860" * 4,
}
SPELLINGS = [
    *PLANTED.values(),
    "Yb5Gd3Hc8Jf6Ks1Q",
    base64.b64encode(PLANTED["PREFECT_API_AUTH_STRING"].encode()).decode(),
]
LEAK = """
    import logging
    import os
    import subprocess
    import sys
    planted = {planted!r}
    words = " ".join(os.environ[name] for name in planted)
    print("standard output", words)
    print("standard error", words, file=sys.stderr)
    logging.getLogger("a.library").warning("request with header %s", words)
    os.write(2, ("native code " + words + "\\n").encode())
    subprocess.run([sys.executable, "-c", "import os; print(dict(os.environ))"], check=True)
    try:
        raise ConnectionError(f"https://user:{{os.environ['HF_TOKEN']}}@example.org refuses {{words}}")
    except ConnectionError as error:
        raise RuntimeError(f"no weights: {{error}}") from error
"""


def holding(folder: Path) -> list[str]:
    """The files below a folder that hold a planted secret, byte for byte."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [str(path.relative_to(folder)) for secret in SPELLINGS if secret.encode() in content]
    return found


@pytest.fixture(scope="module")
def leaking(tmp_path_factory) -> Iterator[Path]:
    """A workspace whose training stage says every secret in every way it has, and fails."""
    root = make_workspace(tmp_path_factory.mktemp("leaking") / "w", papers=1, seeds=1, bases=0, code=True, dvc=True)
    write(root, "pyproject.toml", "[project]\nname = 'toy'\nversion = '0'\n")
    write(root, ".gitignore", ".tessera/\n/data/\n/runs/\n/site/\n/mlruns/\n__pycache__/\n*.db\n*.db-*\n")
    edit(root, "flows/studies/toy/train.py", "    params = stage.params\n", LEAK.format(planted=sorted(PLANTED)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PLANTED.items():
            patch.setenv(name, value)
        yield root


def test_a_failing_stage_leaves_no_secret_in_its_log_or_on_the_screen(leaking):
    done = command(leaking, sys.executable, "-m", "flows.stage", *["train", "toy-0", "plain", "mean", "0"], check=False)
    assert done.returncode == 1
    assert "no weights" in done.stderr
    log = "".join(path.read_text() for path in leaking.glob("runs/**/log.txt"))
    for said in ("standard output", "standard error", "request with header", "native code", "no weights", "[HF_TOKEN]"):
        assert said in log
    assert not any(secret in done.stdout + done.stderr for secret in SPELLINGS)
    assert holding(leaking) == []


@pytest.mark.slow
def test_a_failing_run_leaves_no_secret_in_any_file_record_or_message(leaking):
    done = command(leaking, sys.executable, "-m", "flows.cli", "reproduce", "toy-0", check=False, timeout=280)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no weights" in done.stdout
    assert not any(secret in done.stdout + done.stderr for secret in SPELLINGS)
    assert (leaking / "mlflow.db").is_file()
    assert holding(leaking) == []


def test_a_failed_stage_is_tracked_without_secrets(tmp_path, monkeypatch):
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    request = {"root": str(tmp_path), "arguments": ["train", PLANTED["HF_TOKEN"], "plain", "mean", "0"]}
    answer = run_request(request)
    assert answer["status"] == "failed"
    assert "[HF_TOKEN]" in answer["message"]
    assert not any(secret in str(answer) for secret in SPELLINGS)


def test_an_address_with_a_password_is_never_repeated(tmp_path, monkeypatch):
    address = "http://tessera:Yb5Gd3Hc8Jf6Ks1Q@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(NoRuns, match=re.escape("MLflow at http://127.0.0.1:9 does not answer")) as refused:
        runs_page(tmp_path, "toy", [("toy-0", "plain")], "error")
    assert "Yb5Gd3Hc8Jf6Ks1Q" not in str(refused.value)
    tracker = Tracker(address, tmp_path / "spool", "flow", "commit", tmp_path)
    tracker._note(f"nothing can be sent to {address}: refused {address}/api")
    assert "127.0.0.1:9" in tracker.state.problem
    assert "Yb5Gd3Hc8Jf6Ks1Q" not in tracker.state.problem


def test_the_command_that_holds_a_workspace_is_shown_without_its_passwords(monkeypatch):
    words = ["/usr/bin/tessera", "track", "migrate", "postgresql://tessera:Yb5Gd3Hc8Jf6Ks1Q@host/mlflow"]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line() == "tessera track migrate postgresql://host/mlflow"


def test_the_traceback_of_a_defect_shows_no_secret(monkeypatch, capsys):
    def breaks() -> None:
        raise ZeroDivisionError(f"connecting with {PLANTED['HF_TOKEN']} to http://me:Yb5Gd3Hc8Jf6Ks1Q@host")

    monkeypatch.setenv("HF_TOKEN", PLANTED["HF_TOKEN"])
    monkeypatch.setattr(cli, "app", breaks)
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert "in breaks" in said
    assert "connecting with [HF_TOKEN] to http://host" in said
    assert not any(secret in said for secret in SPELLINGS)


# Written in two parts where a whole one would be found in this file.
SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{50,}|\bxox[abp]-[\w-]{20,}"
    r"|-----BEGIN (?:\w+ )?PRIVATE" + r" KEY|\bsk-[A-Za-z0-9]{32,}|\bglpat-[\w-]{20}"
)
IN_ADDRESS = re.compile(r"\w+://[^\s/?#@:'\"`{}]+:[^\s/?#@'\"`{}$]+@")


def test_no_tracked_file_holds_what_looks_like_a_secret():
    found = [
        f"{path}: {match[0][:12]}..."
        for path in texts()
        if path.parts[0] not in ("results", "tests")
        for match in [*SHAPES.finditer(text(path)), *IN_ADDRESS.finditer(text(path))]
    ]
    assert found == []
    assert [
        str(path) for path in files() if path.name in (".env", "auth_token", ".netrc") or path.suffix == ".pem"
    ] == []


def test_the_search_finds_each_shape_of_a_secret():
    samples = ["hf_" + "a" * 34, "AKIA" + "A" * 16, "ghp_" + "a" * 36, "-----BEGIN RSA PRIVATE" + " KEY-----"]
    assert all(SHAPES.search(sample) for sample in samples)
    assert IN_ADDRESS.search("postgresql://a:b@host")
    assert not IN_ADDRESS.search("postgresql://a:${PASSWORD}@host")


def test_git_ignores_files_of_secrets():
    names = [".env", "infra/compose/.env", "secrets.env"]
    said = command(ROOT, "git", "check-ignore", "--no-index", *names, check=False).stdout.split()
    assert said == names
