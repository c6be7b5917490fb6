"""The address of MLflow's page that shows exactly the runs of some papers; found without importing MLflow.

A tracking server is asked through its REST interface. Where runs are kept in the workspace's own `mlflow.db`, the
experiment and the runs are read from it, and the address is the one that `mlflow ui` serves.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TesseraError
from flows.engine.redaction import without_credentials
from flows.engine.tracking import default_uri

LOCAL_PAGE = "http://127.0.0.1:5000"
"""Where `mlflow ui` shows the database of the folder that it is started in."""

TIMEOUT_SECONDS = 5.0
_PAGE = 1000  # runs a server returns at once


class NoRuns(TesseraError):
    """MLflow cannot be asked, or has no runs of these papers."""


@dataclass(frozen=True)
class RunsPage:
    """A page of MLflow with its filter.

    Attributes:
        url: Address to open in a browser.
        filter: The filter, as MLflow spells it.
        runs: Number of runs that it shows.
        start: Command that serves the page; "" where a server runs already.
    """

    url: str
    filter: str
    runs: int
    start: str


@dataclass(frozen=True)
class _Run:
    id: str
    started: int
    tags: dict[str, str]


def runs_page(root: Path, study: str, variants: Sequence[tuple[str, str]], metric: str) -> RunsPage:
    """Return the page that shows the runs of papers, sorted by a metric.

    One variant of one paper is filtered by its tags. MLflow's filters know no "or" for tags, so several are filtered
    by the ids of their newest runs.

    Args:
        root: The workspace.
        study: Study of the papers; its experiment has this name.
        variants: (slug, variant) of each paper.
        metric: Metric as MLflow spells it (see `tracking.metric_name`).

    Raises:
        NoRuns: The server does not answer, or there are no finished runs.
    """
    uri = default_uri(root)
    if uri.startswith(("http://", "https://")):
        store: _Server | _Database = _Server(uri.rstrip("/"))
    elif uri.startswith("sqlite:///"):
        store = _Database(Path(uri.removeprefix("sqlite:///")))
    else:
        scheme = uri.partition(":")[0]
        raise NoRuns(
            f"MLFLOW_TRACKING_URI is a {scheme} address; set it to the http(s) address of the server that shows it."
        )
    experiment = store.experiment(study)
    found = [list(store.runs(experiment, *pair)) for pair in variants]
    missing = [f"{slug} ({variant})" for (slug, variant), runs in zip(variants, found, strict=True) if not runs]
    if missing:
        raise NoRuns(f"MLflow has no finished runs of {', '.join(missing)}; `tessera reproduce` records them.")
    if len(variants) == 1:
        (runs,), wanted = found, _filter(*variants[0])
    else:
        runs = [run for of_paper in found for run in _newest(of_paper)]
        wanted = f"attributes.run_id IN ({', '.join(_quoted(run.id) for run in runs)})"
    query = {
        "searchFilter": wanted,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    address = (
        f"{store.page}/#/experiments/{experiment}/runs?{urllib.parse.urlencode(query, quote_via=urllib.parse.quote)}"
    )
    return RunsPage(address, wanted, len(runs), store.start)


def _filter(slug: str, variant: str) -> str:
    """Spell the filter for the arms of one variant, without the parent run above them."""
    return (
        f"tags.paper = {_quoted(slug)} AND tags.variant = {_quoted(variant)} AND tags.profile = 'small' "
        "AND tags.arm != '' AND attributes.status = 'FINISHED'"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _newest(runs: Iterable[_Run]) -> list[_Run]:
    """Return the newest run of every arm and seed."""
    newest: dict[tuple[str, str], _Run] = {}
    for run in runs:
        key = (run.tags["arm"], run.tags["seed"])
        if key not in newest or run.started > newest[key].started:
            newest[key] = run
    return list(newest.values())


class _Server:
    """A tracking server, through its REST interface."""

    start = ""

    def __init__(self, uri: str) -> None:
        # An address may hold a user and password; what is printed, and what urllib connects to, must not.
        self.page = without_credentials(uri)
        self._user = urllib.parse.urlsplit(uri)

    def experiment(self, name: str) -> str:
        query = urllib.parse.urlencode({"experiment_name": name})
        return self._call(f"experiments/get-by-name?{query}")["experiment"]["experiment_id"]

    def runs(self, experiment: str, slug: str, variant: str) -> Iterator[_Run]:
        request = {"experiment_ids": [experiment], "filter": _filter(slug, variant), "max_results": _PAGE}
        while True:
            answer = self._call("runs/search", request)
            for run in answer.get("runs", []):
                tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
                yield _Run(run["info"]["run_id"], int(run["info"]["start_time"]), tags)
            if not answer.get("next_page_token"):
                return
            request["page_token"] = answer["next_page_token"]

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", **_authorisation(self._user)}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.page}/api/2.0/mlflow/{path}", content, headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404 and path.startswith("experiments/"):
                raise NoRuns(
                    f"MLflow at {self.page} has no runs of this study yet; `tessera reproduce` records them."
                ) from None
            raise NoRuns(f"MLflow at {self.page} refuses to answer ({error.code} {error.reason}).") from None
        except (OSError, ValueError) as error:
            raise NoRuns(f"MLflow at {self.page} does not answer: {getattr(error, 'reason', error)}.") from None


def _authorisation(address: urllib.parse.SplitResult) -> dict[str, str]:
    """Return the header that MLflow's own client would send, from the same variables or from the address."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    name, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if not name and address.username:
        name, password = urllib.parse.unquote(address.username), urllib.parse.unquote(address.password or "")
    if name:
        return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}
    return {}


class _Database:
    """The database file of a workspace, read only."""

    page = LOCAL_PAGE
    start = "mlflow ui"

    def __init__(self, path: Path) -> None:
        self._path = path

    def experiment(self, name: str) -> str:
        rows = self._query("SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage = 'active'", name)
        if not rows:
            raise NoRuns(f"{self._path.name} has no runs of this study yet; `tessera reproduce` records them.")
        return str(rows[0][0])

    def runs(self, experiment: str, slug: str, variant: str) -> Iterator[_Run]:
        rows = self._query(
            "SELECT runs.run_uuid, runs.start_time, tags.key, tags.value FROM runs JOIN tags USING (run_uuid) "
            "WHERE runs.experiment_id = ? AND runs.lifecycle_stage = 'active' AND runs.status = 'FINISHED' "
            "AND tags.key IN ('paper', 'variant', 'profile', 'arm', 'seed')",
            int(experiment),
        )
        tags: dict[tuple[str, int], dict[str, str]] = {}
        for run, started, key, value in rows:
            tags.setdefault((run, started), {})[key] = value
        wanted = {"paper": slug, "variant": variant, "profile": "small"}
        for (run, started), of_run in tags.items():
            if of_run.get("arm") and wanted.items() <= of_run.items():
                yield _Run(run, started, of_run)

    def _query(self, statement: str, *values: object) -> list[tuple]:
        if not self._path.is_file():
            raise NoRuns("There is no mlflow.db here yet; `tessera reproduce` writes it.")
        try:
            with closing(
                sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_SECONDS)
            ) as database:
                return database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise NoRuns(f"{self._path.name} cannot be read: {error}.") from None
