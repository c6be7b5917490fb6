"""Faults at random moments of a run of thirty stages; what must hold after each stands in `invariants.py`.

The short form runs with every test: each write of one commit fails, what was recorded is damaged, a worker and then the
driver are killed. The other faults are slow; two hundred kills at random moments are `make chaos`.
"""

from __future__ import annotations

import json
import time

import faults
import invariants
import pytest
import trials
import undisturbed

WITHOUT_SERVERS = ("two drivers", "stage fails", "corrupted object", "truncated lock", "stale lock")
SEED = 0

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The workspace before its first run, and after a run that nothing disturbed."""
    return trials.prepare(tmp_path_factory.mktemp("chaos"))


def set_scene(made, folder, name: str, seed: int = SEED, **kinds) -> trials.Scene:
    print(f"{name}, seed {seed}")
    return trials.scene(made, folder, name.replace(" ", "-"), seed, **kinds)


def finish(scene: trials.Scene, fault: faults.Fault) -> None:
    """Ask the invariants at rest, run again, ask them all."""
    try:
        fault.apply(scene)
        if not fault.mended:
            scene.rest()
        scene.rerun(mended=fault.mended, tracked=scene.command == trials.COMMAND)
        assert not scene.wrong, "\n".join([*scene.told, *scene.wrong])
    finally:
        scene.spare.clear()
        scene.clear()


def fail_commits(made, folder, kind: str, *options: str) -> dict:
    root = undisturbed.copy(made.after, folder / "workspace")
    done = undisturbed.process(root, "-m", "failing_disk", str(made.after), kind, *options, timeout=1700)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["wrong"], "\n".join(found["wrong"])
    return found


def test_the_undisturbed_run_has_thirty_stages_and_breaks_no_invariant(made):
    assert len(invariants.recorded(made.after)) == undisturbed.STAGES + 1  # and the stage `code`
    assert len(invariants.starts(made.after)) == undisturbed.STAGES
    assert not invariants.same_as_undisturbed(made.after, made.after)
    assert not invariants.at_rest(made.after, made.after, "")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda root: (root / "runs/chaos/plain/train/wide/s0/run/model.safetensors").write_bytes(b"half"), "lock rec"),
        (lambda root: (root / "runs/chaos/plain/train/wide/s0/run/more").write_bytes(b""), "one of the two runs"),
        (lambda root: (root / "results/chaos/plain/verdicts.json").write_text("{"), "verdicts.json differs"),
        (lambda root: (root / "dvc.lock").write_text("stages: {"), "a lock is damaged"),
        (lambda root: next((root / ".dvc/cache/files/md5").glob("*/*")).chmod(0o644), ""),
    ],
    ids=["output", "further file", "verdicts", "lock", "nothing"],
)
def test_the_invariants_see_what_is_spoiled(made, tmp_path, spoil, what):
    root = undisturbed.copy(made.after, tmp_path / "spoiled")
    spoil(root)
    found = "\n".join(invariants.at_rest(root, made.after, ""))
    assert what in found if what else not found


def test_the_invariants_see_a_second_run_and_a_failure_without_its_log(made, tmp_path):
    root = undisturbed.copy(made.after, tmp_path / "spoiled")
    begun = invariants.starts(root)
    assert not invariants.nothing_ran_again(root, begun)
    (root / "runs/chaos/plain/train/wide/s0/log/log.txt").touch()
    assert "ran again" in invariants.nothing_ran_again(root, begun)[0]
    log = "runs/chaos/plain/train/wide/s0/log/log.txt"
    tail = (root / log).read_text()
    good = f"a failed: it\nlog: {log}\n  | {tail}\nretry: tessera reproduce chaos\n"
    assert not invariants.failures_are_told(root, good)
    for lost in ("log: ", tail, "retry: "):
        assert invariants.failures_are_told(root, good.replace(lost, ""))


def test_every_operation_of_a_commit_may_fail(made, tmp_path):
    found = fail_commits(made, tmp_path, "evaluate")
    whats = " ".join(found["failed"])
    for what in ("fsync", "replace", "write", "dvc.lock", "environment.json", "cache"):
        assert what in whats
    assert found["operations"] == len(found["failed"])


@pytest.mark.parametrize("name", WITHOUT_SERVERS)
def test_faults_of_one_process(made, tmp_path, name):
    fault = faults.FAULTS[name]
    scene = set_scene(made, tmp_path, name, finished=fault.finished)
    scene.command = trials.HERE
    if name != "two drivers":
        scene.pause = 0.0
    finish(scene, fault)


def test_a_worker_is_killed_and_then_the_driver(made, tmp_path):
    scene = set_scene(made, tmp_path, "worker and driver")

    def apply(scene: trials.Scene) -> None:
        driver = scene.start()
        scene.moment(driver, last=12)
        scene.kill("worker", driver)
        time.sleep(scene.rng.random() * 3)
        scene.kill("worker", driver)
        driver.kill()
        scene.end(driver)

    finish(scene, faults.Fault("worker and driver", apply, "", ""))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "judge"])
def test_every_operation_of_other_commits_may_fail(made, tmp_path, kind):
    fail_commits(made, tmp_path, kind, "--both")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(faults.FAULTS))
def test_every_fault(made, tmp_path, name):
    fault = faults.FAULTS[name]
    if reason := fault.refused():
        pytest.skip(reason)
    finish(set_scene(made, tmp_path, name, finished=fault.finished), fault)
