"""How many scenes a core makes per second: drawn, rendered, described, asked about and packed into rows.

Processor time is counted, over all threads, so that neither other work nor Polars' own threads flatter or hurt it.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from components.data import shapes
from components.data.scenes.rendering import render
from components.data.scenes.sampling import draw
from components.data.scenes.world import World
from components.training import determinism

BAR, SCENES, ROUNDS = 2000, 1024, 5
DECLARED = yaml.safe_load((Path(__file__).parents[2] / "params/data.yaml").read_text())


@pytest.mark.benchmark_bar
@pytest.mark.parametrize("name", ["shapes", "shapes-few", "shapes-48", "shapes-64"])
def test_a_core_makes_two_thousand_scenes_per_second(benchmark, name):
    parameters = DECLARED[name]["sources"][0]["parameters"]
    world, questions = World.of(parameters["world"]), parameters.get("questions") or {"types": (), "each": 0}
    pixels, rows = [], []

    def make() -> None:
        start = time.process_time()
        scenes = draw(world, 1, "train", np.arange(SCENES))
        render(scenes)
        pixels.append(time.process_time() - start)
        start = time.process_time()
        shapes.table(draw(world, 1, "train", np.arange(SCENES)), "train", questions["types"], questions["each"])
        rows.append(time.process_time() - start)

    # The first round computes the stamps of the world.
    benchmark.pedantic(make, rounds=ROUNDS, warmup_rounds=1)
    rate = SCENES / statistics.median(rows[1:])
    benchmark.extra_info.update(
        side=world.side,
        scenes_per_second=round(rate),
        pictures_and_masks_alone_per_second=round(SCENES / statistics.median(pixels[1:])),
        machine=determinism.machine_class(),
    )
    print(name, benchmark.extra_info)
    assert rate >= BAR
