"""From "reproduce these papers" to verdicts: what `tessera reproduce` and the Prefect flow both call.

declarations -> compiled stages -> digests -> DVC graph -> execution on Ray -> history, tracking, ledger

Nothing here imports Prefect, Ray, MLflow or DVC at the top: a workspace in which nothing is stale starts none of them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import signal
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from components.errors import TesseraError, did_you_mean
from flows.declarations.paper import Paper
from flows.declarations.problems import DeclarationError
from flows.declarations.stages import StageSpec, base_stage, data_stage, plan_stages
from flows.declarations.workspace import Workspace
from flows.engine.compile import sync
from flows.engine.digests import read_units, write_digests
from flows.engine.dispatch import Call, RayDispatch, Resources
from flows.engine.display import Display
from flows.engine.exchange import AWAY_FUNCTION
from flows.engine.execution import GOOD, Execution, Observer, Outcome, StageFailed, State
from flows.engine.redaction import redact, without_credentials
from flows.engine.settled import Settled
from flows.engine.spool import waits
from flows.engine.supervision import Supervision
from flows.engine.workspace_lock import command_line, workspace_lock
from flows.stage import git_commit, leave_log, log_tail

STATE_FOLDER, SPOOL = ".tessera", "spool"
STAGE_FUNCTION = "flows.stage:run_request"
PREFECT_PATIENCE_SECONDS = 30.0
NO_LOG = "no log: neither its folder nor the system's temporary files can be written"
GIB = 2**30


class NothingToRun(TesseraError):
    """The selection holds no variant that can run here."""


class RunFailed(TesseraError):
    """At least one stage failed; the others are done and recorded."""

    exit_code = 1


@dataclass(frozen=True)
class Selection:
    """What to reproduce.

    Attributes:
        papers: Slugs.
        variants: Only these variants; empty for all of each paper.
        embedded: Only variants whose data need neither mirror nor network.
        profile: "small" or "full".
        seeds: Only these seeds (nothing is judged then); empty for all.
        force: Run although nothing changed.
    """

    papers: tuple[str, ...]
    variants: tuple[str, ...] = ()
    embedded: bool = False
    profile: str = "small"
    seeds: tuple[int, ...] = ()
    force: bool = False


@dataclass
class Report:
    """What a run came to.

    Attributes:
        outcomes: The outcome of every stage considered, by DVC address.
        results: Result folders of the variants selected, in order.
        ran: Whether anything was stale.
        seconds: Wall time.
        notes: Things the user should know (records that wait, a server that did not come up).
    """

    outcomes: Mapping[str, Outcome]
    results: list[Path]
    ran: bool
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        """The stages that failed."""
        return [outcome for outcome in self.outcomes.values() if outcome.state is State.FAILED]

    @property
    def stopped(self) -> bool:
        """Whether the run was stopped before its end."""
        return any(outcome.state is State.STOPPED for outcome in self.outcomes.values())


def check(workspace: Workspace, slugs: Iterable[str]) -> None:
    """Refuse papers whose declarations have errors.

    Raises:
        DeclarationError: Listing all of them.
    """
    errors = [problem for problem in workspace.problems(list(slugs)) if not problem.warning]
    if errors:
        raise DeclarationError(errors)


def choose(workspace: Workspace, selection: Selection) -> list[tuple[Paper, str]]:
    """Return the (paper, variant) pairs of a selection, canonical variants first within a paper.

    Raises:
        NothingToRun: No variant is left, or a variant does not exist.
    """
    chosen: list[tuple[Paper, str]] = []
    known: set[str] = set()
    for slug in selection.papers:
        paper = workspace.paper(slug)
        known.update(paper.variants)
        names = sorted(paper.variants, key=lambda name: (name != paper.canonical, name))
        if selection.variants:
            names = [name for name in names if name in selection.variants]
        if selection.embedded:
            names = [
                name for name in names if all(workspace.data_set(data).embedded for data in paper.variants[name].data)
            ]
        chosen += [(paper, name) for name in names]
    if unknown := set(selection.variants) - known:
        name = sorted(unknown)[0]
        raise NothingToRun(
            f"NothingToRun: {', '.join(selection.papers)}: there is no variant {name!r}.{did_you_mean(name, known)}"
        )
    if not chosen:
        raise NothingToRun(
            f"NothingToRun: {', '.join(selection.papers) or 'the selection'} has no variant on embedded data; leave "
            "--embedded away and set TESSERA_MIRROR, or go online."
        )
    return chosen


def stages_of(chosen: Iterable[tuple[Paper, str]], selection: Selection) -> dict[str, StageSpec]:
    """Return the target stages by DVC address: the judges, or with `seeds` the evaluations of those seeds."""
    targets: dict[str, StageSpec] = {}
    for paper, variant in chosen:
        for spec in plan_stages(paper, variant, selection.profile):
            wanted = (
                spec.kind == "evaluate" and spec.seed in selection.seeds if selection.seeds else spec.kind == "judge"
            )
            if wanted:
                targets[spec.address] = spec
    return targets


def all_specs(workspace: Workspace, papers: Iterable[Paper], profile: str) -> dict[str, StageSpec]:
    """Return every stage of the given papers, and all data and base stages, by DVC address."""
    specs = [data_stage(workspace, name) for name in workspace.data]
    specs += [base_stage(workspace, name) for name in workspace.bases]
    specs += [spec for paper in papers for name in paper.variants for spec in plan_stages(paper, name, profile)]
    return {spec.address: spec for spec in specs}


def stage_call(root: Path, spec: StageSpec, *, under: str = "", set_values: Mapping[str, Any] | None = None) -> Call:
    """Return the call that runs a stage on a worker; `under` and `set_values` are for runs that DVC does not track."""
    arguments = [word for word in spec.arguments if word not in ("--profile", spec.profile)]
    return Call(
        function=STAGE_FUNCTION,
        payload={
            "root": str(root),
            "arguments": arguments,
            "profile": spec.profile,
            "under": under,
            "set": dict(set_values or {}),
        },
        resources=reserved(spec),
    )


def reserved(spec: StageSpec) -> Resources:
    """Return what a stage reserves while it runs."""
    wanted = spec.resources
    return Resources(
        cpus=float(wanted.get("cpus", 1)),
        gpus=float(wanted.get("gpus", 0)),
        memory=int(float(wanted.get("memory", 0)) * GIB),
        custom=wanted.get("custom", {}),
        exclusive=bool(wanted.get("exclusive")),
        workers=int(wanted.get("workers", 1)),
    )


def read_result(root: Path, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stage's result.

    Raises:
        StageFailed: The stage failed; the message carries its log's path and last lines.
    """
    if value["status"] == "done":
        return value
    why = value.get("traceback") or value["message"]
    lines = _log_lines(*leave_log(root, value["log"], why)) if value.get("log") else [_indent(why)]
    raise StageFailed("\n".join([value["message"], *lines]))


