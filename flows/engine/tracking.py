"""Tells MLflow what the stages of a flow run did, without ever holding one up.

    log_stage ─queue─> scribe: reads the stage's tables, writes a record to the spool ─queue─> sender: MLflow
                                                                                        └ sent: record is removed

    experiment  <study>, <study>/exploratory, <study>/smoke
    parent run  one per (flow run, paper, variant): mean, interval and n of every metric, verdicts, figures
    child run   one per (arm, seed), for its train and its evaluate stage: parameters, curves, metrics, tags; its name
                holds the paper, so that runs of several papers can stand side by side

The sender is the only thread that opens the tracking database. Where the server is down, slow or wrong, records stay
in the spool, and the next run sends them first, in order and only once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows.engine.mlflow_store import FLOW_TAG, MlflowStore, RecordRefused, RunSpec, TrackingRecord
from flows.engine.redaction import redact
from flows.engine.spool import Spool, SpoolError, files_of, owner_name

POINTS_PER_SERIES = 200
FIRST_RETRY_SECONDS = 15.0
LAST_RETRY_SECONDS = 300.0
PURE_NUMBER = "1"
"""Unit of a metric that has none, as MLflow's tags spell it."""

_TEXT_LIMIT = 2000
_NAME_LIMIT = 250
_FLATTENED_ENTRIES = 30
_TAGGED_ALREADY = {"stage", "ended", "git_commit"}
_MEASURED = ("_seconds", "_bytes", "_megabytes", "_percent")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRecord:
    """One stage that has ended, as the flow knows it.

    Attributes:
        stage: DVC address of the stage.
        kind: "train", "evaluate" or "base".
        study: Study whose experiment it belongs to.
        family: Family of the paper.
        paper: Slug.
        variant: Variant of the paper.
        arm: Arm of the paper.
        seed: Seed.
        profile: "smoke", "small" or "full".
        params: Resolved parameters; nested mappings are flattened with dots.
        run: Its output directory; `metrics.parquet` and `curves.parquet` are read from it if they exist.
        log: Its log directory; `environment.json` is read from it if it exists.
        started: Seconds since the epoch.
        ended: Seconds since the epoch.
        data: Names of the data sets it read.
        hashes: DVC hash of each output by its path.
        code_digest: Digest of the code it ran.
        error: Why it failed; empty when it did not.
        exploratory: Ran with parameters or code that are not committed.
    """

    stage: str
    kind: str
    study: str
    family: str
    paper: str
    variant: str
    arm: str
    seed: int
    profile: str
    params: Mapping[str, Any]
    run: Path
    log: Path
    started: float
    ended: float
    data: Sequence[str] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    code_digest: str = ""
    error: str = ""
    exploratory: bool = False


@dataclass(frozen=True)
class Summary:
    """A metric of an arm over its seeds: mean, ends of its interval (infinite where there is none) and n."""

    arm: str
    metric: str
    at: str
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PaperRecord:
    """One variant of a paper whose stages have all ended.

    Attributes:
        study: Study whose experiment it belongs to.
        family: Family of the paper.
        paper: Slug.
        variant: Variant of the paper.
        profile: "smoke", "small" or "full".
        started: Seconds since the epoch.
        ended: Seconds since the epoch.
        summaries: Every metric of every arm over seeds.
        verdicts: Verdict word by claim id.
        figures: Files to keep with the run.
        hashes: DVC hash of each output of the judge by its path.
        error: Why it did not finish; empty when it did.
        exploratory: Ran with parameters or code that are not committed.
    """

    study: str
    family: str
    paper: str
    variant: str
    profile: str
    started: float
    ended: float
    summaries: Sequence[Summary] = ()
    verdicts: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    exploratory: bool = False


@dataclass(frozen=True)
class TrackingState:
    """What became of the records so far.

    Attributes:
        sent: Records that MLflow holds, those of earlier runs included.
        waiting: Records that wait in the spool for the next run.
        rejected: Records that MLflow refused for good; they are kept in the spool's folder `rejected`.
        lost: Records that could neither be kept on disk nor sent.
        problem: The last thing that went wrong; empty if nothing did.
    """

    sent: int = 0
    waiting: int = 0
    rejected: int = 0
    lost: int = 0
    problem: str = ""


@dataclass
class _Entry:
    """One thing for the sender to do: deliver a record or, with no record, bury a dead owner's spool."""

    spool: Spool | None
    path: Path | None = None
    record: TrackingRecord | None = None


