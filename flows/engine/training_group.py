"""One training on several processes, possibly of several nodes: a process group made by Ray Train.

For a stage with workers `RayDispatch.submit` submits one call that reserves nothing; it starts the workers, which
reserve what the stage declares for each, and waits for them. When a worker or its node is lost, Ray Train starts the
group anew, and the training goes on from its checkpoint.

    driver ── call ──> coordinator ── Ray Train ──> rank 0 .. W-1 ── torch process group ──> components.training
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Mapping
from typing import Any

from flows.engine.dispatch import Call, Resources, invoke

GROUP_FUNCTION = "flows.engine.training_group:train_together"
RANK_FUNCTION = "flows.together:run_rank"
RETRIES = 3


def together(call: Call) -> Call:
    """Return the call that runs a stage's call on all of its workers."""
    resources = dataclasses.asdict(call.resources)
    payload = {"function": call.function, "request": dict(call.payload), "resources": resources}
    return dataclasses.replace(call, function=GROUP_FUNCTION, payload=payload)


def train_together(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Run a stage on a group of workers; return what that of rank 0 returns, or a failure in the same form.

    Args:
        payload: {"function": the stage's own function, "request": its payload, "resources": fields of `Resources`;
            for tests "rank_function": what each rank runs}.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    resources = Resources(**payload["resources"])
    each = resources.wanted()
    config = {
        "rank_function": payload.get("rank_function", RANK_FUNCTION),
        "function": payload["function"],
        "request": dict(payload["request"]),
    }
    with tempfile.TemporaryDirectory(prefix="tessera-group-") as folder:
        trainer = TorchTrainer(
            _rank,
            train_loop_config=config,
            # Workers say how they ended in their result; only lost ones are Ray Train's to see, and to start again.
            run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=RETRIES)),
            scaling_config=ScalingConfig(
                num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=each
            ),
            torch_config=TorchConfig(backend="nccl" if resources.gpus else "gloo", timeout_s=600),
        )
        try:
            return trainer.fit().return_value
        except TrainingFailedError as error:
            reason = str(error).strip().splitlines()
            message = f"its {resources.workers} workers ended again and again: {reason[-1] if reason else ''}"
            return {"status": "failed", "message": message, "exit_code": 1, "log": "", "traceback": str(error)}


def _rank(config: Mapping[str, Any]) -> Any:
    """One worker, inside the process group."""
    from ray import train

    context = train.get_context()
    payload = {
        "function": config["function"],
        "request": config["request"],
        "rank": context.get_world_rank(),
        "workers": context.get_world_size(),
    }
    return invoke(frozenset({config["rank_function"]}), config["rank_function"], payload)
