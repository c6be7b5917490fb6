"""Schedules against their formulas and numerical derivatives."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.diffusion.schedules import (
    CosineSchedule,
    DiffusionError,
    Grid,
    LinearSchedule,
    remaining_after,
    remaining_share,
    schedule_of,
)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()])
def test_alpha_falls_from_one_to_zero_and_the_rate_is_its_logarithmic_slope(schedule):
    time = torch.linspace(0, 1, 101, dtype=torch.float64)
    alpha = schedule.alpha(time)
    assert float(alpha[0]) == pytest.approx(1, abs=1e-15)
    assert float(alpha[-1]) == pytest.approx(0, abs=1e-15)
    assert bool((alpha.diff() < 0).all())
    inner, step = time[10:90], 1e-6
    slope = (schedule.alpha(inner + step) - schedule.alpha(inner - step)) / (2 * step)
    torch.testing.assert_close(schedule.rate(inner), -slope / (1 - schedule.alpha(inner)), rtol=1e-7, atol=0)
    torch.testing.assert_close(schedule.time_of(alpha), time, rtol=0, atol=1e-7)


def test_the_cosine_is_that_of_the_paper():
    expected = math.cos(math.pi / 2 * 0.508 / 1.008) ** 2 / math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
    assert float(CosineSchedule().alpha(torch.tensor(0.5))) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 60), st.data())
def test_a_walk_visits_different_steps_from_the_last_to_zero_as_evenly_as_it_can(steps, data):
    jumps = data.draw(st.integers(1, steps))
    visited = Grid(LinearSchedule(), steps).stride(jumps)
    assert visited[0] == steps
    assert visited[-1] == 0
    sizes = {before - after for before, after in itertools.pairwise(visited)}
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 40), st.integers(0, 40), st.sampled_from(["linear", "cosine"]))
def test_what_remains_falls_to_zero_at_the_last_step(steps, length, decay):
    left = [int(remaining_after(step, steps, torch.tensor([length]), decay)) for step in range(steps)]
    assert left[-1] == 0
    assert all(after <= before for before, after in zip([length, *left], left, strict=False))
    for step, count in enumerate(left[:-1]):
        share = remaining_share((step + 1) / steps, decay)
        assert abs(count - math.floor(length * share + 1e-9)) == 0


def test_jumps_keep_what_the_steps_between_keep():
    grid = Grid(CosineSchedule(), 10)
    steps = torch.arange(11)
    single = grid.kept(steps[2:7], steps[3:8]).prod()
    assert float(grid.kept(torch.tensor(2), torch.tensor(7))) == pytest.approx(float(single), rel=1e-12)


def test_unknown_schedules_and_empty_grids_are_refused():
    with pytest.raises(DiffusionError, match="'sigmoid'"):
        schedule_of("sigmoid")
    with pytest.raises(DiffusionError, match="at least 1"):
        Grid(LinearSchedule(), 0)
