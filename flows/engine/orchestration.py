"""Shows a running execution in Prefect: one flow run, one task run per stage.

Each Prefect task runs on a driver thread and holds one stage: it waits for the stage's outcome and takes its state,
name, log tail and error over. Prefect's server may therefore be slow to start (stages do not wait for it), may die in
the middle, or may be missing: the run goes on, and what is true stays in DVC's locks.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.engine.execution import GOOD, Observer, Outcome, State
from flows.engine.prefect_server import SETTINGS, PrefectServer

START_SECONDS = 600.0
"""How long the server may take to start; on a busy machine minutes. Nothing waits for it."""

logger = logging.getLogger(__name__)


class PrefectMirror(Observer):
    """Mirrors an execution into Prefect.

    Args:
        home: Folder of the embedded server's database; unused when PREFECT_API_URL names a server.
        flow: Returns the Prefect flow to run; called in the mirror's thread, so that importing Prefect delays nothing.
            The flow calls `follow()`. None when the caller is already inside a flow run.
        describe: Text for the task's log when a stage has ended.
    """

    def __init__(
        self,
        home: Path,
        flow: Callable[[], Any] | None,
        *,
        describe: Callable[[Outcome], str] = lambda outcome: outcome.message,
    ) -> None:
        self._home = home
        self._flow = flow
        self._describe = describe
        self._events: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._ends: dict[str, Outcome] = {}
        self._ended: dict[str, threading.Event] = {}
        self._thread: threading.Thread | None = None
        self._server: PrefectServer | None = None
        self.joined = threading.Event()
        self.failure: BaseException | None = None

    def planned(self, stale: list[str], clean: list[str]) -> None:
        """Start Prefect in the background when there is something to show."""
        if stale and self._flow is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="prefect", daemon=True)
            self._thread.start()

    def started(self, address: str) -> None:
        """Show a stage that runs."""
        self._event(address)
        self._events.put(("start", address))

    def ended(self, outcome: Outcome) -> None:
        """Show how a stage ended; stages that were up to date are not shown."""
        if outcome.state is State.CLEAN:
            return
        if outcome.address not in self._ended:
            self._event(outcome.address)
            self._events.put(("start", outcome.address))
        self._ends[outcome.address] = outcome
        self._ended[outcome.address].set()

    def _event(self, address: str) -> None:
        self._ended.setdefault(address, threading.Event())

    def _run(self) -> None:
        os.environ.update(SETTINGS)
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        try:
            if "PREFECT_API_URL" not in os.environ:
                self._server = PrefectServer(self._home)
                self._server.start()
                os.environ["PREFECT_API_URL"] = self._server.url
                os.environ["PREFECT_HOME"] = str(self._home)
                import prefect  # noqa: F401 - takes a second; the server starts meanwhile

                self._server.wait_ready(START_SECONDS)
            self._flow()
        except BaseException as error:
            self.failure = error
            logger.info("Prefect did not follow this run: %s", error)

    def follow(self) -> dict[str, str]:
        """Run inside a flow: submit a task for every stage as it starts, until `close` is called.

        Returns:
            The final state of every stage shown.
        """
        import prefect
        from prefect.states import Completed, Failed

        @prefect.task(name="stage", retries=0, persist_result=False, log_prints=False)
        def stage(address: str) -> Any:
            self._ended[address].wait()
            outcome = self._ends[address]
            text = self._describe(outcome)
            if outcome.state in GOOD:
                return Completed(message=f"{outcome.state.value} in {outcome.seconds:.1f} s")
            if text:
                prefect.get_run_logger().error(text)
            return Failed(message=f"{outcome.state.value}: {outcome.message}")

        self.joined.set()
        futures = []
        while True:
            what, address = self._events.get()
            if what == "close":
                break
            futures.append(stage.with_options(task_run_name=address).submit(address))
        for future in futures:
            future.wait()
        return {address: outcome.state.value for address, outcome in self._ends.items()}

    def close(self, patience: float) -> None:
        """End the flow run: no stage will follow.

        Args:
            patience: Seconds to wait for Prefect to take the record; a server that is still starting after that is
                left out, with no harm to the run.
        """
        for address, event in self._ended.items():
            if not event.is_set():
                self._ends[address] = Outcome(address, State.STOPPED, message="the run ended before the stage")
                event.set()
        self._events.put(("close", ""))
        if self._thread is not None:
            self._thread.join(timeout=patience)
        if self._server is not None:
            self._server.close()
            os.environ.pop("PREFECT_API_URL", None)
