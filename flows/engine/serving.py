"""Servers for more than one run: MLflow, Prefect, the head of a Ray cluster. On loopback, unless asked otherwise.

An open door to a Ray cluster is a door to every account that runs on it, and an open MLflow or Prefect server lets
strangers rewrite what was measured or start a run. So a server that other machines can reach is started only with
authentication, whose secrets come from the environment: they stand neither in a file of the checkout nor on a command
line, which every user of a machine can read.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from components.errors import TesseraError

Kind = Literal["mlflow", "prefect", "ray"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LOOPBACK = "127.0.0.1"
PORTS: dict[Kind, int] = {"mlflow": 5000, "prefect": 4200, "ray": 6379}

SHORTEST_SECRET = 16
"""Characters; a random one of this length cannot be guessed, and nobody types it by accident."""

MLFLOW_KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
MLFLOW_PASSWORD = "MLFLOW_AUTH_ADMIN_PASSWORD"
PREFECT_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
RAY = "a Ray cluster"
RAY_TOKEN = "RAY_AUTH_TOKEN"
RAY_TOKEN_FILE = "RAY_AUTH_TOKEN_PATH"


class Unprotected(TesseraError):
    """A server that others can reach was to be started without authentication."""


@dataclass(frozen=True)
class Server:
    """A server as it would be started.

    Attributes:
        command: Program and arguments; no secret stands there.
        settings: Environment variables that it is given besides those of the caller; no secret stands there.
    """

    command: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


def plan(
    root: Path, kind: Kind, host: str = LOOPBACK, port: int | None = None, *, environment: Mapping[str, str]
) -> Server:
    """Say how a server would be started.

    Args:
        root: The workspace.
        kind: Which server.
        host: Address that it listens on; for Ray the address that the other nodes reach this one by.
        port: Port that it listens on; by default the server's usual one.
        environment: Where secrets are looked for.

    Raises:
        Unprotected: Other machines could reach it, and it would ask nobody for a password or token; or it is Ray's, and
            has no token.
    """
    build: Callable[..., Server] = {"mlflow": _mlflow, "prefect": _prefect, "ray": _ray}[kind]
    return build(root, host, PORTS[kind] if port is None else port, environment)


def serve(root: Path, kind: Kind, host: str = LOOPBACK, port: int | None = None) -> None:
    """Become the server: this process is replaced by it, so that whoever started it can stop it.

    Raises:
        Unprotected: As in `plan`.
    """
    server = plan(root, kind, host, port, environment=os.environ)
    os.chdir(root)
    os.execve(server.command[0], server.command, os.environ | server.settings)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only; a name other than localhost may be any address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _mlflow(root: Path, host: str, port: int, environment: Mapping[str, str]) -> Server:
    key, password = environment.get(MLFLOW_KEY, ""), environment.get(MLFLOW_PASSWORD, "")
    if not is_loopback(host):
        _require(host, "MLflow", {MLFLOW_KEY: key, MLFLOW_PASSWORD: password})
    # The address of a database may hold a password, so it is no argument either.
    settings = {
        "MLFLOW_BACKEND_STORE_URI": environment.get("MLFLOW_BACKEND_STORE_URI") or f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    words = ["-m", "mlflow", "server", "--host", host, "--port", str(port), "--workers", "1"]
    if key:
        words += ["--app-name", "basic-auth"]
    return Server((sys.executable, *words), settings)


def _prefect(root: Path, host: str, port: int, environment: Mapping[str, str]) -> Server:
    given = environment.get(PREFECT_AUTH, "")
    if not is_loopback(host):
        user, colon, password = given.partition(":")
        _require(host, "Prefect", {f"{PREFECT_AUTH} (user:password)": password if user and colon else ""})
    settings = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    return Server((sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)), settings)


def _ray(root: Path, host: str, port: int, environment: Mapping[str, str]) -> Server:
    mode = environment.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise Unprotected(
            f"Unprotected: RAY_AUTH_MODE is {mode!r}, and whoever reaches a Ray cluster without token authentication "
            "runs code on it. Expected 'token'; unset the variable."
        )
    file = environment.get(RAY_TOKEN_FILE, "")
    token = environment.get(RAY_TOKEN, "") or (_content(Path(file)) if file else "")
    _require(host, RAY, {f"{RAY_TOKEN} (or {RAY_TOKEN_FILE}, a file)": token})
    settings = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    if is_loopback(host):
        # Without it every process of Ray listens on all interfaces; with it, a cluster is this machine alone.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    program = str(Path(sys.executable).with_name("ray"))
    words = ["start", "--head", "--node-ip-address", host, "--port", str(port), "--dashboard-host", LOOPBACK, "--block"]
    return Server((program, *words), settings)


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise Unprotected(f"Unprotected: {RAY_TOKEN_FILE} names {file}, which cannot be read: {reason}.") from None


def _require(host: str, server: str, secrets: Mapping[str, str]) -> None:
    weak = [name for name, secret in secrets.items() if len(secret) < SHORTEST_SECRET]
    if weak:
        alone = "" if server == RAY else f" Or leave --host away: then only this machine ({LOOPBACK}) can reach it."
        raise Unprotected(
            f"Unprotected: {server} on {host} needs authentication: set {' and '.join(weak)} in the environment, to at "
            f"least {SHORTEST_SECRET} characters (openssl rand -hex 32 makes some).{alone}"
        )
