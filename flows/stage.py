"""One stage: `python -m flows.stage KIND ...`, and the same function for a warm worker.

The command stands in dvc.yaml; Ray calls `run_request`. Both end in `run_stage`, which prepares the temporary output
directory, resets all random state, runs the stage function and renames the result into place:

    resolve declaration -> reset state -> guard writes -> stage function -> check -> rename -> environment.json
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import TesseraError
from components.training.atomic import replace_directory, write_bytes
from flows.declarations.stages import StageSpec, base_stage, data_stage, plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.redaction import redact, scrub
from flows.engine.write_guard import guarded
from flows.studies.context import JudgeContext, StageContext

USAGE = """usage: python -m flows.stage KIND ...
  data NAME                            make the data set NAME
  base NAME                            train the base NAME
  code                                 write the code digests of every paper
  train SLUG VARIANT ARM SEED          train one arm of a paper
  evaluate SLUG VARIANT ARM SEED       evaluate one arm of a paper
  judge SLUG VARIANT                   judge the claims of a paper
Options: --profile small|full (default small)."""

PROGRESS_SECONDS = 0.5
LOG_TAIL_LINES = 30
GIT_COMMIT = "TESSERA_GIT_COMMIT"
"""Variable that names the commit where the workspace is a copy without git: on a worker, in an image, in a Ray job."""


class UnknownStage(TesseraError):
    """The command names no stage of the workspace."""


class NoSharedWorkspace(TesseraError):
    """A worker does not see the workspace of the driver."""


class NothingWritten(TesseraError):
    """A stage function returned without writing anything."""


def main(argv: list[str] | None = None) -> int:
    """Run one stage in this process; errors go to standard error and into the stage's log."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    profile = "small"
    if "--profile" in arguments:
        at = arguments.index("--profile")
        profile = arguments[at + 1] if at + 1 < len(arguments) else ""
        del arguments[at : at + 2]
    counts = {"data": 1, "base": 1, "code": 0, "train": 4, "evaluate": 4, "judge": 2}
    if not arguments or counts.get(arguments[0]) != len(arguments) - 1 or profile not in ("small", "full"):
        print(USAGE, file=sys.stderr)
        return 2
    result = run_request({"root": str(Path.cwd()), "arguments": arguments, "profile": profile})
    if result["status"] != "done":
        print(result["message"], file=sys.stderr)
        return result["exit_code"]
    return 0


