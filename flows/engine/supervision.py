"""Keeps the promise that no process outlives the driver (see `reaper`)."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

from flows.engine import reaper


class Supervision:
    """Marks the driver's environment and holds the pipe whose end tells the reaper that the driver is gone.

    Start it before anything else is started, so that every child inherits the mark.
    """

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._reaper: subprocess.Popen | None = None

    def start(self) -> None:
        """Start the reaper; safe to call twice."""
        if self._reaper is not None:
            return
        earlier = [f"{pid}:{start}" for pid, start in reaper.descendants([os.getpid()])]
        os.environ[reaper.MARK] = self.mark
        self._reaper = subprocess.Popen(
            [sys.executable, "-S", "-E", reaper.__file__, str(os.getpid()), self.mark, *earlier],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if key != reaper.MARK},
        )

    def close(self) -> None:
        """Stop what is left of the children started since, and wait until they are gone."""
        if self._reaper is None:
            return
        self._reaper.stdin.write(b"close")
        self._reaper.stdin.close()
        self._reaper.wait(timeout=30)
        self._reaper = None
        os.environ.pop(reaper.MARK, None)
