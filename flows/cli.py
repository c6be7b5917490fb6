"""The command line: `tessera`.

Every command imports what it needs when it runs, so that the cheap ones (`list`, `show`, `new`, `validate`, `compare`,
`--help`) touch neither torch nor Ray, Prefect, MLflow or DVC.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.errors import TesseraError, did_you_mean
from flows.declarations.workspace import Workspace
from flows.declarations.workspace import find_root as find_root_above

app = typer.Typer(
    help="Living reproductions of the discrete-token literature: run papers, judge their claims, compare them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start with: tessera list, then tessera show tokenization-bias, then tessera reproduce tokenization-bias",
)

Slugs = Annotated[list[str] | None, typer.Argument(metavar="SLUG...", help="Papers, by the names that `list` shows.")]
Variant = Annotated[
    list[str] | None,
    typer.Option("--variant", help="Only this data variant (may be given more than once); default: all of the paper."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="RAY_ADDRESS",
        help="Ray cluster to use (auto, HOST:PORT or ray://HOST:PORT); default: start one here.",
    ),
]
Remote = Annotated[
    str | None,
    typer.Option(
        "--remote",
        envvar="TESSERA_REMOTE",
        help="DVC remote through which nodes that do not share this checkout get inputs and give back outputs.",
    ),
]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Stages at once; default: one per processor.")]


def find_root() -> Path:
    """Return the workspace that the current directory lies in."""
    return find_root_above(Path.cwd())


def _console() -> Console:
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def _workspace() -> Workspace:
    return Workspace.load(find_root())


@app.command("list")
def list_papers(
    family: Annotated[str | None, typer.Option("--family", help="Only papers of this family.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also papers that are not built yet.")] = False,
) -> None:
    """List the papers: which are here, what they run on, and what came out so far."""
    from flows.ledger.results import verdict_counts

    workspace = _workspace()
    catalogue = workspace.catalogue
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("paper", "family", "study", "variants", "verdicts"):
        table.add_column(column, overflow="fold")
    built = 0
    for slug, entry in catalogue.items():
        if family and entry.family != family:
            continue
        if slug in workspace.slugs:
            built += 1
            paper = workspace.paper(slug)
            counts = verdict_counts(workspace.root, paper)
            table.add_row(slug, entry.family, entry.study, ", ".join(paper.variants), counts or "not run yet")
        elif everything:
            table.add_row(slug, entry.family, entry.study, "", "[dim]not built yet[/dim]")
    console = _console()
    console.print(table)
    console.print(f"{built} of {len(catalogue)} papers are built." + ("" if everything else " --all shows the rest."))


@app.command()
def show(slug: Annotated[str, typer.Argument(help="The paper.")]) -> None:
    """Show a paper: its story, claims and where they stand, arms, stages, cost and state."""
    from flows.overview import show as show_paper

    show_paper(find_root(), slug, _console())


@app.command()
def new(
    slug: Annotated[str, typer.Argument(help="Name of the paper's folder, such as one-d-piece.")],
    study: Annotated[
        str | None, typer.Option("--study", help="Experiment form that runs it; default: what the catalogue says.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title; default: the catalogue's.")] = None,
    component: Annotated[
        str | None,
        typer.Option("--component", help="Which component is new: a parameter of the study, such as quantizer."),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="Paper to take data and settings from; default: the study's smallest.")
    ] = None,
) -> None:
    """Start a paper: write its declaration, a component stub and a property test, and say what comes next."""
    from flows.scaffold import start_paper

    draft = start_paper(find_root(), slug, study=study, title=title, component=component, like=like)
    console = _console()
    for path in draft.files:
        console.print(f"wrote {path}", markup=False)
    if draft.like:
        console.print(f"Data and settings are those of {draft.like}; change what is different.", markup=False)
    console.print()
    for number, step in enumerate(draft.next_steps(), 1):
        console.print(f"{number}. {step}", markup=False)


@app.command()
def reproduce(
    slugs: Slugs = None,
    family: Annotated[str | None, typer.Option("--family", help="All built papers of this family.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All built papers.")] = False,
    variant: Variant = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Only variants whose data need neither a mirror nor the network.")
    ] = False,
    profile: Annotated[str, typer.Option("--profile", help="smoke (seconds, no verdict), small, or full.")] = "small",
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Only these seeds, such as 0,1; nothing is judged then.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run although nothing changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    jobs: Jobs = None,
    address: Address = None,
    remote: Remote = None,
) -> None:
    """Run what is stale of the given papers and judge their claims. Safe to stop and to repeat."""
    workspace = _workspace()
    papers = _papers(workspace, slugs, family, everything, or_else=", or --family F, or --all")
    console = _console()
    if profile == "smoke":
        from flows.smoke import smoke_papers

        smoke_papers(workspace.root, papers, console=console, address=address)
        return
    from flows import reproduction

    report = reproduction.reproduce(
        workspace.root,
        reproduction.Selection(
            papers=papers,
            variants=tuple(variant or ()),
            embedded=embedded,
            profile=_profile(profile),
            seeds=_seeds(seeds),
            force=force,
        ),
        console=console,
        jobs=jobs,
        address=address,
        remote=remote,
        dry_run=dry_run,
    )
    if not dry_run:
        _finish(workspace.root, report, console)


def _finish(root: Path, report: Any, console: Console) -> None:
    from flows import reproduction
    from flows.engine.redaction import redact
    from flows.ledger.results import verdict_table

    for note in report.notes:
        console.print(f"[yellow]note:[/yellow] {escape(redact(note))}")
    results = [folder for folder in report.results if (folder / "verdicts.json").is_file()]
    if report.ran and results and not report.stopped:
        from flows.ledger.page import build

        build(root, root / "site")
    if results:
        console.print(verdict_table(results))
    if report.stopped:
        console.print("Stopped. Nothing is lost: run the same command again to go on.")
        raise typer.Exit(130)
    if report.failed:
        console.print(f"[red]{escape(redact(reproduction.failures(report)))}[/red]")
        raise typer.Exit(1)
    if not report.ran:
        console.print(f"All {len(report.outcomes)} stages are up to date ({report.seconds:.1f} s).")
    else:
        console.print(f"Done in {report.seconds / 60:.1f} minutes.")
    page = root / "site" / "index.html"
    if page.is_file():
        console.print(f"ledger: {page.relative_to(root)}  (open it in a browser)")
    if (root / "mlflow.db").is_file():
        console.print('runs:   mlflow.db and mlruns/  (compare them: mlflow ui, "Model training" at the top left)')


def _papers(
    workspace: Any,
    slugs: list[str] | None,
    family: str | None = None,
    everything: bool = False,
    or_else: str = ", or --all",
) -> tuple[str, ...]:
    if everything:
        return tuple(workspace.slugs)
    if family:
        chosen = tuple(slug for slug in workspace.slugs if workspace.paper(slug).family == family)
        if not chosen:
            raise TesseraError(f"No built paper belongs to family {family!r}; `tessera list --all` shows the families.")
        return chosen
    if not slugs:
        raise TesseraError(f"Name at least one paper{or_else}. `tessera list` shows what there is.")
    for slug in slugs:
        workspace.paper(slug)
    return tuple(dict.fromkeys(slugs))


def _profile(name: str) -> str:
    if name not in ("small", "full"):
        raise TesseraError(f"--profile {name!r} is unknown; it is smoke, small or full.")
    return name


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise TesseraError(f"--seeds {text!r}: give whole numbers separated by commas, such as 0,1,2.") from None


@app.command("try")
def try_paper(
    slug: Annotated[str, typer.Argument(help="The paper.")],
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="A changed value: arms.ARM.KEY=VALUE for one arm, or KEY=VALUE for all."),
    ] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Data variant; default: the canonical one.")] = None,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", help="Only this arm (may be repeated); default: the arms that are set.")
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds, such as 0,1; default: the first.")] = None,
    jobs: Jobs = None,
    address: Address = None,
) -> None:
    """Run a paper with other values, to explore: tracked in MLflow apart from the rest, never judged, never in DVC."""
    from flows.exploration import explore

    workspace = _workspace()
    workspace.paper(slug)
    explore(
        workspace.root,
        slug,
        variant=variant,
        values=_assignments(values or []),
        arms=tuple(arms or ()),
        seeds=_seeds(seeds),
        console=_console(),
        jobs=jobs,
        address=address,
    )


def _assignments(texts: list[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise TesseraError(f"--set {text!r}: expected KEY=VALUE, such as arms.no_drop.steps=200.")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise TesseraError(f"--set {text!r}: {value!r} is no value; quote it as YAML would need it.") from None
    return values


@app.command()
def compare(
    slugs: Slugs = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric of the study; default: its first that ranks.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Data variant of every paper; default: the canonical ones.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="Only this condition, such as k=8.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="SVG file to write; default: below site/compare/.")] = None,
) -> None:
    """Put arms of papers of one study side by side: a table, a figure, and the page of MLflow that shows the runs."""
    from flows.compare import compare as put_side_by_side
    from flows.compare import printed, refusals
    from flows.engine.mlflow_page import NoRuns, runs_page
    from flows.engine.tracking import metric_name

    workspace = _workspace()
    papers = _papers(workspace, slugs, or_else="")
    sheet = put_side_by_side(workspace.root, papers, metric=metric, variant=variant, at=at)
    console = _console()
    for block in sheet.blocks:
        console.print(printed(sheet, block))
        for reason in refusals(block):
            console.print(f"no interval: {reason}", markup=False)
        console.print()
    for note in sheet.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    if sheet.others:
        console.print(f"also measured: {', '.join(sheet.others)}  (--metric)", markup=False)

    from flows.compare_figure import draw

    figure = draw(sheet, out or workspace.root / "site" / "compare" / f"{'+'.join(papers)}-{sheet.metric}.svg")
    console.print(f"figure: {_relative(figure, workspace.root)}", markup=False)
    variants = [(source.paper.slug, source.record.variant) for source in sheet.sources]
    try:
        page = runs_page(workspace.root, sheet.study, variants, metric_name(sheet.metric, sheet.blocks[0].at))
    except NoRuns as error:
        console.print(f"runs:   {error}", markup=False)
        return
    console.print(
        f"runs:   {page.runs} in MLflow{f' (start it here: {page.start})' if page.start else ''}", markup=False
    )
    console.print(page.url, markup=False, soft_wrap=True)


@app.command()
def ask(
    base: Annotated[str, typer.Argument(help="A vision-language model of params/bases.yaml, such as vlm-base.")],
    question: Annotated[str, typer.Argument(help="Such as: how many objects are there?")],
    scene: Annotated[int, typer.Option("--scene", help="Number of the scene in the test split, from 0.")],
    picture: Annotated[
        Path | None, typer.Option("--picture", help="PNG file to write; default: below .tessera/ask/.")
    ] = None,
) -> None:
    """Ask a small vision-language model about a scene of the test split; the scene is written as a picture."""
    from flows.asking import ask as ask_model

    root = find_root()
    asked = ask_model(root, base, scene, question, picture)
    console = _console()
    known = f"; right is {asked.known}" if asked.known else ""
    console.print(f"question: {asked.question}", markup=False)
    console.print(f"answer:   {asked.answer}  (probability {asked.probability:.2f}{known})", markup=False)
    console.print(f"caption:  {asked.caption}", markup=False)
    console.print(f"picture:  {_relative(asked.picture.resolve(), root)}", markup=False, soft_wrap=True)


def _relative(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


@app.command()
def verify(
    slugs: Slugs = None,
    everything: Annotated[bool, typer.Option("--all", help="All papers that have results.")] = False,
    variant: Variant = None,
    against: Annotated[
        Path,
        typer.Option("--against", help="Folder of the numbers to compare with; inside the checkout, as committed."),
    ] = Path("results"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be rerun, and how it stood the last time.")
    ] = False,
    jobs: Jobs = None,
) -> None:
    """Rerun papers in clean temporary workspaces, and say which still give their committed numbers and which moved."""
    from flows.verification import counted, plan, summary, targets, verify_papers

    workspace = _workspace()
    chosen = targets(workspace.root, _papers(workspace, slugs, everything=everything), tuple(variant or ()))
    console = _console()
    if dry_run:
        console.print(plan(chosen))
        minutes = sum(target.minutes or 0 for target in chosen)
        console.print(f"{len(chosen)} variants would be rerun; their stages took {minutes:.0f} minutes.")
        return
    folder = _relative(against.resolve(), workspace.root)
    outcomes = verify_papers(workspace.root, chosen, console=console, jobs=jobs, against=folder)
    if len(outcomes) > 1:
        console.print(summary(outcomes))
    console.print(f"{counted(outcomes)}. Noted in results/<paper>/verifications.jsonl; commit it.", markup=False)
    if any(found.state != "confirmed" for _, found in outcomes):
        raise typer.Exit(1)


@app.command()
def why(
    stage: Annotated[str, typer.Argument(help="A stage, such as one-d-piece:cifar10-train-tail_drop-s0.")],
) -> None:
    """Say why a stage would run: which parameter, symbol, data or output changed."""
    from flows.engine.why import why as reasons

    for line in reasons(find_root(), stage):
        _console().print(line, markup=False)


@app.command()
def logs(
    stage: Annotated[str, typer.Argument(help="A stage, such as one-d-piece:cifar10-train-tail_drop-s0.")],
    lines: Annotated[int, typer.Option("--lines", min=1, help="How many of the last lines.")] = 200,
) -> None:
    """Print the end of a stage's log."""
    from flows.engine.why import find_stage
    from flows.stage import log_tail

    root = find_root()
    spec = find_stage(root, stage)
    text = log_tail(root, spec.log, lines)
    if not text and not (root / spec.log / "log.txt").is_file():
        raise TesseraError(f"{stage} has no log yet ({spec.log}/log.txt does not exist): it has not run here.")
    _console().print(text, markup=False)


