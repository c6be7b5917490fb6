"""One trial: a copy of the workspace, a fault at a moment that a seed picks, the invariants, a rerun, the invariants.

Whatever a trial starts carries its mark in the environment. Only processes with the mark are ever signalled: other
clusters may run on the machine.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import invariants
import psutil
import undisturbed
from undisturbed import Undisturbed

from flows.engine.spool import waits

MARK = "CHAOS_TRIAL"
BOUND_SECONDS = 600.0
"""A run that has not ended after this has hung; the invariant that it ends is broken."""
RAY_ATTEMPTS = 4
COMMAND = ("-m", "flows.cli", "reproduce", undisturbed.PAPER)
HERE = ("-m", "here")
"""The same without Ray, Prefect and MLflow, for faults that have nothing to do with them."""
RAY_SLOW = ("RayUnavailable", "did not start within", "timed out during startup", "Timed out waiting")


class Hung(AssertionError):
    """A run did not end."""


class NeverCame(AssertionError):
    """The moment of the fault did not come: the run ended before."""


@dataclass
class Scene:
    """What a fault acts on.

    Attributes:
        root: The workspace to disturb.
        undisturbed: What it is compared with.
        rng: Source of every choice.
        mark: Value of MARK in the environment of all that the trial starts.
        pause: Seconds that a training sleeps after each of its 40 steps.
        command: What a driver runs: COMMAND or HERE.
        variables: Further environment variables of every driver.
        outputs: What each driver printed.
        told: What was done, for the record of the trial.
        spare: Processes that are the trial's own (servers) and live on between runs.
    """

    root: Path
    undisturbed: Undisturbed
    rng: random.Random
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    pause: float = 0.02
    command: tuple[str, ...] = COMMAND
    variables: dict[str, str] = field(default_factory=dict)
    outputs: list[Path] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    spare: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def start(self, *options: str, **variables: str) -> subprocess.Popen:
        """Start a driver."""
        output = self.root.parent / f"{self.root.name}-{len(self.outputs)}.log"
        self.outputs.append(output)
        with open(output, "wb") as text:
            return subprocess.Popen(
                [sys.executable, *self.command, *options],
                cwd=self.root,
                env=self.environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=text,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self) -> dict[str, str]:
        """Return the variables of a process of this trial."""
        own = {MARK: self.mark, "CHAOS_PAUSE": str(self.pause), "OMP_NUM_THREADS": "1"}
        return undisturbed.environment(self.root) | own | self.variables

    def said(self, number: int = -1) -> str:
        """Return what a driver printed."""
        return self.outputs[number].read_text(errors="replace") if self.outputs else ""

    def end(self, driver: subprocess.Popen, seconds: float = BOUND_SECONDS) -> int:
        """Wait for a driver's end.

        Raises:
            Hung: It does not end.
        """
        try:
            return driver.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            said = self.said()
            self.clear()
            raise Hung(f"the run had not ended after {seconds:.0f} s; it said: {said[-800:]}") from None

    def recorded(self) -> int:
        """Count the stages of the paper that are recorded."""
        lock = self.root / "params" / undisturbed.PAPER / "dvc.lock"
        return lock.read_text().count("\n    cmd:") if lock.exists() else 0

    def until(self, driver: subprocess.Popen, stages: int, seconds: float = BOUND_SECONDS) -> None:
        """Wait until so many stages of the paper are recorded.

        Raises:
            NeverCame: The driver ended before.
        """
        deadline = time.monotonic() + seconds
        while self.recorded() < stages:
            if driver.poll() is not None:
                raise NeverCame(
                    f"the driver ended with {driver.returncode} before {stages} stages: {self.said()[-800:]}"
                )
            if time.monotonic() > deadline:
                raise Hung(f"{stages} stages were not recorded within {seconds:.0f} s: {self.said()[-800:]}")
            time.sleep(0.01)

    def moment(self, driver: subprocess.Popen, last: int = undisturbed.STAGES - 4) -> None:
        """Wait for a moment that the seed picks: after a number of stages, and a while."""
        stages, pause = self.rng.randrange(last), self.rng.random() * 0.6
        self.until(driver, stages)
        time.sleep(pause)
        self.told.append(f"after {stages} stages and {pause:.2f} s")

    def processes(self, kind: str) -> list[psutil.Process]:
        """Return the living processes of this trial of one kind: worker, raylet, head, prefect."""
        found = []
        for process in invariants.marked(f"{MARK}={self.mark}"):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                is_of = {
                    "worker": line.startswith("ray::params/"),
                    "raylet": process.name() == "raylet",
                    "head": process.name() == "gcs_server",
                    "prefect": "prefect.server.api.server" in line,
                }[kind]
                if is_of and process.pid not in self.spare:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def kill(self, kind: str, driver: subprocess.Popen, seconds: float = 60.0) -> bool:
        """Kill one process of a kind as soon as there is one; tell whether there was."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and driver.poll() is None:
            if found := self.processes(kind):
                process = self.rng.choice(found)
                self.told.append(f"killed {kind}")
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
                return True
            time.sleep(0.02)
        self.told.append(f"no {kind} ran")
        return False

    def clear(self) -> None:
        """Kill everything that this trial started."""
        for process in invariants.marked(f"{MARK}={self.mark}"):
            if process.pid not in self.spare:
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def rest(self) -> None:
        """Ask what must hold once the disturbed run has ended, however it ended."""
        self.wrong += invariants.nothing_left(f"{MARK}={self.mark}", spare=self.spare)
        for number in range(len(self.outputs)):
            self.wrong += invariants.failures_are_told(self.root, self.said(number))
        self.wrong += invariants.at_rest(self.root, self.undisturbed.after, "")

    def rerun(self, *, tracked: bool = True, mended: bool = False) -> None:
        """Run the same command again, undisturbed, and ask what must hold at the end.

        Args:
            tracked: Whether MLflow can take its records now.
            mended: Whether the fault itself made a recorded stage invalid, so that it may run again.
        """
        begun = {} if mended else invariants.starts(self.root)
        for _ in range(RAY_ATTEMPTS):
            code = self.end(self.start())
            self.wrong += invariants.nothing_left(f"{MARK}={self.mark}", spare=self.spare)
            if code == 0 or not any(word in self.said() for word in RAY_SLOW):
                break
            self.told.append("Ray was slow to start: once more")
        for _ in range(RAY_ATTEMPTS):
            # A run waits ten seconds for MLflow at its end, in which a busy machine may not even have loaded it.
            if code != 0 or not tracked or not waits(self.root / ".tessera" / "spool"):
                break
            self.told.append("records waited for one more run")
            code = self.end(self.start())
        if code != 0:
            self.wrong.append(f"the rerun ended with {code}: {self.said()[-1200:]}")
        if not mended:
            self.wrong += invariants.nothing_ran_again(self.root, begun)
        self.wrong += invariants.same_as_undisturbed(self.root, self.undisturbed.after)
        self.wrong += invariants.at_rest(self.root, self.undisturbed.after, self.said())
        self.wrong += invariants.nothing_forgotten(self.root, tracked=tracked)


def prepare(folder: Path) -> Undisturbed:
    """Make the workspace, and a copy of it after one undisturbed run."""
    before = undisturbed.make(folder / "before")
    after = undisturbed.copy(before, folder / "after")
    done = undisturbed.process(after, "-m", "here", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return Undisturbed(before, after)


def scene(made: Undisturbed, folder: Path, name: str, seed: int, *, finished: bool = False) -> Scene:
    """Set the scene of a trial: a copy of the workspace before its first run, or after it."""
    root = folder / f"{name}-{seed}"
    shutil.rmtree(root, ignore_errors=True)
    undisturbed.copy(made.after if finished else made.before, root)
    return Scene(root, made, random.Random(f"{name} {seed}"))


def remove(stage: Scene) -> None:
    """Remove the workspace of a trial, and its processes if any is left."""
    stage.clear()
    shutil.rmtree(stage.root, ignore_errors=True)
    for output in stage.outputs:
        with contextlib.suppress(OSError):
            os.unlink(output)
