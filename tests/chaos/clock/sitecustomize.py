"""Lets Python's clock step when a file appears: its content is the step in seconds. Loaded by name, from PYTHONPATH."""

from __future__ import annotations

import os
import time

_switch = os.environ.get("CHAOS_CLOCK")

if _switch:
    _now, _now_ns = time.time, time.time_ns

    def _step() -> int:
        try:
            with open(_switch, encoding="ascii") as file:
                return int(file.read() or 0)
        except (OSError, ValueError):
            return 0

    time.time = lambda: _now() + _step()
    time.time_ns = lambda: _now_ns() + _step() * 10**9