def default_uri(root: Path) -> str:
    """Return the tracking URI of a workspace: MLFLOW_TRACKING_URI, else the database that `mlflow ui` opens there."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve()}/mlflow.db"


class Tracker:
    """Tracks one flow run. None of its methods raises, or waits for MLflow, except `close`, which waits a while.

    Args:
        uri: MLflow tracking URI; None for `default_uri(root)`.
        spool_dir: Folder for records that wait, shared by all runs of the workspace.
        flow_run_id: Id of this flow run.
        git_commit: Commit that the workspace stands on.
        root: Workspace; files that go with runs of a local database are kept in its `mlruns/`.
    """

    def __init__(
        self, uri: str | None, spool_dir: Path, flow_run_id: str, git_commit: str, root: Path | None = None
    ) -> None:
        self._root = Path(root) if root is not None else Path.cwd()
        self._uri = uri or default_uri(self._root)
        self._spool_dir = Path(spool_dir)
        self._flow_run_id = owner_name(flow_run_id)
        self._git_commit = git_commit
        self._spool: Spool | None = None
        self._reports: queue.SimpleQueue[StageRecord | PaperRecord | None] = queue.SimpleQueue()
        self._entries: deque[_Entry] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._state = TrackingState()
        self._threads: list[threading.Thread] = []

    @property
    def state(self) -> TrackingState:
        """What became of the records so far."""
        with self._change:
            return replace(self._state, waiting=sum(entry.path is not None for entry in self._entries))

    def start(self) -> None:
        """Start tracking; what earlier runs left in the spool goes first."""
        try:
            self._spool = Spool(self._spool_dir, self._flow_run_id)
            self._queue_spool(self._spool)
            for spool in self._spool.adopt():
                self._queue_spool(spool)
                self._entries.append(_Entry(spool))
        except (SpoolError, OSError) as error:
            self._note(f"records of this run are kept in memory only: {error}")
        for target in (self._write_records, self._send_records):
            thread = threading.Thread(target=target, name=f"tracking-{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def log_stage(self, record: StageRecord) -> None:
        """Take note of a stage that has ended, and return at once."""
        self._reports.put(record)

    def finish_paper(self, record: PaperRecord) -> None:
        """Take note of a variant of a paper that has ended, and return at once."""
        self._reports.put(record)

    def close(self, timeout: float = 10.0) -> TrackingState:
        """Send what can be sent within `timeout` seconds; the rest waits in the spool for the next run."""
        deadline = time.monotonic() + timeout
        self._reports.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return self.state

    def _queue_spool(self, spool: Spool) -> None:
        self._entries.extend(_Entry(spool, path) for path in spool.pending())

    def _write_records(self) -> None:
        while (report := self._reports.get()) is not None:
            try:
                self._write_record(report)
            except Exception as error:
                self._note(f"{report.paper}: its record could not be made: {type(error).__name__}: {error}", lost=1)
        with self._change:
            self._closing = True
            self._change.notify_all()

    def _write_record(self, report: StageRecord | PaperRecord) -> None:
        record = self._describe(report)
        entry = _Entry(self._spool, record=record)
        if self._spool is not None:
            files = list(report.figures) if isinstance(report, PaperRecord) else []
            try:
                entry = _Entry(self._spool, self._spool.write(record.to_json(), files))
            except SpoolError as error:
                self._note(str(error))
        with self._change:
            self._entries.append(entry)
            self._change.notify_all()

    def _send_records(self) -> None:
        store: MlflowStore | None = None
        while self._wait_for_entry():
            entry = self._entries[0]
            try:
                if store is None:
                    store = MlflowStore(self._uri, self._root / "mlruns")
                self._deliver(store, entry)
            except Exception as error:
                self._note(f"nothing can be sent to {self._uri}: {type(error).__name__}: {error}")
                if self._closing:
                    break
                self._retry_at = time.monotonic() + self._retry_seconds
                self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
            else:
                self._retry_seconds = FIRST_RETRY_SECONDS
                with self._change:
                    self._entries.popleft()
        self._end_runs(store)
        self._release()

    def _wait_for_entry(self) -> bool:
        """Wait until there is something to send and it is time to try; False when there is nothing more to come."""
        with self._change:
            while True:
                pause = self._retry_at - time.monotonic()
                if self._entries and (self._closing or pause <= 0):
                    return True
                if self._closing:
                    return False
                self._change.wait(pause if self._entries else None)

    def _deliver(self, store: MlflowStore, entry: _Entry) -> None:
        if entry.path is None and entry.record is None:
            store.end_unfinished(entry.spool.owner)
            entry.spool.release()
            return
        if entry.path is not None and not entry.path.exists():
            self._note(f"{entry.path} was deleted before it could be sent", lost=1)
            return
        try:
            record, files = entry.record, []
            if entry.path is not None:
                record = _load(entry.path)
                files = sorted(files_of(entry.path).glob("*"))
            store.send(record, files)
        except RecordRefused as error:
            where = entry.spool.reject(entry.path, redact(str(error))) if entry.path is not None else "memory"
            self._note(f"{error} (kept at {where})", rejected=1)
            return
        if entry.path is not None:
            entry.spool.remove(entry.path)
        with self._change:
            self._state = replace(self._state, sent=self._state.sent + 1)

    def _end_runs(self, store: MlflowStore | None) -> None:
        """Leave no run of an interrupted flow running for ever; one whose records still wait is ended after them."""
        if store is None or self._entries:
            return
        try:
            store.end_unfinished(self._flow_run_id)
        except Exception as error:
            self._note(f"runs of this flow may still be shown as running: {type(error).__name__}: {error}")

    def _release(self) -> None:
        """Give the spools back; a dead owner's stays adopted by nobody until its records are sent."""
        spools = {id(entry.spool): entry.spool for entry in self._entries if entry.spool is not None}
        if self._spool is not None:
            spools[id(self._spool)] = self._spool
        for spool in spools.values():
            spool.release()
        lost = sum(entry.record is not None for entry in self._entries)
        if lost:
            self._note("records that the disk refused could not be sent either", lost=lost)

    def _note(self, problem: str, *, rejected: int = 0, lost: int = 0) -> None:
        problem = redact(problem)
        _log.warning("tracking: %s", problem)
        with self._change:
            self._state = replace(
                self._state,
                problem=problem,
                rejected=self._state.rejected + rejected,
                lost=self._state.lost + lost,
            )

    def _describe(self, report: StageRecord | PaperRecord) -> TrackingRecord:
        shared = {
            FLOW_TAG: self._flow_run_id,
            "paper": report.paper,
            "variant": report.variant,
            "profile": report.profile,
            "family": report.family,
            "study": report.study,
            "git_commit": self._git_commit,
            "mlflow.source.git.commit": self._git_commit,
            "mlflow.source.name": "flows/reproduce.py",
            "mlflow.source.type": "LOCAL",
        }
        start = int(report.started * 1000)
        experiment = experiment_name(report.study, report.profile, report.exploratory)
        key = f"{self._flow_run_id}/{experiment}/{report.paper}/{report.variant}"
        name = f"{report.paper} {report.variant}".strip()
        paper = RunSpec(key, name, start, shared)
        describe = _describe_stage if isinstance(report, StageRecord) else _describe_paper
        run, parent, stage, params, metrics, tags = describe(report, paper)
        if report.error:
            tags[f"failure.{stage}"] = report.error
        tags |= {f"dvc.{path}": value for path, value in report.hashes.items()}
        identity = json.dumps([run.key, stage, report.ended])
        return TrackingRecord(
            id=hashlib.sha256(identity.encode()).hexdigest()[:16],
            experiment=experiment,
            parent=parent,
            run=run,
            end=int(report.ended * 1000),
            status="FAILED" if report.error else "FINISHED",
            params={name: _shorten(value) for name, value in params.items()},
            metrics=_legal_names(metrics),
            tags={_legal(name): _shorten(value) for name, value in tags.items()},
        )


