"""Is a host within reach? Asked before every download, so that a machine without network fails at once."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0


def unreachable(url: str, seconds: float = CONNECT_SECONDS) -> str | None:
    """Return why the host of `url` (or the proxy that leads to it) does not answer, or None when it does.

    Looking up a name has no timeout of its own and can take half a minute on a machine whose resolver is gone, so
    the attempt runs in a thread that is left behind after `seconds`.
    """
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if proxy:
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    outcome: list[str | None] = []

    def attempt() -> None:
        try:
            socket.create_connection((parts.hostname, port), timeout=seconds).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(f"{parts.hostname} cannot be reached ({error.strerror or error})")

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"{parts.hostname} did not answer within {seconds:g} s"
