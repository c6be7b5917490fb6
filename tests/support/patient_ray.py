"""The command `ray` for a busy machine: a node has minutes to start, where Ray gives its processes thirty seconds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

SECONDS = 300.0


def patient(ask: Callable[..., Any]) -> Callable[..., Any]:
    """Let a question to the cluster be asked again until it is answered."""

    @functools.wraps(ask)
    def asking(*arguments: Any, **options: Any) -> Any:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return ask(*arguments, **options)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    return asking


if __name__ == "__main__":
    from ray._private import services
    from ray.scripts.scripts import main

    services.get_node = patient(services.get_node)
    main()
