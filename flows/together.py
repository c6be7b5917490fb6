"""A stage as one of several processes that train its model together.

Every process runs the whole stage function; where it calls the training loop, the loop divides the batches among
them. Rank 0 is the stage: its output, log and checkpoint count. What the others write is thrown away.
"""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.away import run_away
from flows.engine.exchange import AWAY_FUNCTION
from flows.stage import run_request


def run_rank(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run a stage in a process of a torch process group.

    Args:
        payload: {"function": the stage's own function, "request": its payload, "rank": number of this process,
            "workers": their number}.
    """
    request, rank = dict(payload["request"]), payload["rank"]
    run = run_away if payload["function"] == AWAY_FUNCTION else run_request
    under = ""
    if rank:
        under = request["under"] = f"{request.get('under') or '.tessera'}/ranks/{rank}"
    with divided(payload["workers"]):
        result = run(request)
    if under:
        shutil.rmtree(Path(request["root"]) / under, ignore_errors=True)
    return result


@contextmanager
def divided(shards: int) -> Iterator[None]:
    """Let the training loop of this process cut batches into shards and share them with its process group."""
    from components.training import distributed, loop

    own, shared = loop.fit, functools.partial(distributed.fit, shards=shards)

    def exchange(old: object, new: object) -> None:
        # Modules hold the function by name: those that are loaded, and through the loop's module those that will be.
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] in ("components", "flows") and vars(module).get("fit") is old:
                module.fit = new

    exchange(own, shared)
    try:
        yield
    finally:
        exchange(shared, own)
