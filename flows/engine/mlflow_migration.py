"""Moves every tracked run from one MLflow database to another: from the embedded SQLite file to a server's PostgreSQL.

MLflow makes the tables of the new database; every row of every table is copied in one transaction, and the transaction
is committed only when the same number of rows with the same contents can be read back:

    source ── rows ──> target ── read back ──> counts and digests equal? ── yes ──> commit

Files of runs (artifacts) are copied to the new place first, and the places that the rows name are rewritten.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from components.errors import TesseraError

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData, Table

ROWS_AT_ONCE = 2000
SCHEMA_TABLE = "alembic_version"
PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location"))
"""Columns that say where files lie."""


class MigrationRefused(TesseraError):
    """The runs cannot be moved; the target was left as it was."""


@dataclass(frozen=True)
class Migration:
    """What was moved.

    Attributes:
        rows: Number of rows by table, of those that have any.
        files: Number of files copied.
        places: Number of rows whose place of files was rewritten.
        notes: What the user should know.
    """

    rows: Mapping[str, int]
    files: int
    places: int
    notes: tuple[str, ...] = field(default=())


def migrate(source: str, target: str, *, artifacts: str | None = None, named: str | None = None) -> Migration:
    """Copy a tracking database with everything in it.

    Args:
        source: SQLAlchemy URL of the database to read; it is not changed.
        target: URL of an empty database, such as postgresql+psycopg2://user@host/mlflow.
        artifacts: Where the files go: a folder, or a URI that MLflow can write to (s3://bucket/folder). None leaves
            them where they are.
        named: What the rows call that place, where it is another name than `artifacts`: "mlflow-artifacts:/" for a
            server that serves them itself.

    Raises:
        MigrationRefused: The target has runs already, a schema is not this MLflow's, or something read back differs.
    """
    from sqlalchemy import MetaData, select

    if source == target:
        raise MigrationRefused(f"MigrationRefused: source and target are the same database, {_shown(source)}.")
    reading, writing = _engine(source), _engine(target)
    try:
        _check_schema(reading, source)
        _prepare(writing, target)
        old, new = MetaData(), MetaData()
        old.reflect(reading)
        new.reflect(writing)
        if missing := sorted(old.tables.keys() - new.tables.keys()):
            raise MigrationRefused(
                f"MigrationRefused: {_shown(target)} lacks the tables {', '.join(missing)}; it was made by another "
                "version of MLflow. Use an empty database."
            )
        names = [table.name for table in old.sorted_tables if table.name != SCHEMA_TABLE]
        with reading.connect() as here, writing.begin() as there:
            moves, files = _copy_files(here, old, artifacts, named)
            for name in reversed(names):
                there.execute(new.tables[name].delete())
            counts, places = {}, 0
            for name in names:
                table = new.tables[name]
                rows = (_moved(name, row, moves) for row in _rows(here, old.tables[name]))
                expected = _Digest()
                for batch in _batches(expected.watching(rows)):
                    there.execute(table.insert(), [_typed(table, row) for row in batch])
                found = _Digest()
                for _ in found.watching(_rows(there, table, old.tables[name].columns.keys())):
                    pass
                if (found.count, found.total) != (expected.count, expected.total):
                    raise MigrationRefused(
                        f"MigrationRefused: table {name} read back differs ({expected.count} rows were written, "
                        f"{found.count} found, contents {'equal' if found.total == expected.total else 'differ'}). "
                        "Nothing was kept."
                    )
                if expected.count:
                    counts[name] = expected.count
            for name, column in PLACES:
                if moves and name in old.tables:
                    named_places = here.execute(select(old.tables[name].c[column])).scalars()
                    places += sum(_moved_place(place, moves) != place for place in named_places)
            _continue_counting(there, new, names)
    finally:
        reading.dispose()
        writing.dispose()
    stay = counts.get("runs") and not artifacts
    notes = ("Files of runs stay where they are; --artifacts moves them.",) if stay else ()
    return Migration(counts, files, places, notes)


def _engine(url: str) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return create_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise MigrationRefused(f"MigrationRefused: {_shown(url)} is no database URL: {error}") from error
    except ImportError as error:
        raise MigrationRefused(
            f"MigrationRefused: the driver for {_shown(url)} is missing ({error}). For PostgreSQL install the extra "
            "`tessera[postgres]` and write postgresql+psycopg2://..., here and for `mlflow server`."
        ) from error


def _shown(url: str) -> str:
    """Spell a database URL without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return repr(url.partition("://")[0])


def _check_schema(engine: Any, url: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.utils import _verify_schema
    from sqlalchemy.exc import SQLAlchemyError

    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise MigrationRefused(f"MigrationRefused: there is no database {url.removeprefix('sqlite:///')}.")
    try:
        _verify_schema(engine)
    except (MlflowException, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise MigrationRefused(
            f"MigrationRefused: {_shown(url)} is no tracking database of this MLflow: {reason}. An older one is "
            "brought up to date by `mlflow db upgrade URL` (copy it first)."
        ) from error


def _prepare(engine: Any, url: str) -> None:
    """Let MLflow make its tables, and refuse a database in which anything was tracked."""
    from mlflow.store.db.utils import _initialize_tables, _is_empty_database
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if _is_empty_database(engine):
            _initialize_tables(engine)
        _check_schema(engine, url)
        with engine.connect() as connection:
            runs = connection.execute(text("select count(*) from runs")).scalar()
            experiments = connection.execute(text("select count(*) from experiments where experiment_id <> 0")).scalar()
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise MigrationRefused(f"MigrationRefused: {_shown(url)} cannot be used: {reason}") from error
    if runs or experiments:
        raise MigrationRefused(
            f"MigrationRefused: {_shown(url)} holds {runs} runs in {experiments} experiments; expected an empty "
            "database, so that nothing is mixed or overwritten."
        )


def _rows(connection: Connection, table: Table, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    from sqlalchemy import select

    chosen = [table.c[name] for name in (columns or table.columns.keys())]
    found = connection.execute(select(*chosen), execution_options={"stream_results": True})
    for row in found.mappings():
        yield dict(row)


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _typed(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the target's columns want it: SQLite has numbers where PostgreSQL has truth values."""
    from sqlalchemy import Boolean

    return {
        name: bool(value) if value is not None and isinstance(table.c[name].type, Boolean) else value
        for name, value in row.items()
    }


class _Digest:
    """Counts rows and sums a hash of each, so that their order does not matter."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def watching(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass rows on while they are counted."""
        for row in rows:
            text = json.dumps({name: _plain(value) for name, value in row.items()}, sort_keys=True)
            self.count += 1
            self.total = (self.total + int.from_bytes(hashlib.sha256(text.encode()).digest()[:16])) % 2**128
            yield row


def _plain(value: Any) -> Any:
    """Return a value in the one form that it has in every database."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, decimal.Decimal):
        value = float(value)
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value.is_integer() else repr(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    return value


def _continue_counting(connection: Connection, tables: MetaData, names: Iterable[str]) -> None:
    """Let PostgreSQL's counters go on behind the copied numbers; SQLite does so by itself."""
    from sqlalchemy import func, select, text

    if connection.dialect.name != "postgresql":
        return
    for name in names:
        for column in tables.tables[name].primary_key.columns:
            counter = connection.execute(
                text("select pg_get_serial_sequence(:table, :column)"), {"table": name, "column": column.name}
            ).scalar()
            if counter is not None:
                highest = connection.execute(select(func.max(column))).scalar()
                connection.execute(
                    text("select setval(cast(:counter as regclass), :value, :called)"),
                    {"counter": counter, "value": max(highest or 1, 1), "called": bool(highest)},
                )


def _copy_files(
    connection: Connection, tables: MetaData, artifacts: str | None, named: str | None
) -> tuple[dict[str, str], int]:
    """Copy the files of every experiment; return the new name of each old place, and the number of files."""
    if artifacts is None:
        return {}, 0
    import tempfile

    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from sqlalchemy import select

    goal = artifacts if "://" in artifacts else Path(artifacts).resolve().as_uri()
    table, moves, files = tables.tables["experiments"], {}, 0
    for number, place in connection.execute(select(table.c.experiment_id, table.c.artifact_location)):
        folder = _folder(place)
        if folder is None:
            continue
        moves[place] = f"{(named or goal).rstrip('/')}/{number}"
        if not folder.is_dir() or not any(path.is_file() for path in folder.rglob("*")):
            continue
        target = f"{goal.rstrip('/')}/{number}"
        get_artifact_repository(target).log_artifacts(str(folder))
        with tempfile.TemporaryDirectory(prefix="tessera-migrate-") as back:
            got = Path(download_artifacts(artifact_uri=target, dst_path=back))
            sent, found = _contents(folder), _contents(got)
        if sent != found:
            wrong = sorted(name for name in sent if found.get(name) != sent[name])
            raise MigrationRefused(
                f"MigrationRefused: of {len(sent)} files of {place}, {len(wrong)} are not the same at {target}, such "
                f"as {', '.join(wrong[:3])}. No row was written."
            )
        files += len(sent)
    return moves, files


def _folder(place: str | None) -> Path | None:
    """Return the local folder that a place names; None for one that is elsewhere."""
    if not place:
        return None
    parsed = urlparse(place)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(place) if not parsed.scheme else None


def _contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _moved(name: str, row: dict[str, Any], moves: Mapping[str, str]) -> dict[str, Any]:
    for table, column in PLACES:
        if moves and table == name:
            row[column] = _moved_place(row[column], moves)
    return row


def _moved_place(place: str | None, moves: Mapping[str, str]) -> str | None:
    for old, new in moves.items():
        if place is not None and (place == old or place.startswith(f"{old.rstrip('/')}/")):
            return new + place[len(old.rstrip("/")) :]
    return place
