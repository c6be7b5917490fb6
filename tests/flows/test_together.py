"""A stage in several processes: only the first one's files count, and its training loop is the divided one."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.training import loop
from flows import together
from flows.away import run_away
from flows.engine import training_group
from flows.engine.dispatch import Call, RayDispatch, Resources, Unsatisfiable


@pytest.fixture
def asked(monkeypatch):
    """What `run_request` was asked, and which loop it would have used."""
    seen = []

    def run(request):
        import components.training.loop

        seen.append((request, components.training.loop.fit, getattr(together, "fit", None)))
        if request.get("under"):
            (Path(request["root"]) / request["under"] / "runs").mkdir(parents=True)
        return {"status": "done"}

    monkeypatch.setattr(together, "run_request", run)
    return seen


def test_ranks_run_the_stage_and_all_but_the_first_leave_nothing(asked, tmp_path):
    request = {"root": str(tmp_path), "arguments": ["train"], "under": ""}
    for rank in (0, 1):
        payload = {"function": "flows.stage:run_request", "request": request, "rank": rank, "workers": 2}
        assert together.run_rank(payload) == {"status": "done"}
    assert [seen["under"] for seen, *_ in asked] == ["", ".tessera/ranks/1"]
    assert list((tmp_path / ".tessera" / "ranks").iterdir()) == []
    assert together.run_away is run_away


def test_the_divided_loop_takes_the_place_of_the_plain_one_everywhere_and_only_meanwhile(asked, tmp_path, monkeypatch):
    own = loop.fit
    monkeypatch.setattr(together, "fit", own, raising=False)  # a module that was loaded before and holds it by name
    request = {"root": str(tmp_path)}
    together.run_rank({"function": "flows.stage:run_request", "request": request, "rank": 0, "workers": 3})
    [(_, in_loop, in_module)] = asked
    assert in_loop is in_module
    assert in_loop.keywords == {"shards": 3}
    assert loop.fit is together.fit is own


def test_the_call_of_a_group_reserves_nothing_itself_and_names_the_stages_own_function():
    call = Call("flows.away:run_away", {"root": "r"}, Resources(cpus=2, gpus=1, workers=4))
    grouped = training_group.together(call)
    assert grouped.function == training_group.GROUP_FUNCTION
    assert grouped.payload["function"] == "flows.away:run_away"
    assert Resources(**grouped.payload["resources"]).wanted() == {"CPU": 2, "GPU": 1}
    assert grouped.resources.ray_options() == {"num_cpus": 0}


def test_a_group_that_the_nodes_cannot_hold_is_refused_with_the_numbers(monkeypatch):
    dispatch = RayDispatch([])
    nodes = {"a": {"CPU": 4.0, "GPU": 2.0}, "b": {"CPU": 4.0, "GPU": 1.0}, "c": {"CPU": 64.0}}
    monkeypatch.setattr(dispatch, "_nodes", lambda: nodes)
    dispatch.check("train", Resources(cpus=2, gpus=1, workers=3))
    with pytest.raises(Unsatisfiable, match=r"4 workers with 2 CPU, 1 GPU each, but the 3 nodes hold 3"):
        dispatch.check("train", Resources(cpus=2, gpus=1, workers=4))