def run_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the stage a request names; never raises, so that a worker stays warm and nothing is pickled.

    Args:
        request: {"root": repository root, "arguments": what stands behind `python -m flows.stage`, "profile": name,
            and for runs that DVC does not track "under": folder for everything the stage reads and writes,
            "set": {"arms.X.key": value}}.

    Returns:
        {"status": "done", "seconds": s} or {"status": "failed", "message": text, "exit_code": n, "log": path}.
    """
    root = Path(request["root"]).resolve()
    log = ""
    try:
        if not root.is_dir():
            raise NoSharedWorkspace(
                f"NoSharedWorkspace: node {platform.node()} has no {root}. Put the checkout on a file system that all "
                "nodes share, or name a DVC remote through which they get inputs and give back outputs (--remote)."
            )
        spec = find_stage(root, list(request["arguments"]), request.get("profile", "small"), request.get("under", ""))
        log = spec.log
        return run_stage(root, spec, set_values=request.get("set") or {})
    except TesseraError as error:
        return _failed(error, str(error), error.exit_code, log)
    except BaseException as error:
        # A damaged Parquet file can make Polars panic, which is no Exception in Python; a worker must survive it.
        if not (isinstance(error, Exception) or _is_damage(error)):
            raise
        return _failed(error, _in_words(error), 1, log)


def _is_damage(error: BaseException) -> bool:
    """Tell whether Polars could not read or use a table."""
    return type(error).__module__ in ("polars.exceptions", "pyo3_runtime")


def _in_words(error: BaseException) -> str:
    words = f"{type(error).__name__}: {error}"
    if not _is_damage(error):
        return words
    return (
        f"{words}. A table that the stage reads is damaged, or is not what it expects: compare it with what DVC keeps "
        "(`dvc status`, `dvc checkout --force`), or run the stage that writes it again."
    )


def _failed(error: BaseException, message: str, exit_code: int, log: str) -> dict[str, Any]:
    return {
        "status": "failed",
        "message": redact(message),
        "exit_code": exit_code,
        "log": log,
        "traceback": redact("".join(traceback.format_exception(error))),
    }


def find_stage(root: Path, arguments: list[str], profile: str, under: str = "") -> StageSpec:
    """Return the stage that a command line names; see `plan_stages` for `under`.

    Raises:
        UnknownStage: There is no such stage.
    """
    workspace = Workspace.load(root)
    kind, names = arguments[0], arguments[1:]
    if kind == "data":
        return data_stage(workspace, names[0])
    if kind == "base":
        return base_stage(workspace, names[0])
    if kind == "code":
        return StageSpec.code()
    paper = workspace.paper(names[0])
    for spec in plan_stages(paper, names[1], profile, under):
        if spec.kind == kind and (kind == "judge" or (spec.arm, str(spec.seed)) == (names[2], names[3])):
            return smoke_inputs(spec, under) if profile == "smoke" else spec
    raise UnknownStage(
        f"UnknownStage: {' '.join(arguments)} (profile {profile}) is not a stage of params/{names[0]}/paper.yaml. "
        f"`tessera show {names[0]}` lists its variants, arms and seeds."
    )


def smoke_inputs(spec: StageSpec, under: str) -> StageSpec:
    """Let a smoke stage read the generated stand-ins of data and bases below `under`."""
    inputs = {
        name: f"{under}/{path}" if name.startswith(("data/", "bases/")) else path for name, path in spec.inputs.items()
    }
    return dataclasses.replace(spec, inputs=inputs)


def run_stage(root: Path, spec: StageSpec, *, set_values: Mapping[str, Any]) -> dict[str, Any]:
    """Run one stage: see the module's docstring.

    Raises:
        NothingWritten: The stage function wrote no file.
        TesseraError: Whatever the stage function raises.
    """
    from flows.engine.digests import write_digests

    if spec.kind == "code":
        write_digests(root)
        return {"status": "done", "seconds": 0.0}
    output, log = root / spec.output, root / spec.log
    log.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.parent / f".{output.name}.{os.getpid()}.writing"
    for leftover in output.parent.glob(f".{output.name}.*.writing"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    checkpoint = _checkpoint_directory(root, spec, set_values)
    began, cpu = time.monotonic(), time.process_time()
    _reset_peak_memory()
    try:
        with _logged(log / "log.txt"), guarded(root, [temporary, log, checkpoint], spec.name):
            _function(root, spec, temporary, log, checkpoint, set_values)()
        if not any(path.is_file() for path in temporary.rglob("*")):
            raise NothingWritten(
                f"NothingWritten: stage {spec.name} returned without writing a file into stage.output "
                f"({spec.output}). A stage function must write its results there."
            )
        replace_directory(temporary, output)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # The disk may be full, which is no reason to hide what went wrong: the driver sees to the log then.
        with contextlib.suppress(OSError), open(log / "log.txt", "a", encoding="utf-8") as text:
            traceback.print_exception(error, file=text)
        raise
    finally:
        with contextlib.suppress(OSError):
            scrub(log / "log.txt")
        (log / "progress.json").unlink(missing_ok=True)
    seconds = time.monotonic() - began
    _write_environment(root, log, spec, seconds, time.process_time() - cpu)
    shutil.rmtree(checkpoint, ignore_errors=True)
    return {"status": "done", "seconds": seconds}


def _function(
    root: Path, spec: StageSpec, output: Path, log: Path, checkpoint: Path, set_values: Mapping[str, Any]
) -> Callable[[], None]:
    """Bind the stage's function to its context."""
    workspace = Workspace.load(root)
    inputs = {name: root / path for name, path in spec.inputs.items()}
    if spec.kind == "data":
        from components.data.registry import materialise

        declaration = workspace.data_set(spec.paper)

        def fetch() -> None:
            provenance = materialise(spec.paper, declaration, output, mirror=_mirror())
            source = json.dumps({"source": provenance.source, "edition": provenance.edition}, indent=1)
            (log / "provenance.json").write_text(source, encoding="utf-8")

        return fetch
    if spec.kind == "judge":
        return _judge(workspace, spec, inputs, output)
    entry = importlib.import_module(spec.module)
    from components.training.determinism import reset

    reset(spec.seed)
    context = StageContext(
        kind=spec.kind,
        paper=spec.paper,
        variant=spec.variant,
        arm=spec.arm,
        seed=spec.seed,
        profile=spec.profile,
        params=spec.resolve(workspace, set_values),
        inputs=inputs,
        output=output,
        log=log,
        checkpoint=checkpoint,
        device="cuda" if spec.resources.get("gpus") else "cpu",
        progress=_Progress(log / "progress.json"),
    )
    function = getattr(entry, "train" if spec.kind == "base" else spec.kind)
    return lambda: function(context)


def _judge(workspace: Workspace, spec: StageSpec, inputs: Mapping[str, Path], output: Path) -> Callable[[], None]:
    from flows.ledger.judge import judge

    def by_arm(kind: str) -> dict[tuple[str, int], Path]:
        runs = {}
        for name, path in inputs.items():
            if name.startswith(f"{kind}/"):
                _, arm, seed = name.split("/")
                runs[(arm, int(seed.removeprefix("s")))] = path
        return runs

    context = JudgeContext(
        paper=workspace.paper(spec.paper),
        variant=spec.variant,
        profile=spec.profile,
        evaluations=by_arm("evaluate"),
        trainings=by_arm("train"),
        output=output,
    )
    derive = None
    if spec.module is not None:
        derive = importlib.import_module(spec.module).derive
    provenance = {"git_commit": git_commit(workspace.root), "machine": machine()}
    return lambda: judge(context, derive=derive, provenance=provenance)