@app.command()
def rekey(
    slugs: Slugs = None,
    everything: Annotated[bool, typer.Option("--all", help="All built papers.")] = False,
) -> None:
    """Accept results made by older code, where the numeric fingerprint shows that nothing changed."""
    from flows.rekeying import rekey_papers

    workspace = _workspace()
    rekey_papers(workspace.root, _papers(workspace, slugs, everything=everything), console=_console())


@app.command("rebuild-base")
def rebuild_base(
    names: Annotated[list[str], typer.Argument(help="Bases of params/bases.yaml.")], address: Address = None
) -> None:
    """Train shared bases anew, side by side; the papers that use them become stale."""
    from flows.bases import rebuild

    rebuild(find_root(), names, console=_console(), address=address)


@app.command()
def validate() -> None:
    """Check every declaration under params/: names, types, arms, metrics, claims."""
    from flows.scaffold import placeholders

    workspace = _workspace()
    problems = workspace.problems()
    for problem in problems:
        _console().print(str(problem), markup=False)
    if any(not problem.warning for problem in problems):
        raise typer.Exit(2)
    for slug in workspace.slugs:
        for problem in placeholders(workspace.root, slug):
            _console().print(str(problem), markup=False)
    _console().print(
        f"{len(workspace.slugs)} papers, {len(workspace.data)} data sets, {len(workspace.bases)} bases: valid."
    )