def _log_lines(log: str, tail: str) -> list[str]:
    return [f"log: {log}" if log else NO_LOG, _indent(tail)]


def _indent(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines())


@contextmanager
def stopping_on_signals(execution: Execution) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run between stages; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        execution.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def reproduce(
    root: Path,
    selection: Selection,
    *,
    console: Console,
    jobs: int | None = None,
    address: str | None = None,
    remote: str | None = None,
    in_flow: bool = False,
    dry_run: bool = False,
) -> Report:
    """Reproduce a selection of papers.

    Args:
        root: The workspace.
        selection: What to reproduce.
        console: Where progress is shown.
        jobs: Stages at once; default: the cluster's processors.
        address: Ray cluster to use; None starts one.
        remote: DVC remote through which workers get inputs and give back outputs; None where the nodes share this
            workspace.
        in_flow: Whether the caller already is a Prefect flow run, which then shows the stages.
        dry_run: Only say what would run.

    Raises:
        TesseraError: The declarations are wrong, the workspace is busy, or the selection is empty. Failed stages do
            not raise; they stand in the report.
    """
    began = time.monotonic()
    root = root.resolve()
    remote = remote or _remote_of_job(root)
    settled = Settled(root, root / STATE_FOLDER / "settled.json")
    question = json.dumps(dataclasses.asdict(selection), sort_keys=True)
    anew = selection.force or dry_run or waits(root / STATE_FOLDER / SPOOL)
    if not anew and (answer := settled.recall(question)) is not None:
        outcomes = {address: Outcome(address, State.CLEAN) for address in answer["stages"]}
        results = [root / path for path in answer["results"]]
        return Report(outcomes, results, ran=False, seconds=time.monotonic() - began)
    workspace = Workspace.load(root)
    check(workspace, selection.papers)
    chosen = choose(workspace, selection)
    papers = list({paper.slug: paper for paper, _ in chosen}.values())
    targets = stages_of(chosen, selection)
    results = [root / spec.output for spec in targets.values() if spec.kind == "judge"]
    state = root / STATE_FOLDER
    with workspace_lock(state / "lock", command_line()):
        sync(root, profile=selection.profile, papers=[paper.slug for paper in papers])
        write_digests(root)
        from flows.engine.graph import DvcGraph

        graph = DvcGraph(root, remote=remote)
        try:
            with graph.locked():
                if remote is not None and not dry_run:
                    graph.fetch_runs()
                if graph.stale("code"):
                    graph.commit("code")
                specs = all_specs(workspace, papers, selection.profile)
                run = _Run(root, workspace, graph, specs, selection, console, jobs, address, remote, in_flow, chosen)
                outcomes = run.dry(targets) if dry_run else run.go(targets)
                if all(outcome.state in GOOD for outcome in outcomes.values()):
                    answer = {"stages": list(outcomes), "results": [str(path.relative_to(root)) for path in results]}
                    settled.record(question, _roots(specs, outcomes), answer)
        finally:
            graph.close()
    return Report(
        outcomes=outcomes,
        results=results,
        ran=any(outcome.state is not State.CLEAN for outcome in outcomes.values()),
        seconds=time.monotonic() - began,
        notes=run.notes,
    )


