"""Faults between machines: the network is cut, the DVC remote vanishes or takes nothing more."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from pathlib import Path

import invariants
import pytest
import trials
from ray_cluster import cluster, separation_refused

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The workspace before its first run, and after a run that nothing disturbed."""
    return trials.prepare(tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="module")
def nodes(made):
    """Two nodes with addresses of their own, which share nothing with the driver but a folder for the remote."""
    if reason := separation_refused():
        pytest.skip(f"network namespaces need more rights: {reason}")
    with cluster([{"cpus": 0}, {"cpus": 1}, {"cpus": 1}], separate=[made.before.parent]) as found:
        yield found


def scene_with_remote(made, nodes, name: str, place: Path) -> trials.Scene:
    scene = trials.scene(made, made.before.parent, name, 0)
    (scene.root / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n    url = {place}\n")
    own = {name: value for name, value in nodes.environment.items() if name.startswith(("RAY_", "TESSERA_"))}
    scene.variables |= own
    return scene


def begun(made, nodes, name: str, folders, *, after: int):
    """Begin a run through an empty remote; return the remote's folder, the scene and the driver after some stages."""
    place = folders.mktemp("remote") / "store"
    place.mkdir()
    scene = scene_with_remote(made, nodes, name, place)
    driver = scene.start("--address", nodes.address, "--remote", "store")
    scene.until(driver, after)
    return place, scene, driver


def namespace_of(host: str) -> str:
    names = [line.split()[0] for line in subprocess.check_output(["ip", "netns", "list"], text=True).splitlines()]
    return next(name for name in names if f" {host}/" in subprocess.check_output(["ip", "-n", name, "addr"], text=True))


def finish(scene: trials.Scene) -> None:
    """Run again on this machine alone, and compare."""
    for name in ("RAY_AUTH_TOKEN", "TESSERA_SCRATCH"):
        scene.variables.pop(name, None)
    scene.rest()
    scene.rerun()
    assert not scene.wrong, "\n".join([*scene.told, *scene.wrong])


def closed(place: Path, *prefix: str):
    """Make a folder read-only, as the processes behind a prefix (`nsenter`) see it; returns what opens it again."""
    subprocess.run([*prefix, "mount", "--bind", str(place), str(place)], check=True)
    subprocess.run([*prefix, "mount", "-o", "remount,bind,ro", str(place)], check=True)
    return lambda: subprocess.run([*prefix, "umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("fault", ["vanishes", "takes nothing from the nodes"])
def test_the_remote_goes_away_in_the_middle(made, nodes, fault, tmp_path_factory):
    place, scene, driver = begun(made, nodes, f"remote-{fault.replace(' ', '-')}", tmp_path_factory, after=5)
    with contextlib.ExitStack() as stack:
        if fault == "vanishes":
            shutil.rmtree(place, ignore_errors=True)
            place.write_text("this is no folder any more")
        else:
            for node in nodes.nodes[1:]:  # each sees the files of a mount namespace of its own
                stack.callback(closed(place, "nsenter", "-t", str(node.process.pid), "-m"))
        code = scene.end(driver)
        assert code == 1, scene.said()
        assert "RemoteUnusable" in scene.said()
    finish(scene)


def test_a_remote_that_takes_nothing_from_the_driver_costs_no_stage(made, nodes, tmp_path_factory):
    place, scene, driver = begun(made, nodes, "remote-driver", tmp_path_factory, after=5)
    with contextlib.ExitStack() as stack:
        stack.callback(closed(place))
        assert scene.end(driver) == 0, scene.said()
        assert re.search(r"The remote was not told of \d+ runs: RemoteUnusable: cannot write", scene.said())
    finish(scene)


def test_the_network_to_a_node_is_cut_in_the_middle(made, nodes, tmp_path_factory):
    _, scene, driver = begun(made, nodes, "network", tmp_path_factory, after=3)
    name = namespace_of(nodes.nodes[2].host)
    subprocess.run(["ip", "-n", name, "link", "set", name.replace("tn", "ti", 1), "down"], check=True)
    began = time.monotonic()
    code = scene.end(driver, 900)
    print(f"the run ended {time.monotonic() - began:.0f} s after the cut")
    assert code == 0, scene.said()
    assert invariants.locks_are_whole(scene.root, made.after) == []
    finish(scene)
