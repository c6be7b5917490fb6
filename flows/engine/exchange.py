"""The driver's side of a run on machines that do not see its workspace (the worker's side is `flows.away`).

Before a stage is submitted its inputs are put into the DVC remote; when it has ended its output and logs are fetched
to where a run on this machine would have written them, so that everything after that is as if it had run here.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.training.atomic import write_bytes
from flows.engine.dispatch import Call
from flows.engine.execution import GOOD, Observer, Outcome, State
from flows.engine.graph import DvcGraph
from flows.engine.object_store import ObjectStore, RemoteUnusable, remote_settings

AWAY_FUNCTION = "flows.away:run_away"


class Exchange(Observer):
    """Hands inputs out and takes outputs in, through one DVC remote.

    Args:
        graph: The graph of the workspace; its configuration declares the remote.
        remote: Name of the remote.
        commit: Git commit of the workspace.

    Raises:
        RemoteUnusable: DVC knows no such remote, or it cannot be used from here.
    """

    def __init__(self, graph: DvcGraph, remote: str, commit: str) -> None:
        from dvc.fs import get_fs_config

        self._graph = graph
        self._settings = remote_settings(graph.config, remote)
        # Here, unlike on the workers, the remote may be used with the credentials of the user's configuration.
        self._store = ObjectStore(get_fs_config(graph.config, name=remote), graph.cache)
        self._commit = commit
        self._workspace = hashlib.sha256(str(self._settings["url"]).encode()).hexdigest()[:12]
        self._hashes: dict[str, str] = {}
        self.problems: list[str] = []

    def call(self, call: Call, inputs: Iterable[str]) -> Call:
        """Return the call that runs a stage away from here, once its inputs lie in the remote.

        Args:
            call: The call that would run it in this workspace.
            inputs: What the stage reads, relative to the workspace.

        Raises:
            RemoteUnusable: The remote did not take an input.
        """
        away = {
            "remote": self._settings,
            "inputs": {path: self._put(path) for path in inputs},
            "commit": self._commit,
            "workspace": self._workspace,
        }
        return dataclasses.replace(call, function=AWAY_FUNCTION, payload={**call.payload, "away": away})

    def _put(self, path: str) -> str:
        if path not in self._hashes:
            self._hashes[path] = self._store.put(self._graph.root / path)
        return self._hashes[path]

    def take(self, value: Mapping[str, Any], output: str, log: str) -> None:
        """Fetch what a stage has written into this workspace.

        Args:
            value: What the stage's call returned.
            output: Its output, relative to the workspace.
            log: Its log folder, likewise.

        Raises:
            RemoteUnusable: The output cannot be fetched.
        """
        folder = self._graph.root / log
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (value.get("logs") or {}).items():
            write_bytes(folder / Path(name).name, base64.b64decode(content))
        if value["status"] == "done":
            try:
                name = value["output"][output]
            except KeyError:
                raise RemoteUnusable(f"RemoteUnusable: the worker gave back no {output}.") from None
            self._store.get(name, self._graph.root / output)
            self._hashes[output] = name

    def ended(self, outcome: Outcome) -> None:
        """Tell the remote of a finished run, so that any machine that uses it can restore it."""
        if outcome.state not in GOOD or outcome.state is State.CLEAN:
            return
        try:
            for entry in self._graph.runs_of(outcome.address):
                self._store.write(entry.relative_to(self._graph.cache).as_posix(), entry)
        except RemoteUnusable as error:
            self.problems.append(str(error))
