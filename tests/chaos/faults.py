"""The faults, each a function of its scene: it starts what it disturbs, disturbs it, and waits until that is at rest.

`FAULTS` says of each what is promised; the table in docs/faults.md is made from it and from the record of a campaign.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import invariants
import undisturbed
from trials import Hung, Scene

CLOCK = Path(__file__).resolve().parent / "clock"


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: Its name.
        apply: Disturbs a run of the scene, until it is at rest.
        says: What happens.
        promise: What is promised beyond the invariants.
        finished: Whether the workspace has been run to its end before.
        mended: Whether the fault spoils recorded work, which then may run again.
        killing: Whether it belongs to the random kills, of which the long form makes most of its trials.
        refused: Why it cannot be tried on this machine; "" where it can.
    """

    name: str
    apply: Callable[[Scene], None]
    says: str
    promise: str
    finished: bool = False
    mended: bool = False
    killing: bool = False
    refused: Callable[[], str] = lambda: ""


FAULTS: dict[str, Fault] = {}


def fault(name: str, says: str, promise: str, **kinds: bool | Callable[[], str]) -> Callable[..., Callable]:
    """Enter a function as a fault."""

    def enter(function: Callable[[Scene], None]) -> Callable[[Scene], None]:
        FAULTS[name] = Fault(name, function, says, promise, **kinds)
        return function

    return enter


@fault("driver", "SIGKILL of the driver", "every process ends with it; the rerun goes on", killing=True)
def kill_driver(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver)
    driver.kill()
    scene.end(driver)


@fault("worker", "SIGKILL of a worker in a stage", "the stage is tried again; the run succeeds", killing=True)
def kill_worker(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver)
    if scene.kill("worker", driver):
        _must_succeed(scene, driver)
    else:
        scene.end(driver)


@fault("raylet", "SIGKILL of the raylet", "the run ends by itself; the rerun goes on", killing=True)
def kill_raylet(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver)
    scene.kill("raylet", driver)
    scene.end(driver)


@fault("head", "SIGKILL of the Ray head (GCS)", "the run ends by itself; the rerun goes on", killing=True)
def kill_head(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver)
    scene.kill("head", driver)
    scene.end(driver)


@fault("prefect", "SIGKILL of the Prefect server", "no stage is lost or delayed; the run succeeds", killing=True)
def kill_prefect(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver)
    scene.kill("prefect", driver)
    _must_succeed(scene, driver)


@fault("mlflow", "SIGKILL of the MLflow server", "the run succeeds; records wait and arrive later", killing=True)
def kill_mlflow(scene: Scene) -> None:
    port, place = _free_port(), scene.root.parent / f"{scene.root.name}-mlflow"
    scene.variables["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    server = _mlflow_server(scene, port, place)
    driver = scene.start()
    scene.moment(driver)
    _stop_tree(server)
    scene.told.append("killed mlflow")
    _must_succeed(scene, driver)
    # The rerun finds a server on the same database and brings it what waited.
    scene.spare.discard(server.pid)
    again = _mlflow_server(scene, port, place)
    scene.told.append("a new server for the rerun")
    scene.spare |= {again.pid}


@fault("two drivers", "two drivers in one workspace", "the second is refused at once and named the first")
def two_drivers(scene: Scene) -> None:
    first = scene.start()
    scene.until(first, scene.rng.randrange(8))
    second = scene.start()
    code = scene.end(second, 120)
    if code == 0 or "WorkspaceBusy" not in scene.said(-1) or str(first.pid) not in scene.said(-1):
        scene.wrong.append(f"the second driver was not refused: {code} {scene.said(-1)[-300:]}")
    _must_succeed(scene, first, output=-2)


@fault("Ctrl-C", "SIGINT once", "stages in flight stop, exit code 130, the rerun goes on")
def interrupt(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver, last=20)
    driver.send_signal(signal.SIGINT)
    code = scene.end(driver)
    if code != 130 or "run the same command again" not in scene.said():
        scene.wrong.append(f"Ctrl-C ended with {code}: {scene.said()[-300:]}")


@fault("Ctrl-C twice", "SIGINT twice within a second", "the run ends at once; nothing is left; the rerun goes on")
def interrupt_twice(scene: Scene) -> None:
    driver = scene.start()
    scene.moment(driver, last=20)
    driver.send_signal(signal.SIGINT)
    time.sleep(scene.rng.random())
    driver.send_signal(signal.SIGINT)
    code = scene.end(driver)
    if code == 0:
        scene.wrong.append("Ctrl-C twice ended with exit code 0")


@fault("stage fails", "a stage raises an error", "its dependants are skipped, all others run; nothing is retried")
def failing_stage(scene: Scene) -> None:
    told = _ask_stage(scene, "fail")
    code = scene.end(scene.start())
    if code != 1 or f"{scene.told[-1]} failed: " not in scene.said():
        scene.wrong.append(f"a failed stage ended the run with {code}: {scene.said()[-500:]}")
    if scene.recorded() != undisturbed.STAGES - 4:  # of 29 in this lock: the training, its evaluation, the judge
        scene.wrong.append(f"{scene.recorded()} stages were recorded beside the failed one")
    told.unlink()


@fault(
    "memory",
    "a stage wants more memory than there is (cgroup; the kernel or Ray kills its worker)",
    "the stage is tried again; the run succeeds",
    refused=lambda: "" if _cgroups() else "needs root and cgroup v1",
)
def out_of_memory(scene: Scene) -> None:
    _ask_stage(scene, "memory")
    with _memory_limit(scene, 3 << 30) as enter:
        driver = scene.start()
        enter(driver.pid)
        _must_succeed(scene, driver)


@fault("full disk", "a file system fills up while stages run", "stages fail with the reason; with space they go on")
def full_disk(scene: Scene) -> None:
    """Put what runs write on a small file system of its own, fill it at a moment, and free it again."""
    runs = scene.root / "runs"
    runs.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(runs)], capture_output=True, text=True)
    if done.returncode:
        scene.told.append(f"not tried: {done.stderr.strip()}")
        return
    try:
        driver = scene.start()
        scene.moment(driver, last=12)
        filler = runs / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        code = scene.end(driver)
        if code != 1 or "No space left" not in scene.said():
            scene.wrong.append(f"a full disk ended the run with {code}: {scene.said()[-500:]}")
        filler.unlink()
        scene.rest()
        scene.rerun()
    finally:
        kept = scene.root.parent / f"{scene.root.name}-runs"
        shutil.copytree(runs, kept)
        scene.clear()
        subprocess.run(["umount", "-l", str(runs)], check=True)
        shutil.copytree(kept, runs, dirs_exist_ok=True)
        shutil.rmtree(kept)


