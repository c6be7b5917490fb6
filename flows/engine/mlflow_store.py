"""Turns one tracking record into MLflow runs; the only module that talks to MLflow.

Sending a record twice changes nothing: a run is found by its key, MLflow drops a metric it already holds (same name,
step, value and time), and equal parameters and tags overwrite themselves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import TesseraError

# MLflow's log-batch call takes 1000 entities, of these 100 parameters and 100 tags. One tag stays free for `SENT_TAG`.
ENTITIES_PER_CALL = 999
PARAMETERS_PER_CALL = 100
TAGS_PER_CALL = 99

KEY_TAG = "tessera.key"
FLOW_TAG = "flow_run_id"
SENT_TAG = "tessera.record."

_REFUSED = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}

# Retries are the spool's business, so a call gives up early and once. A value that the user has set stays.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
}


class RecordRefused(TesseraError):
    """The tracking server will never accept this record, however often it is sent."""


@dataclass(frozen=True)
class RunSpec:
    """A run that is made when it does not exist yet.

    Attributes:
        key: What makes it the same run when a record is sent again.
        name: Name to show.
        start: Milliseconds since the epoch.
        tags: Tags it is born with; they contain `flow_run_id`.
    """

    key: str
    name: str
    start: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class TrackingRecord:
    """What one stage, or one finished paper, adds to its run.

    Attributes:
        id: What makes it the same record when it is sent again.
        experiment: Name of the experiment.
        parent: The run above, if any.
        run: The run itself.
        end: Milliseconds since the epoch; also the time of every metric.
        status: FINISHED or FAILED.
        params: Parameters, as text.
        metrics: (name, value, step) of every point.
        tags: Tags, as text.
    """

    id: str
    experiment: str
    parent: RunSpec | None
    run: RunSpec
    end: int
    status: str
    params: Mapping[str, str]
    metrics: Sequence[tuple[str, float, int]]
    tags: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> TrackingRecord:
        """Rebuild a record.

        Raises:
            RecordRefused: It was written by another version of this module, or is damaged.
        """
        try:
            parent = RunSpec(**value["parent"]) if value["parent"] is not None else None
            return cls(**{**value, "parent": parent, "run": RunSpec(**value["run"])})
        except (KeyError, TypeError) as error:
            raise RecordRefused(f"this is no tracking record of this version: {error}") from error


class MlflowStore:
    """A connection to one tracking server or database, used from one thread.

    Opening it creates or checks the database schema; nothing else in a flow run may open the database.

    Args:
        uri: MLflow tracking URI.
        artifacts: Folder for the files of new experiments. Used only where the URI is a database; a server decides
            for itself where it keeps them.
    """

    def __init__(self, uri: str, artifacts: Path) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        for chatty in ("mlflow", "alembic"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=uri)
        self._artifacts = None if uri.startswith(("http://", "https://")) else artifacts
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, str] = {}
        self._tags: dict[str, dict[str, str]] = {}
        # (experiment, flow run) whose runs have been looked up; and those where a call failed while making a run.
        self._known: set[tuple[str, str]] = set()
        self._doubtful: set[tuple[str, str]] = set()

    def send(self, record: TrackingRecord, files: Sequence[Path] = ()) -> None:
        """Log one record; `files` become artifacts of its run.

        Raises:
            RecordRefused: MLflow can be read, and says that the record itself is wrong.
            Exception: Whatever MLflow raises when its server or database cannot be reached.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._send(record, files)
        except MlflowException as error:
            # A run or an experiment that a person deleted meanwhile is not in our books any more.
            self._forget()
            if error.error_code not in _REFUSED:
                raise
            try:
                self._send(record, files)
            except MlflowException as again:
                self._forget()
                if again.error_code not in _REFUSED:
                    raise
                # A wrong address or a proxy refuses everything; only where reading works is the record at fault.
                self._client.search_experiments(max_results=1)
                raise RecordRefused(f"MLflow refuses record {record.id}: {again.message}") from again

    def end_unfinished(self, flow_run_id: str) -> int:
        """Mark the runs KILLED that a dead driver left running, and return how many there were."""
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        unfinished = self._search(experiments, f"attributes.status = 'RUNNING' and tags.{FLOW_TAG} = '{flow_run_id}'")
        for run in unfinished:
            self._client.set_terminated(run.info.run_id, "KILLED")
        return len(unfinished)

    def _send(self, record: TrackingRecord, files: Sequence[Path]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        place = (self._experiment(record.experiment), record.run.tags[FLOW_TAG])
        parent = self._run(place, record.parent) if record.parent else None
        run = self._run(place, record.run, parent)
        sent_tag = SENT_TAG + record.id
        tags_there = self._tags[record.run.key]
        if sent_tag not in tags_there:
            for file in files:
                self._client.log_artifact(run, str(file), "figures")
            self._client.set_terminated(run, record.status, record.end)
            calls = batches(
                [Metric(name, value, record.end, step) for name, value, step in record.metrics],
                [Param(name, value) for name, value in record.params.items()],
                [RunTag(name, value) for name, value in record.tags.items()],
            )
            # MLflow writes the tags of a call last, so this one says that everything has arrived.
            calls[-1][2].append(RunTag(sent_tag, "1"))
            for metrics, params, tags in calls:
                self._client.log_batch(run, metrics, params, tags)
            tags_there[sent_tag] = "1"
        if parent is None and place in self._doubtful:
            self._learn(place)
            self._doubtful.discard(place)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                location = None
                if self._artifacts is not None:
                    location = (self._artifacts / name.replace("/", "-")).resolve().as_uri()
                self._experiments[name] = self._client.create_experiment(name, artifact_location=location)
            else:
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _run(self, place: tuple[str, str], wanted: RunSpec, parent: str | None = None) -> str:
        if place not in self._known:
            self._learn(place)
        if wanted.key not in self._runs:
            tags = {**wanted.tags, KEY_TAG: wanted.key}
            if parent is not None:
                tags["mlflow.parentRunId"] = parent
            try:
                run = self._client.create_run(place[0], wanted.start, tags, wanted.name)
            except Exception:
                # The server may have made the run all the same, or may make it later.
                self._known.discard(place)
                self._doubtful.add(place)
                raise
            self._runs[wanted.key] = run.info.run_id
            self._tags[wanted.key] = {}
        return self._runs[wanted.key]

    def _learn(self, place: tuple[str, str]) -> None:
        """Look up the runs of a flow run in an experiment, and delete a run that exists twice."""
        found = self._search([place[0]], f"tags.{FLOW_TAG} = '{place[1]}'")
        # Of two runs with one key, the one that holds more records stays.
        for run in sorted(found, key=lambda run: -sum(tag.startswith(SENT_TAG) for tag in run.data.tags)):
            key = run.data.tags.get(KEY_TAG)
            if key is None:
                continue
            if self._runs.setdefault(key, run.info.run_id) == run.info.run_id:
                self._tags.setdefault(key, {}).update(run.data.tags)
            else:
                self._client.delete_run(run.info.run_id)
        self._known.add(place)

    def _search(self, experiments: list[str], condition: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while experiments:
            page = self._client.search_runs(
                experiments, condition, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    def _forget(self) -> None:
        self._experiments.clear()
        self._runs.clear()
        self._tags.clear()
        self._known.clear()


def batches(metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> list[tuple[list, list, list]]:
    """Split what is to be logged so that no call exceeds MLflow's limits; there is always at least one call."""
    calls = []
    at = [0, 0, 0]
    while not calls or at != [len(metrics), len(params), len(tags)]:
        some_params = list(params[at[1] : at[1] + PARAMETERS_PER_CALL])
        some_tags = list(tags[at[2] : at[2] + TAGS_PER_CALL])
        some_metrics = list(metrics[at[0] : at[0] + ENTITIES_PER_CALL - len(some_params) - len(some_tags)])
        at = [at[0] + len(some_metrics), at[1] + len(some_params), at[2] + len(some_tags)]
        calls.append((some_metrics, some_params, some_tags))
    return calls
