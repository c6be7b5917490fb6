"""A small training for tests of several processes, and the function that each worker of a Ray group runs."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from components.training.loop import Optimisation

RANK_FUNCTION = "group_training:rank"
STEPS = 24
OPTIMISATION = Optimisation(steps=STEPS, learning_rate=1e-2, warmup_steps=2, ema_decay=0.9)


class Network(nn.Module):
    """Two blocks with dropout, a buffer that the loss moves, and a parameter that is left out on odd steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(2))
        self.head = nn.Linear(8, 1)
        self.extra = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("running", torch.zeros(8))
        self.register_buffer("constant", torch.full((3,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.dropout(x)).squeeze(-1)


def draw(step: int, generator: torch.Generator) -> dict:
    x = torch.randn(16, 8, generator=generator)
    return {"x": x, "y": x.sum(dim=1).sin(), "odd": step % 2}


def noisy(model: Network, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
    x = batch["x"] + 0.1 * torch.randn(batch["x"].shape, generator=generator)
    with torch.no_grad():
        model.running.lerp_(x.mean(dim=0), 0.1)
    value = (model(x) - batch["y"]).square().mean()
    return (value if batch["odd"] else value + model.extra.square().sum() + model.extra.sum()), {"width": x.std()}


def plain(model: Network, batch: dict, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
    model.dropout.eval()
    return (model(batch["x"]) - batch["y"]).square().mean(), {}


def curve(table, series: str = "loss") -> list[float]:
    frame = table.frame()
    return frame.filter(frame["series"] == series)["value"].to_list()


def rank(payload: dict[str, Any]) -> dict[str, Any]:
    """Train in a process of a group; rank 1 dies once at step 12, when it is asked to and a checkpoint was written."""
    from components.training.distributed import fit

    torch.set_num_threads(1)
    request, number = payload["request"], payload["rank"]
    folder = Path(request["folder"])
    steps = []

    def watched(step: int, generator: torch.Generator) -> dict:
        steps.append(step)
        died = folder / "died"
        if request["die"] and number == 1 and step == 12 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(step, generator)

    curves = fit(
        Network(), watched, noisy, OPTIMISATION, seed=5, shards=2, log_every=1, checkpoint=folder / "checkpoint",
        checkpoint_seconds=0.0,
    )  # fmt: skip
    return {"status": "done", "loss": curve(curves), "first": steps[0], "workers": payload["workers"]}


def drive(address: str, request: dict[str, Any], workers: int) -> dict[str, Any]:
    """Run the training on a cluster, as a stage with workers is run."""
    import dataclasses

    from flows.engine.dispatch import Call, RayDispatch, Resources
    from flows.engine.training_group import GROUP_FUNCTION, together

    dispatch = RayDispatch([GROUP_FUNCTION], address=address)
    dispatch.wait_ready(300)
    call = together(Call("stage", request, Resources(workers=workers)))
    call = dataclasses.replace(call, payload={**call.payload, "rank_function": RANK_FUNCTION})
    dispatch.check("training", call.resources)
    result = dispatch.result(dispatch.submit("training", call))
    dispatch.close()
    return result


if __name__ == "__main__":
    print(json.dumps(drive(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))))