@fault("read-only", "the cache of DVC becomes read-only", "stages fail with the reason, and go on once it is mended")
def read_only_cache(scene: Scene) -> None:
    """Mount the cache read-only in the middle, since root writes anywhere."""
    cache = scene.root / ".dvc" / "cache"
    cache.mkdir(exist_ok=True)
    if subprocess.run(["mount", "--bind", str(cache), str(cache)], capture_output=True).returncode:
        scene.told.append("not tried: needs the right to mount")
        return
    try:
        driver = scene.start()
        scene.moment(driver, last=12)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(cache)], check=True)
        code = scene.end(driver)
        if code != 1 or "CommitFailed" not in scene.said():
            scene.wrong.append(f"a read-only cache ended the run with {code}: {scene.said()[-500:]}")
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


@fault("clock", "the clock steps back by a day while stages run", "the run succeeds")
def clock_step(scene: Scene) -> None:
    """Python's clocks of all processes step (`clock/sitecustomize.py`); those of native code do not."""
    switch = scene.root.parent / f"{scene.root.name}-clock"
    paths = os.pathsep.join([str(CLOCK), scene.environment()["PYTHONPATH"]])
    driver = scene.start(PYTHONPATH=paths, CHAOS_CLOCK=str(switch))
    scene.moment(driver, last=12)
    switch.write_text(str(scene.rng.choice([-86400, 86400, -3600])))
    scene.told.append(f"by {switch.read_text()} s")
    _must_succeed(scene, driver)
    switch.unlink()


@fault(
    "corrupted object",
    "an object of DVC's cache has other bytes, its output is gone",
    "the stage runs again; what is wrong is never handed on",
    finished=True,
    mended=True,
)
def corrupted_object(scene: Scene) -> None:
    objects = sorted(path for path in (scene.root / ".dvc" / "cache" / "files" / "md5").glob("??/*") if path.is_file())
    trained = sorted((scene.root / "runs").glob("chaos/plain/train/*/s*/run"))
    lost = scene.rng.choice(trained)
    model = invariants.content_hash(lost / "model.safetensors")
    for path in objects:
        if path.parent.name + path.name == model:
            path.chmod(0o644)
            content = bytearray(path.read_bytes())
            content[scene.rng.randrange(len(content))] ^= 255
            path.write_bytes(content)
    scene.told.append(f"{lost.relative_to(scene.root)} and its object")
    shutil.rmtree(lost)
    (scene.root / ".tessera" / "settled.json").unlink(missing_ok=True)
    # At rest means here: after the run that meets the damage. It is the rerun.


@fault(
    "truncated lock",
    "dvc.lock ends in the middle",
    "the run says so, or restores every stage from the run cache; nothing is trained again",
    finished=True,
)
def truncated_lock(scene: Scene) -> None:
    lock = scene.root / "params" / undisturbed.PAPER / "dvc.lock"
    whole = lock.read_bytes()
    at = scene.rng.randrange(1, len(whole))
    lock.write_bytes(whole[:at])
    scene.told.append(f"after {at} of {len(whole)} bytes")
    code = scene.end(scene.start())
    if code not in (0, 2) or (code == 2 and "dvc.lock" not in scene.said()):
        scene.wrong.append(f"a truncated lock ended the run with {code}: {scene.said()[-600:]}")
    if code == 2:  # as the message says
        lock.unlink()
        scene.told.append("refused with its name; removed")


