"""The long form: `python tests/chaos/campaign.py --trials 200`, or `make chaos`. It can be stopped and goes on.

A fault and a seed decide the moment, so that a trial can be repeated (`--fault worker --seed 3 --out other.json`).
What is known already stands in the record (results/chaos.json) and is not tried again; `--table` prints the record for
the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "support"), str(FOLDER.parents[1])]

import trials  # noqa: E402
import undisturbed  # noqa: E402
from faults import FAULTS  # noqa: E402

from components.training.atomic import write_bytes  # noqa: E402

COMMITS = {"train": "a training", "evaluate": "an evaluation", "judge": "a judge"}
"""Kinds of stages whose commits are failed, and how the table names them."""
OTHERS_EACH = 2
"""Trials of each fault that is no random kill, before the kills."""


def plan(number_of_trials: int) -> list[tuple[str, int]]:
    """Return (fault, seed) of every trial: every other fault a few times, then kills in turn."""
    chosen = [(name, seed) for seed in range(OTHERS_EACH) for name, fault in FAULTS.items() if not fault.killing]
    killing = [name for name, fault in FAULTS.items() if fault.killing]
    return chosen + [(killing[number % len(killing)], number // len(killing)) for number in range(number_of_trials)]


def attempt(made: undisturbed.Undisturbed, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Do one trial; return its record. One in which Ray could not start in its thirty seconds was none: once more."""
    fault = FAULTS[name]
    if reason := fault.refused():
        return {"fault": name, "seed": seed, "refused": reason, "wrong": [], "seconds": 0.0, "told": []}
    for number in range(trials.RAY_ATTEMPTS):
        began = time.monotonic()
        scene = trials.scene(made, folder, name.replace(" ", "-"), seed, finished=fault.finished)
        try:
            fault.apply(scene)
            if not fault.mended:
                scene.rest()
            scene.rerun(mended=fault.mended)
        except AssertionError as error:
            scene.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            scene.spare.clear()
            trials.remove(scene)
        if not any(word in what for word in trials.RAY_SLOW for what in scene.wrong):
            break
        print(f"   Ray did not start ({number + 1})", flush=True)
    seconds = round(time.monotonic() - began, 1)
    return {"fault": name, "seed": seed, "wrong": scene.wrong, "seconds": seconds, "told": scene.told}


def fail_commits(made: undisturbed.Undisturbed, folder: Path) -> list[dict[str, Any]]:
    """Fail every operation of a training's, an evaluation's and a judge's commit."""
    records = []
    for kind in COMMITS:
        root = undisturbed.copy(made.after, folder / f"commit-{kind}")
        began = time.monotonic()
        done = undisturbed.process(root, "-m", "failing_disk", str(made.after), kind, "--both", timeout=7200)
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"wrong": [done.stderr[-2000:]]}
        seconds = round(time.monotonic() - began, 1)
        records.append({"fault": f"commit of a {kind} stage", "seed": 0, "seconds": seconds, "told": [], **found})
    return records


def run(options: argparse.Namespace) -> int:
    """Do what is still to be done; return how many trials of the record went wrong."""
    wanted = plan(options.trials)
    if options.fault:
        wanted = [(name, seed) for name, seed in wanted if name in options.fault]
    record = _read(options.out, options.seed)
    known = {(entry["fault"], entry["seed"]) for entry in record["trials"]}
    with tempfile.TemporaryDirectory(prefix="tc-", dir=options.folder) as name:
        folder = Path(name)
        made = trials.prepare(folder)
        if not options.fault and not any(entry["fault"].startswith("commit") for entry in record["trials"]):
            for entry in fail_commits(made, folder):
                _enter(options.out, record, entry)
        for number, (fault, seed) in enumerate(wanted):
            if (fault, seed + options.seed) in known:
                continue
            print(f"{number + 1}/{len(wanted)} {fault}, seed {seed + options.seed}", flush=True)
            _enter(options.out, record, attempt(made, folder, fault, seed + options.seed))
    return sum(bool(entry["wrong"]) for entry in record["trials"])


def _enter(out: Path, record: dict[str, Any], entry: dict[str, Any]) -> None:
    record["trials"].append(entry)
    write_bytes(out, (json.dumps(record, indent=1) + "\n").encode())
    state = "refused" if entry.get("refused") else "WRONG" if entry["wrong"] else "held"
    print(f"   {state} in {entry['seconds']} s; {'; '.join(entry['told'])}", flush=True)
    for what in entry["wrong"]:
        print(f"   - {what}", flush=True)


def _read(out: Path, seed: int) -> dict[str, Any]:
    if out.is_file():
        return json.loads(out.read_text())
    machine = {"cores": len(os.sched_getaffinity(0)), "system": f"{platform.system()} {platform.machine()}"}
    return {"date": time.strftime("%Y-%m-%d"), "seed": seed, "machine": machine, "trials": []}


def table(record: dict[str, Any]) -> str:
    """Return the record as a table: fault, trials, what is promised beside the invariants, result."""
    lines = ["| fault | trials | promised beside the invariants | result |", "|---|---|---|---|"]
    entries = record["trials"]
    for kind, name in COMMITS.items():
        for entry in entries:
            if entry["fault"] == f"commit of a {kind} stage":
                operations = f"each of the {entry.get('operations', 0)} writes, renames and fsyncs"
                says = f"{operations} of the commit of {name} fails, with ENOSPC and with EIO"
                result = f"{len(entry['wrong'])} wrong" if entry["wrong"] else "held"
                lines.append(
                    f"| {says} | {len(entry.get('failed', []))} | the stage fails with the reason | {result} |"
                )
    for name, fault in FAULTS.items():
        of_it = [entry for entry in entries if entry["fault"] == name]
        tried = [entry for entry in of_it if not entry.get("refused")]
        bad = sum(bool(entry["wrong"]) for entry in tried)
        result = "not tried yet" if not of_it else f"not tried: {of_it[0]['refused']}" if not tried else "held"
        lines.append(f"| {fault.says} | {len(tried)} | {fault.promise} | {f'{bad} wrong' if bad else result} |")
    return "\n".join(lines)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="random kills, beside two trials of each other fault")
    parser.add_argument("--seed", type=int, default=0, help="added to the number of every trial")
    parser.add_argument("--out", type=Path, default=Path("results/chaos.json"))
    parser.add_argument("--folder", type=Path, default=None, help="where the workspaces are made; the system's default")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only trials of this fault")
    parser.add_argument("--table", action="store_true", help="print the record as the table of docs/faults.md")
    options = parser.parse_args()
    if options.table:
        print(table(_read(options.out, options.seed)))
        return 0
    print(f"seed {options.seed}")
    return 1 if run(options) else 0


if __name__ == "__main__":
    sys.exit(main())