def experiment_name(study: str, profile: str, exploratory: bool) -> str:
    """Return the experiment of a run: smoke and exploratory runs stand apart from those that count."""
    if profile == "smoke":
        return f"{study}/smoke"
    return f"{study}/exploratory" if exploratory else study


def metric_name(metric: str, at: str) -> str:
    """Spell a metric and its condition in MLflow's letters: ("psnr", "k=8,split=test") is `psnr.k_8.split_test`."""
    return _legal(_dotted(metric, at))


def thin(steps: Sequence[int], values: Sequence[float], limit: int = POINTS_PER_SERIES) -> list[tuple[int, float]]:
    """Pick at most `limit` evenly spaced points of a series, its first and last among them, with their real steps."""
    count = len(steps)
    if count <= limit:
        kept: Iterable[int] = range(count)
    else:
        kept = [round(index * (count - 1) / (limit - 1)) for index in range(limit)]
    return [(steps[index], values[index]) for index in kept]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested parameters into text: {"a": {"b": 1}} becomes {"a.b": "1"}; lists are written as JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[_legal(name)] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat


_Described = tuple[RunSpec, RunSpec | None, str, dict[str, str], list[tuple[str, float, int]], dict[str, str]]


def _describe_stage(report: StageRecord, paper: RunSpec) -> _Described:
    replicate = f"{report.paper} {report.arm} s{report.seed}"
    run = replace(
        paper,
        key=f"{paper.key}/{report.arm}/s{report.seed}",
        name=replicate,
        tags={**paper.tags, "arm": report.arm, "seed": str(report.seed), "data": ", ".join(report.data)},
    )
    tags = {f"stage.{report.kind}": report.stage, f"code.{report.kind}": report.code_digest}
    environment = _read_json(report.log / "environment.json") if (report.log / "environment.json").exists() else {}
    tags |= _environment_tags(environment, f"environment.{report.kind}")
    measured, units = _stage_metrics(report.run)
    tags |= {f"unit.{metric}": unit or PURE_NUMBER for metric, unit in units.items()}
    metrics = measured + _stage_curves(report.run)
    metrics += [(f"system/{report.kind}.wall_seconds", report.ended - report.started, 0)]
    metrics += [
        (f"system/{report.kind}.{name}", float(value), 0)
        for name, value in environment.items()
        if name.endswith(_MEASURED) and name != "wall_seconds" and isinstance(value, int | float)
    ]
    return run, paper, report.kind, flatten(report.params), metrics, tags


