"""An embedded Prefect server: on loopback, its own database, its log in a file, gone with the driver."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from components.errors import TesseraError

SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
}


class PrefectUnavailable(TesseraError):
    """The embedded Prefect server did not come up."""


class PrefectServer:
    """Starts Prefect's API server as a child process.

    Args:
        home: Folder of its database and log.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._process: subprocess.Popen | None = None
        self.url = ""

    def start(self) -> None:
        """Start it; returns at once."""
        self._home.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        environment = os.environ | SETTINGS | {"PREFECT_HOME": str(self._home)}
        environment.pop("PREFECT_API_URL", None)
        command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1"]
        with open(self._home / "server.log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command, "--port", str(port), "--log-level", "warning", "--timeout-keep-alive", "60"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Wait until it answers.

        Raises:
            PrefectUnavailable: It ended, or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise PrefectUnavailable(
            f"PrefectUnavailable: the embedded Prefect server did not answer; its log is {self._home / 'server.log'}. "
            "The run does not need it. Remove that folder to start with a new database."
        )

    def close(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