def _remote_of_job(root: Path) -> str | None:
    """Return DVC's default remote where the workspace is a submitted Ray job's copy, which vanishes with the job.

    Raises:
        NothingToRun: There is none, so that nothing of the job would be left.
    """
    if "working_dir_files" not in root.parts:
        return None
    from dvc.config import Config

    default = Config(str(root / ".dvc")).get("core", {}).get("remote")
    if not default:
        raise NothingToRun(
            "NothingToRun: this is a Ray job; its working directory vanishes with it, and so would its results. Name a "
            "DVC remote that keeps them: --remote NAME, or `dvc remote default NAME`."
        )
    return default


def _roots(specs: Mapping[str, StageSpec], outcomes: Iterable[str]) -> list[str]:
    """Return everything that decides whether the stages are up to date, relative to the workspace."""
    considered = [specs[address] for address in outcomes if address in specs]
    files = {path for spec in considered for path in (spec.output, *spec.inputs.values())}
    return ["components", "flows", "params", "dvc.yaml", "dvc.lock", *sorted(files)]


@dataclass
class _Run:
    """One execution with everything that watches it."""

    root: Path
    workspace: Workspace
    graph: Any
    specs: dict[str, StageSpec]
    selection: Selection
    console: Console
    jobs: int | None
    address: str | None
    remote: str | None
    in_flow: bool
    chosen: list[tuple[Paper, str]]
    notes: list[str] = field(default_factory=list)
    exchange: Any = None

    def _execution(self, targets: Iterable[str], dispatch: RayDispatch, observers: tuple[Observer, ...]) -> Execution:
        order = {(paper.slug, variant): place for place, (paper, variant) in enumerate(self.chosen)}

        @functools.cache  # it is asked at every turn for every stage that is ready, and reads a file
        def last_seconds(log: str) -> float:
            return _last_seconds(self.root / log)

        def priority(node: Any) -> float:
            # Variants in the order they were asked for, so that the first verdict comes early; inside a variant longest
            # first, by what the last run took.
            spec = self.specs.get(node.address)
            if spec is None:
                return 1e9
            return -1e6 * order.get((spec.paper, spec.variant), -1) + last_seconds(spec.log)

        force = frozenset(address for address in self.graph.select(targets) if self._forced(address))
        return Execution(
            graph=self.graph,
            dispatch=dispatch,
            call=self._call,
            read=self._read,
            explain=self._explain,
            jobs=self.jobs,
            force=force,
            settled=frozenset({"code"}),
            priority=priority,
            observers=observers,
        )

    def _call(self, node: Any) -> Call:
        spec = self._spec(node.address)
        call = stage_call(self.root, spec)
        return call if self.exchange is None else self.exchange.call(call, spec.inputs.values())

    def _read(self, node: Any, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.exchange is not None:
            spec = self._spec(node.address)
            self.exchange.take(value, spec.output, spec.log)
        return read_result(self.root, value)

    def _explain(self, node: Any, message: str) -> str:
        """Add what is missing of: the path of the stage's log, its last lines, the command to try again.

        A stage may fail without a word in its log: its worker died, it could not be recorded, nothing can hold it. The
        log is then the driver's to write.
        """
        spec = self.specs.get(node.address)
        if spec is None:
            return message
        lines = [message]
        if not any(line == NO_LOG or line.startswith("log: ") for line in message.splitlines()):
            lines += _log_lines(*leave_log(self.root, spec.log, redact(message)))
        return "\n".join([*lines, f"retry: {self._command(spec)}"])

    def _command(self, spec: StageSpec) -> str:
        """Return the command that goes on from a stage, for its paper alone, or one that needs its data or base."""
        paper = spec.paper
        if not spec.variant:
            specs = self.specs.values()
            users = (other.paper for other in specs if other.variant and spec.output in other.inputs.values())
            paper = next(users, self.selection.papers[0])
        words = ["tessera", "reproduce", paper]
        options = {
            "--profile": self.selection.profile if self.selection.profile != "small" else None,
            "--address": self.address,
            "--remote": self.remote,
        }
        words += [word for name, value in options.items() if value for word in (name, value)]
        return without_credentials(" ".join(words))

    def _spec(self, address: str) -> StageSpec:
        try:
            return self.specs[address]
        except KeyError:
            raise StageFailed(
                f"{address} stands in dvc.yaml but in no declaration; run `tessera sync` to compile the stages anew."
            ) from None

    def _forced(self, address: str) -> bool:
        spec = self.specs.get(address)
        return self.selection.force and spec is not None and spec.kind in ("train", "evaluate", "judge")

    def _label(self, address: str) -> str:
        spec = self.specs.get(address)
        return address if spec is None or not spec.variant else f"{spec.paper} {spec.name}"

    def dry(self, targets: Iterable[str]) -> dict[str, Outcome]:
        """Say what would run."""
        dispatch = RayDispatch([STAGE_FUNCTION])
        stale, clean = self._execution(targets, dispatch, ()).plan(targets)
        for address in stale:
            self.console.print(f"would run {self._label(address)}", highlight=False)
        return {a: Outcome(a, State.WAITING) for a in stale} | {a: Outcome(a, State.CLEAN) for a in clean}

    def go(self, targets: Iterable[str]) -> dict[str, Outcome]:
        """Run what is stale."""
        from flows.engine.exchange import Exchange
        from flows.engine.orchestration import PrefectMirror

        supervision = Supervision()
        if self.remote is not None:
            self.exchange = Exchange(self.graph, self.remote, git_commit(self.root))
        dispatch = RayDispatch(
            [STAGE_FUNCTION, AWAY_FUNCTION],
            address=self.address,
            preload=["torch", "polars", "pydantic"],
            code=None if self.exchange is None else self.root,
        )
        display = Display(self.console, self._label, self._progress_file)
        mirror = PrefectMirror(
            self.root / STATE_FOLDER / "prefect",
            None if self.in_flow else lambda: _follow_in_prefect(mirror, self._flow_parameters()),
            describe=self._describe,
        )
        watcher = _Watcher(self, supervision, mirror)
        observers = (watcher, display, mirror) if self.exchange is None else (self.exchange, watcher, display, mirror)
        execution = self._execution(targets, dispatch, observers)
        try:
            if self.in_flow:
                follower = _start_follower(mirror)
            with stopping_on_signals(execution):
                outcomes = execution.run(targets)
        finally:
            display.close()
            dispatch.release()
            watcher.finish()
            mirror.close(PREFECT_PATIENCE_SECONDS)
            dispatch.close()
            supervision.close()
        if self.in_flow:
            follower.join(PREFECT_PATIENCE_SECONDS)
        if self.exchange is not None and self.exchange.problems:
            self.notes.append(
                f"The remote was not told of {len(self.exchange.problems)} runs: {self.exchange.problems[0]}"
            )
        if mirror.failure is not None:
            self.notes.append(f"Prefect has no record of this run: {mirror.failure}")
        return outcomes

    def _progress_file(self, address: str) -> Path | None:
        spec = self.specs.get(address)
        return None if spec is None else self.root / spec.log / "progress.json"

    def _describe(self, outcome: Outcome) -> str:
        spec = self.specs.get(outcome.address)
        tail = "" if spec is None else log_tail(self.root, spec.log)
        return "\n".join(part for part in (outcome.message, tail) if part)

    def _flow_parameters(self) -> dict[str, Any]:
        return {
            "papers": list(self.selection.papers),
            "variants": list(self.selection.variants),
            "profile": self.selection.profile,
        }


def _follow_in_prefect(mirror: Any, parameters: Mapping[str, Any]) -> None:
    from prefect import flow

    name = " ".join(parameters["papers"])[:80]

    @flow(name="reproduce", flow_run_name=f"{name} ({parameters['profile']})", validate_parameters=False)
    def reproduce_run(papers: list[str], variants: list[str], profile: str) -> dict[str, str]:
        return mirror.follow()

    reproduce_run(**parameters)


def _start_follower(mirror: Any) -> threading.Thread:
    """Follow the run in a thread that carries the surrounding Prefect flow run's context."""
    import contextvars

    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(mirror.follow), name="prefect", daemon=True)
    thread.start()
    return thread