def _describe_paper(report: PaperRecord, paper: RunSpec) -> _Described:
    metrics = []
    for summary in report.summaries:
        name = f"{summary.arm}/{_dotted(summary.metric, summary.at)}"
        ends = {"mean": summary.mean, "low": summary.low, "high": summary.high, "n": summary.n}
        metrics += [(f"{name}.{end}", float(value), 0) for end, value in ends.items() if math.isfinite(value)]
    words = sorted(set(report.verdicts.values()))
    metrics += [(f"verdicts/{word}", float(list(report.verdicts.values()).count(word)), 0) for word in words]
    tags = {f"verdict.{claim}": word for claim, word in report.verdicts.items()}
    return paper, None, "judge", {}, metrics, tags


def _stage_metrics(run: Path) -> tuple[list[tuple[str, float, int]], dict[str, str]]:
    """Return every metric's mean over test items, and the unit of each metric."""
    import polars as pl

    if not (run / "metrics.parquet").exists():
        return [], {}
    table = pl.read_parquet(run / "metrics.parquet", columns=["metric", "at", "value", "unit"])
    means = table.group_by("metric", "at", maintain_order=True).agg(pl.col("value").mean())
    units = dict(table.select("metric", "unit").unique(maintain_order=True).iter_rows())
    return [(_dotted(metric, at), value, 0) for metric, at, value in means.iter_rows()], units


def _stage_curves(run: Path) -> list[tuple[str, float, int]]:
    import polars as pl

    if not (run / "curves.parquet").exists():
        return []
    table = pl.read_parquet(run / "curves.parquet", columns=["series", "step", "value"])
    points = []
    for (series,), part in table.sort("step", maintain_order=True).group_by("series", maintain_order=True):
        chosen = thin(part["step"].to_list(), part["value"].to_list())
        points += [(f"curves/{series}", value, step) for step, value in chosen]
    return points


def _environment_tags(environment: Mapping[str, Any], prefix: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for name, value in environment.items():
        if name.endswith(_MEASURED) or name in _TAGGED_ALREADY:
            continue
        if isinstance(value, Mapping) and len(value) <= _FLATTENED_ENTRIES:
            tags |= flatten(value, f"{prefix}.{name}.")
        else:
            tags |= flatten({f"{prefix}.{name}": json.dumps(value) if isinstance(value, Mapping) else value})
    return tags


def _legal_names(metrics: Iterable[tuple[str, float, int]]) -> list[tuple[str, float, int]]:
    """Make names legal; two metrics that would then share a name keep apart by a digest."""
    owner: dict[str, str] = {}
    legal = []
    for name, value, step in metrics:
        spelled = _legal(name)
        if owner.setdefault(spelled, name) != name:
            spelled = _legal(f"{name}.{hashlib.sha256(name.encode()).hexdigest()[:8]}")
        legal.append((spelled, value, step))
    return legal


def _dotted(metric: str, at: str) -> str:
    return ".".join([metric, *(at.split(",") if at else [])])


def _legal(name: str) -> str:
    # MLflow takes letters, digits and "_-. /", and refuses what a file system would read as another path.
    name = re.sub(r"[^\w\-. /]", "_", name)
    name = "/".join(part.strip() or "_" if part.strip(".") else "_" for part in name.split("/"))
    if len(name) > _NAME_LIMIT:
        name = f"{name[: _NAME_LIMIT - 9]}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


def _shorten(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"


def _load(path: Path) -> TrackingRecord:
    try:
        return TrackingRecord.from_json(_read_json(path))
    except ValueError as error:
        raise RecordRefused(f"{path.name} is not JSON: {error}") from error


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