def _mirror() -> Path | None:
    mirror = os.environ.get("TESSERA_MIRROR")
    return Path(mirror) if mirror else None


class _Progress:
    """Writes how far a stage is into a small file that the driver shows; at most twice a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = 0.0

    def __call__(self, done: int, total: int, **values: float) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_SECONDS:
            return
        self._last = now
        state = {"done": int(done), "total": int(total), **{key: float(value) for key, value in values.items()}}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(state), encoding="utf-8")
        os.replace(partial, self._path)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Send everything the stage prints, from Python or native code, to its log as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "w", encoding="utf-8", buffering=1) as text:
        kept = os.dup(1), os.dup(2)
        handler = logging.StreamHandler(text)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
        os.dup2(text.fileno(), 1)
        os.dup2(text.fileno(), 2)
        try:
            # Python's own streams may be somebody's stand-ins (Ray's, a test's) that do not end in descriptors 1 and 2.
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                yield
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            logging.getLogger().removeHandler(handler)


def _checkpoint_directory(root: Path, spec: StageSpec, set_values: Mapping[str, Any]) -> Path:
    """Return the stage's checkpoint directory, emptied when it was made from other inputs, parameters or code."""
    directory = (root / spec.output).parent / f"{Path(spec.output).name}-checkpoint"
    signature = _signature(root, spec, set_values)
    mark = directory / "signature"
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == signature):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        write_bytes(mark, signature.encode())
    return directory


def _signature(root: Path, spec: StageSpec, set_values: Mapping[str, Any]) -> str:
    from flows.engine.digests import read_units

    parts: dict[str, Any] = {"set": dict(set_values), "seed": spec.seed}
    if spec.kind in ("train", "evaluate", "base"):
        parts["code"] = read_units(root, spec).get(spec.unit, {}).get("code", "")
        parts["params"] = spec.resolve(Workspace.load(root), set_values).model_dump(mode="json")
    for name, path in spec.inputs.items():
        files = sorted(p for p in (root / path).rglob("*") if p.is_file()) if (root / path).is_dir() else []
        parts[name] = [[str(p.relative_to(root / path)), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _reset_peak_memory() -> None:
    # A warm worker keeps its high-water mark from earlier stages; Linux resets it on request.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory() -> int:
    """Return the peak resident memory in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def git_commit(root: Path) -> str:
    """Return the commit of the workspace, with "+changes" when tracked files differ from it, or "" outside git."""
    if known := os.environ.get(GIT_COMMIT):
        return known
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()
        changed = subprocess.run(
            [
                "git",
                "status",
                "--porcelain",
                "--untracked-files=no",
                "--",
                "components",
                "flows",
                "params/*/paper.yaml",
            ],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+changes" if changed else "")


def machine() -> dict[str, Any]:
    """Return what the numbers of a run may depend on: processor, instruction set, threads, library versions."""
    from components.training.determinism import machine_class

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **machine_class(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _write_environment(root: Path, log: Path, spec: StageSpec, seconds: float, cpu_seconds: float) -> None:
    packages = ("torch", "numpy", "polars", "ray", "dvc", "prefect", "mlflow", "tokenizers", "torchmetrics")
    environment = {
        "stage": spec.name,
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(root),
        "wall_seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "peak_memory_bytes": _peak_memory(),
        "load_average": os.getloadavg()[0],
        "machine": machine(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }
    write_bytes(log / "environment.json", json.dumps(environment, indent=1, sort_keys=True).encode())


def leave_log(root: Path, log: str, text: str) -> tuple[str, str]:
    """See that a failed stage's log ends with why it failed.

    Where the log cannot be written, because the disk is full or read-only, it is written anew among the system's
    temporary files.

    Args:
        root: Repository root.
        log: Log folder of the stage, relative to the root.
        text: Why it failed.

    Returns:
        Path of the log, relative to the root unless it lies elsewhere and empty if no place took it; its last lines.
    """
    tail = log_tail(root, log)
    if text.strip().rpartition("\n")[2] in tail:
        return f"{log}/log.txt", tail
    text = f"{text.rstrip()}\n"
    try:
        (root / log).mkdir(parents=True, exist_ok=True)
        with open(root / log / "log.txt", "a", encoding="utf-8") as file:
            file.write(text)
        return f"{log}/log.txt", log_tail(root, log)
    except OSError:
        whole = f"{tail}\n{text}".lstrip()
    try:
        elsewhere = Path(tempfile.mkdtemp(prefix="tessera-log-")) / "log.txt"
        elsewhere.write_text(whole, encoding="utf-8")
        return str(elsewhere), _last_lines(whole)
    except OSError:
        return "", _last_lines(whole)


def log_tail(root: Path, log: str, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines of a stage's log, or an empty string."""
    path = root / log / "log.txt"
    if not path.is_file():
        return ""
    return _last_lines(path.read_text(encoding="utf-8", errors="replace"), lines)


def _last_lines(text: str, lines: int = LOG_TAIL_LINES) -> str:
    return "\n".join(text.splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main())