@app.command()
def sync(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail when something is out of date.")] = False,
) -> None:
    """Compile params/*/paper.yaml into the dvc.yaml files and write the code digests."""
    from contextlib import nullcontext

    from flows.engine.compile import sync as compile_all
    from flows.engine.digests import write_digests
    from flows.engine.workspace_lock import command_line, workspace_lock

    root = find_root()
    # A run records its stages under the digests it started with; they must not change beneath it.
    with nullcontext() if check else workspace_lock(root / ".tessera" / "lock", command_line()):
        changes = [*compile_all(root, check=check), *write_digests(root, check=check)]
    for change in changes:
        _console().print(str(change), markup=False)
    if check and changes:
        _console().print("Out of date: run `tessera sync` and commit what it writes.")
        raise typer.Exit(1)
    if not changes:
        _console().print("Everything is compiled.")


@app.command()
def track(
    action: Annotated[Literal["migrate"], typer.Argument(help="migrate: move every tracked run to another database.")],
    target: Annotated[str, typer.Argument(help="Empty database, such as postgresql+psycopg2://user@host/mlflow.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Database to read; default: mlflow.db of this workspace.")
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option("--artifacts", help="Where the files of the runs go: a folder, or s3://bucket/folder.")
    ] = None,
    named: Annotated[
        str | None,
        typer.Option("--named", help="What the runs call that place; mlflow-artifacts:/ where the server serves it."),
    ] = None,
) -> None:
    """Move what MLflow has tracked: every row is read back and compared before anything counts; the source stays."""
    from flows.engine.mlflow_migration import migrate

    moved = migrate(source or f"sqlite:///{find_root() / 'mlflow.db'}", target, artifacts=artifacts, named=named)
    console = _console()
    for name, count in sorted(moved.rows.items()):
        console.print(f"{count:>9} {name}", markup=False)
    console.print(f"{sum(moved.rows.values())} rows and {moved.files} files moved, read back and found equal.")
    for note in moved.notes:
        console.print(note, markup=False)


