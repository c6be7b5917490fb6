"""Calls that say where they ran and what they saw, for tests of the assignment of nodes and accelerators."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

FUNCTION = "gpu_probe:hold"


def hold(payload: dict[str, Any]) -> dict[str, Any]:
    """Hold what was reserved for a while; say which node, process and accelerators that was, and when."""
    import ray

    began = time.time()
    time.sleep(payload["seconds"])
    return {
        "name": payload["name"],
        "share": payload["share"],
        "node": ray.get_runtime_context().get_node_id(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "began": began,
        "ended": time.time(),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "mirror": os.environ.get("TESSERA_MIRROR", ""),
    }


def drive(address: str, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run calls on a cluster, all submitted at once; return what they say, or why one was refused."""
    from flows.engine.dispatch import Call, RayDispatch, Resources, Unsatisfiable

    dispatch = RayDispatch([FUNCTION], address=address)
    dispatch.wait_ready(300)
    handles, refused = [], []
    for number, resources in enumerate(wanted):
        seconds = resources.pop("seconds", 0.5)
        call = Call(
            FUNCTION, {"name": number, "share": resources.get("gpus", 0), "seconds": seconds}, Resources(**resources)
        )
        began = time.monotonic()
        try:
            dispatch.check(f"call-{number}", call.resources)
        except Unsatisfiable as error:
            refused.append({"name": number, "refused": str(error), "after": time.monotonic() - began})
            continue
        handles.append(dispatch.submit(f"call-{number}", call))
    said = [dispatch.result(handle) for handle in handles]
    dispatch.close()
    return said + refused


if __name__ == "__main__":
    print(json.dumps(drive(sys.argv[1], json.loads(sys.argv[2]))))
