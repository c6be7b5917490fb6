"""What test items have in common across papers, small enough for git: `results/<slug>/item-groups.parquet`.

A judged variant keeps means over test items; the items themselves stay in `runs/`, which git does not hold. Two papers
that were tested on the same items can only be compared sharply when what the items explain is taken out, and for that
the items themselves are not needed: with `x_i` the value of item i of n and `l_i = (x_i - mean) / sqrt(n (n - 1))`, the
covariance of two means is `sum_i l_i r_i`. Where items fall into G groups by a hash of their names,

    G / (G - 1)  sum_g (sum_{i in g} l_i) (sum_{i in g} r_i)

has the same expectation, with G - 1 degrees of freedom. So G sums for each run, metric and condition are kept (up to G
items: the items' own values), for the metrics that a leaderboard ranks by.

Source: the replication method of sampling theory, Wolter 2007, Introduction to variance estimation, chapter 2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from components.metrics.tables import METRIC_SCHEMA, write_parquet
from flows.declarations.paper import Paper
from flows.declarations.stages import plan_stages
from flows.ledger.statistics import Replicates

FILE = "item-groups.parquet"
GROUPS = 64
SCHEMA = {
    "profile": pl.String,
    "variant": pl.String,
    "arm": pl.String,
    "seed": pl.Int64,
    "metric": pl.String,
    "at": pl.String,
    "mean": pl.Float64,
    "items": pl.Int64,
    "groups": pl.List(pl.String),
    "sums": pl.List(pl.Float32),
}


def write(root: Path, paper: Paper, variant: str, profile: str, metrics: Collection[str]) -> bool:
    """Keep the group sums of one judged variant.

    Args:
        root: Workspace root.
        paper: The declaration.
        variant: Variant that was judged; its evaluations lie in `runs/`.
        profile: "small" or "full".
        metrics: Metrics to keep.

    Returns:
        Whether the file changed. Where not every evaluation is there, what is kept stays.
    """
    stages = [stage for stage in plan_stages(paper, variant, profile) if stage.kind == "evaluate"]
    files = [(stage.arm, stage.seed, root / stage.output / "metrics.parquet") for stage in stages]
    if not all(file.is_file() for _, _, file in files):
        return False
    rows = [
        {"profile": profile, "variant": variant, "arm": arm, "seed": seed, **row}
        for arm, seed, file in files
        for row in _rows(pl.read_parquet(file, columns=list(METRIC_SCHEMA)), metrics)
    ]
    path = root / "results" / paper.slug / FILE
    before = pl.read_parquet(path) if path.is_file() else pl.DataFrame(schema=SCHEMA)
    others = before.filter((pl.col("variant") != variant) | (pl.col("profile") != profile))
    after = pl.concat([others, pl.DataFrame(rows, schema=SCHEMA)]).sort("profile", "variant", maintain_order=True)
    if after.equals(before):
        return False
    if after.is_empty():
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(after, path)
    return True


def read(root: Path, slug: str) -> pl.DataFrame:
    """Return the group sums of a paper; an empty frame where none are kept."""
    path = root / "results" / slug / FILE
    return pl.read_parquet(path) if path.is_file() else pl.DataFrame(schema=SCHEMA)


KEYS = ("profile", "variant", "arm", "metric", "at")
"""Columns that name one quantity; `partition_by(*KEYS, as_dict=True)` gives the rows of each."""


def paired(
    frame: pl.DataFrame, recorded: Replicates, profile: str, variant: str, arm: str, metric: str, at: str
) -> Replicates:
    """Return a recorded quantity with what its test items explain, so that items pair too.

    Args:
        frame: What `read` returned for the paper.
        recorded: The quantity as its results hold it.
        profile: Scale it was run at.
        variant: Variant of the paper.
        arm: Arm of the paper.
        metric: Metric.
        at: Condition as it is spelled in results.

    Returns:
        The same values; where group sums of exactly these runs are kept, with their items, else `recorded` itself.
    """
    wanted = zip(KEYS, (profile, variant, arm, metric, at), strict=True)
    return paired_rows(frame.filter(pl.all_horizontal(pl.col(key) == value for key, value in wanted)), recorded)


def paired_rows(rows: pl.DataFrame | None, recorded: Replicates) -> Replicates:
    """Return a recorded quantity with what its test items explain, so that items pair too.

    Args:
        rows: The kept rows of this quantity; None where none are kept.
        recorded: The quantity as its results hold it.

    Returns:
        The same values; where group sums of exactly these runs are kept, with their items, else `recorded` itself.
    """
    if rows is None:
        return recorded
    rows = rows.sort("seed")
    # Other runs than the results' would have other means; sums of theirs must not be mixed in.
    if tuple(rows["seed"]) != recorded.seeds or not np.allclose(rows["mean"].to_numpy(), recorded.values, rtol=1e-9):
        return recorded
    column = {name: index for index, name in enumerate(dict.fromkeys(n for names in rows["groups"] for n in names))}
    influence = np.zeros((len(rows), len(column)))
    for index, row in enumerate(rows.iter_rows(named=True)):
        influence[index, [column[name] for name in row["groups"]]] = row["sums"]
    samples = min(recorded.samples, max(len(column), 2))
    return Replicates(recorded.seeds, recorded.values, influence, tuple(column), samples, recorded.constant)


def _rows(frame: pl.DataFrame, metrics: Collection[str]) -> Iterator[dict[str, object]]:
    chosen = frame.filter(pl.col("metric").is_in(list(metrics)) & pl.col("sample").is_not_null())
    for (metric, at), items in chosen.group_by(["metric", "at"], maintain_order=True):
        values, names = items["value"].to_numpy(), items["sample"].to_list()
        count = len(values)
        if count < 2:
            continue
        influence = (values - values.mean()) / math.sqrt(count * (count - 1))
        groups, sums = _summed(names, influence)
        row = {"metric": metric, "at": at, "mean": float(values.mean()), "items": count}
        yield {**row, "groups": groups, "sums": sums.astype(np.float32).tolist()}


def _summed(names: list[str], influence: np.ndarray) -> tuple[list[str], np.ndarray]:
    if len(names) <= GROUPS:
        return [f"item {name}" for name in names], influence
    member = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    groups = np.array([int.from_bytes(digest, "little") % GROUPS for digest in member])
    sums = np.bincount(groups, weights=influence, minlength=GROUPS) * math.sqrt(GROUPS / (GROUPS - 1))
    return [f"group {index}" for index in range(GROUPS)], sums