@fault("stale lock", "locks of DVC and Tessera whose holder is dead", "they hold nobody up")
def stale_lock(scene: Scene) -> None:
    """Leave lock files as a killed process leaves them: there, with its number inside, held by nobody."""
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (scene.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (scene.root / ".dvc" / "tmp" / "lock").write_text(dead.stdout)
    holder = {"pid": int(dead.stdout), "host": socket.gethostname(), "command": "tessera", "since": "yesterday"}
    (scene.root / ".tessera" / "lock").write_text(json.dumps(holder))
    entry = {str(scene.root / "runs" / "chaos"): [{"pid": int(dead.stdout), "cmd": "dvc repro"}]}
    (scene.root / ".dvc" / "tmp" / "rwlock").write_text(
        json.dumps({name: {"write": e[0]} for name, e in entry.items()})
    )
    _must_succeed(scene, scene.start())


@fault("MLflow down", "nobody listens where MLflow should", "the run succeeds; records wait and arrive later")
def mlflow_down(scene: Scene) -> None:
    _must_succeed(scene, scene.start(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{_free_port()}"))


@fault("MLflow slow", "MLflow answers after a minute", "the run succeeds, no later than half a minute")
def mlflow_slow(scene: Scene) -> None:
    with _answering(scene, seconds=60.0) as uri:
        _must_succeed(scene, scene.start(MLFLOW_TRACKING_URI=uri))


@fault("MLflow wrong", "MLflow answers 500", "the run succeeds; records wait and arrive later")
def mlflow_wrong(scene: Scene) -> None:
    with _answering(scene, seconds=0.0) as uri:
        _must_succeed(scene, scene.start(MLFLOW_TRACKING_URI=uri))


def _must_succeed(scene: Scene, driver: subprocess.Popen, output: int = -1) -> None:
    code = scene.end(driver)
    if code != 0:
        scene.wrong.append(
            f"the disturbed run itself should succeed, and ended with {code}: {scene.said(output)[-1200:]}"
        )


def _ask_stage(scene: Scene, what: str) -> Path:
    """Ask one training for a fault (see the study's `train.py`)."""
    told = scene.root.parent / f"{scene.root.name}-fault"
    arm, seed = scene.rng.choice(["narrow", "wide"]), scene.rng.randrange(undisturbed.SEEDS)
    told.write_text(f"{what} {arm}-s{seed}")
    scene.variables["CHAOS_FAULT"] = str(told)
    scene.told.append(f"params/chaos/dvc.yaml:plain-train-{arm}-s{seed}")
    return told


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _mlflow_server(scene: Scene, port: int, place: Path) -> subprocess.Popen:
    """Start an MLflow server that belongs to the trial, and wait until it answers."""
    place.mkdir(exist_ok=True)
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{place}/mlflow.db", "--artifacts-destination", str(place / "files")]
    with open(place / "log", "ab") as log:
        server = subprocess.Popen(
            [sys.executable, *words], cwd=place, env=scene.environment() | {"MLFLOW_TRACKING_URI": ""},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    import urllib.request

    deadline = time.monotonic() + 300
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        if server.poll() is not None or time.monotonic() > deadline:
            raise Hung(f"the MLflow server did not start: {(place / 'log').read_text()[-500:]}")
        time.sleep(0.2)
    import psutil

    scene.spare |= {server.pid, *(child.pid for child in psutil.Process(server.pid).children(recursive=True))}
    return server


def _stop_tree(server: subprocess.Popen) -> None:
    import psutil

    for process in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


@contextlib.contextmanager
def _answering(scene: Scene, seconds: float) -> Iterator[str]:
    """Be a tracking server that answers 500 to everything, after a while."""
    closing = threading.Event()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            closing.wait(seconds)
            with contextlib.suppress(OSError):
                self.send_error(500)

        do_POST = do_PATCH = do_PUT = do_GET

        def log_message(self, *words: object) -> None: ...

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            closing.set()
            server.shutdown()


MEMORY = Path("/sys/fs/cgroup/memory")


def _cgroups() -> Path | None:
    """Return the memory cgroup of this process, where further ones can be made below it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mine = next(line.split(":")[2] for line in lines if line.split(":")[1] == "memory")
    except (OSError, StopIteration):
        return None
    folder = MEMORY / mine.lstrip("/")
    return folder if os.access(folder, os.W_OK) and os.geteuid() == 0 else None


@contextlib.contextmanager
def _memory_limit(scene: Scene, limit: int) -> Iterator[Callable[[int], None]]:
    """Make a group of processes that may hold so many bytes together; what enters it takes its children along."""
    group = (_cgroups() or MEMORY) / f"tessera-{scene.mark}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield lambda pid: (group / "cgroup.procs").write_text(str(pid))
    finally:
        scene.clear()
        deadline = time.monotonic() + 30
        while True:
            try:
                group.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
