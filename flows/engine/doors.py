"""Doors that stand open: servers of ours that others reach without a password, and secrets that travel unencrypted."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.engine.redaction import without_credentials
from flows.engine.serving import is_loopback

DVC_SITE = Path("/var/tmp/dvc")
FIRST_PERSON = 1000
"""Smallest number that Linux gives to accounts of people."""

_SERVERS = ("mlflow", "prefect", "gcs_server", "raylet", "ray::")
_SECRETS = {
    "MLFLOW_TRACKING_URI": ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    "PREFECT_API_URL": ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"),
}


@dataclass(frozen=True)
class Door:
    """One open door: what stands open, what to do, and whether anybody may come in ("problem") or listen ("warn")."""

    says: str
    fix: str
    status: str = "warn"


def open_doors(environment: Mapping[str, str]) -> Iterator[Door]:
    """Yield what stands open, as the variables of an environment and the processes of this user say."""
    mode = environment.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        fix = "unset RAY_AUTH_MODE: whoever reaches a Ray cluster without a token runs code on it"
        yield Door(f"RAY_AUTH_MODE is {mode!r}", fix, "problem")
    yield from _unencrypted(environment)
    yield from _listening()
    if not environment.get("DVC_SITE_CACHE_DIR") and _is_shared(DVC_SITE):
        says = f"DVC keeps pickles in {DVC_SITE}, where other people of this machine can put theirs"
        yield Door(says, 'export DVC_SITE_CACHE_DIR="$HOME/.cache/dvc-site"')


def _unencrypted(environment: Mapping[str, str]) -> Iterator[Door]:
    for name, secrets in _SECRETS.items():
        address = urllib.parse.urlsplit(environment.get(name, ""))
        secret = address.password or any(environment.get(each) for each in secrets)
        if address.scheme == "http" and secret and not is_loopback(address.hostname or ""):
            shown = without_credentials(environment[name])
            fix = "give its https:// address, or reach it through an SSH tunnel (docs/servers.md)"
            yield Door(f"{name} sends a password unencrypted to {shown}", fix)


def _listening() -> Iterator[Door]:
    """Find servers of this user that listen on more than loopback."""
    import psutil

    found: dict[str, set[str]] = {}
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid():
                continue
            words = [process.name(), *process.cmdline()[:6]]
            kind = next((each for each in _SERVERS if any(each in Path(word).name for word in words)), None)
            if kind is None:
                continue
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN and not is_loopback(_plain(connection.laddr.ip)):
                    found.setdefault(kind, set()).add(f"{connection.laddr.ip}:{connection.laddr.port}")
        except psutil.Error:
            continue
    for kind, places in found.items():
        says = f"{kind} can be reached from other machines ({', '.join(sorted(places)[:4])})"
        fix = "stop it, and start it with `tessera serve`; or see that it asks for a password (docs/servers.md)"
        yield Door(says, fix)


def _plain(address: str) -> str:
    """Spell an IPv4 address that a socket of IPv6 listens on as IPv4."""
    return address.removeprefix("::ffff:")


def _is_shared(folder: Path) -> bool:
    """Tell whether a folder can be written by everyone on a machine that several people use."""
    import pwd

    people = [each for each in pwd.getpwall() if each.pw_uid >= FIRST_PERSON and not each.pw_shell.endswith("nologin")]
    others = [each for each in people if each.pw_uid != os.getuid() and each.pw_name != "nobody"]
    return bool(others) and folder.is_dir() and bool(folder.stat().st_mode & 0o002)