def stage_record(
    workspace: Workspace, outcome: Outcome, spec: StageSpec, values: Mapping[str, Any] | None = None, **known: Any
) -> Any:
    """Return what MLflow is told of a train or evaluate stage that has ended.

    Args:
        workspace: The workspace.
        outcome: How it ended.
        spec: The stage.
        values: Changed values of an exploration.
        known: Further fields of the record (hashes, code_digest, exploratory).
    """
    from flows.engine.tracking import StageRecord

    paper, ended = workspace.paper(spec.paper), time.time()
    return StageRecord(
        stage=spec.name,
        kind=spec.kind,
        study=paper.study,
        family=paper.family,
        paper=spec.paper,
        variant=spec.variant,
        arm=spec.arm,
        seed=spec.seed,
        profile=spec.profile,
        params=spec.resolve(workspace, values or {}).model_dump(mode="json"),
        run=workspace.root / spec.output,
        log=workspace.root / spec.log,
        started=ended - outcome.seconds,
        ended=ended,
        data=list(paper.variants[spec.variant].data),
        error=outcome.message if outcome.state is State.FAILED else "",
        **known,
    )


class _Watcher(Observer):
    """Starts what a run needs when it turns out that it needs it, and tells history and MLflow about its end."""

    def __init__(self, run: _Run, supervision: Supervision, mirror: Any) -> None:
        self._run = run
        self._supervision = supervision
        self._mirror = mirror
        self._tracker: Any = None
        self._began = time.time()

    def planned(self, stale: list[str], clean: list[str]) -> None:
        root = self._run.root
        spool = root / STATE_FOLDER / SPOOL
        if stale:
            self._supervision.start()
        elif not waits(spool):
            return
        from flows.engine.tracking import Tracker

        self._tracker = Tracker(None, spool, uuid.uuid4().hex, git_commit(root), root)
        self._tracker.start()

    def ended(self, outcome: Outcome) -> None:
        spec = self._run.specs.get(outcome.address)
        if spec is None or outcome.state not in (State.DONE, State.FAILED) or self._tracker is None:
            return
        if spec.kind in ("train", "evaluate"):
            run = self._run
            hashes, digest = run.graph.recorded_hashes(outcome.address), read_units(run.root, spec)[spec.unit]["code"]
            self._tracker.log_stage(stage_record(run.workspace, outcome, spec, hashes=hashes, code_digest=digest))
        elif spec.kind == "judge":
            self._judge_ended(outcome, spec)

    def _judge_ended(self, outcome: Outcome, spec: StageSpec) -> None:
        from flows.engine.tracking import PaperRecord
        from flows.ledger.results import read_summaries

        run = self._run
        paper = run.workspace.paper(spec.paper)
        results = run.root / spec.output
        summaries, verdicts, figures = [], {}, []
        if outcome.state is State.DONE:
            summaries = read_summaries(results)
            verdicts = {claim["id"]: claim["verdict"] for claim in _verdicts(results)["claims"]}
            for claim, verdict in verdicts.items():
                run.console.print(f"      {spec.paper} {spec.variant}: {claim} [bold]{verdict}[/bold]")
            figures = sorted((results / "figures").glob("*.svg")) if (results / "figures").is_dir() else []
            if spec.profile != "smoke":
                from flows.ledger.recording import record

                record(run.workspace, paper, results, date=time.strftime("%Y-%m-%d"))
        self._tracker.finish_paper(
            PaperRecord(
                study=paper.study,
                family=paper.family,
                paper=spec.paper,
                variant=spec.variant,
                profile=spec.profile,
                started=self._began,
                ended=time.time(),
                summaries=summaries,
                verdicts=verdicts,
                figures=figures,
                hashes=run.graph.recorded_hashes(outcome.address),
                error=outcome.message if outcome.state is State.FAILED else "",
            )
        )

    def finish(self) -> None:
        """Flush the records; what cannot be sent waits for the next run."""
        if self._tracker is None:
            return
        state = self._tracker.close(timeout=20.0)
        if state.waiting or state.lost:
            self._run.notes.append(
                f"MLflow has not taken {state.waiting} records yet ({state.problem or 'slow'}); they are kept and sent "
                "at the next run." + (f" {state.lost} were lost." if state.lost else "")
            )


def _verdicts(results: Path) -> dict[str, Any]:
    return json.loads((results / "verdicts.json").read_text(encoding="utf-8"))


def _last_seconds(log: Path) -> float:
    try:
        return float(json.loads((log / "environment.json").read_text(encoding="utf-8"))["wall_seconds"])
    except (OSError, ValueError, KeyError):
        return 60.0


def failures(report: Report) -> str:
    """Return the end of a failed run in words: what failed, where its log is, how to try again."""
    lines = [f"{outcome.address} failed: {outcome.message}" for outcome in report.failed]
    skipped = sum(outcome.state is State.SKIPPED for outcome in report.outcomes.values())
    done = sum(outcome.state in GOOD for outcome in report.outcomes.values())
    lines.append(f"{done} stages are done and kept, {len(report.failed)} failed, {skipped} were skipped.")
    lines.append("Mend the cause and run the same command again: it goes on where this run ended.")
    return "\n".join(lines)