@app.command()
def ledger(
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; default: site/.")] = None,
) -> None:
    """Build the ledger page from results/ and params/."""
    from flows.ledger.page import build

    root = find_root()
    page = build(root, out or root / "site")
    _console().print(f"ledger: {page}")


@app.command()
def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Also run directories whose stages no longer exist.")
    ] = False,
) -> None:
    """Remove what can be made again: checkpoints, partial outputs, the ledger page, Prefect's database."""
    from flows.cleaning import clean_workspace

    for line in clean_workspace(find_root(), orphans=everything):
        _console().print(line, markup=False)


@app.command()
def serve(
    server: Annotated[str, typer.Argument(help="mlflow, prefect or ray (the head of a cluster).")],
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; one that other machines reach needs authentication."),
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", help="Port; default: the server's usual one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how it would be started.")] = False,
) -> None:
    """Start a server that outlives a run; on this machine alone, unless it asks for a password or token."""
    from flows.engine.serving import KINDS, plan
    from flows.engine.serving import serve as start

    if server not in KINDS:
        raise TesseraError(f"{server!r} is no server; expected one of {', '.join(KINDS)}.{did_you_mean(server, KINDS)}")
    root = find_root()
    if dry_run:
        planned = plan(root, server, host, port, environment=os.environ)
        _console().print(" ".join(planned.command), markup=False)
        return
    start(root, server, host, port)


@app.command()
def doctor() -> None:
    """Look at the machine and the workspace, and say what to do about each problem."""
    from flows.engine.doctor import diagnose

    marks = {"ok": "[green]ok[/green]", "warn": "[yellow]warning[/yellow]", "problem": "[red]problem[/red]"}
    table = Table("what", "state", "finding", "what to do", box=None, header_style="bold", pad_edge=False)
    findings = diagnose(find_root())
    for finding in findings:
        table.add_row(finding.name, marks[finding.status], escape(finding.says), escape(finding.fix or ""))
    _console().print(table)
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error of ours is a message and an exit code, never a traceback."""
    os.environ.setdefault("COLUMNS", "120") if not sys.stdout.isatty() else None
    try:
        app()
    except TesseraError as error:
        from flows.engine.redaction import redact

        Console(stderr=True, highlight=False, soft_wrap=True).print(redact(str(error)), markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        import traceback

        from flows.engine.redaction import redact

        # A defect: its traceback is wanted whole, but for what a library put into its message.
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
