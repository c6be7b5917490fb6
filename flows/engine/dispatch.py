"""Stage functions in warm Ray workers.

A call names one function of a closed list and a JSON payload; it runs in a worker process that keeps its imports
from call to call. Ray is started on loopback with token authentication, without dashboard and telemetry, in a thread
of its own that lives as long as Ray does (Ray ties its processes to the thread that started them).
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import TesseraError

TELEMETRY_OFF = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_PROCESS_SPAWN_REAPER": "1"}
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
}
# glibc returns every large tensor to the kernel when it is freed and fetches zeroed pages for the next one, in each
# step anew; a worker keeps up to 1 GiB of freed memory instead. Numbers do not depend on it.
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**30)}
SENT_CODE = ("components", "flows", "params")
"""What a node that does not see the driver's workspace gets of it."""
GIB = 2**30


class RayUnavailable(TesseraError):
    """Ray did not start, or the cluster cannot be reached."""


class Unsatisfiable(TesseraError):
    """No node of the cluster will ever have what a stage asks for."""


@dataclass(frozen=True)
class Resources:
    """What a stage reserves while it runs.

    Attributes:
        cpus: Logical processors.
        gpus: GPUs, may be a fraction.
        memory: Bytes of main memory, 0 for no reservation.
        custom: Further Ray resources by name.
        exclusive: Whether all processors of a node are reserved, however many it has.
        workers: Processes that work together, each with all of the above.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    custom: Mapping[str, float] = field(default_factory=dict)
    exclusive: bool = False
    workers: int = 1

    def ray_options(self) -> dict[str, Any]:
        """Spell the reservation as options of a Ray task; one for a group reserves nothing, its workers do."""
        if self.workers > 1:
            return {"num_cpus": 0}
        options: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory:
            options["memory"] = self.memory
        if self.custom:
            options["resources"] = dict(self.custom)
        return options

    def wanted(self) -> dict[str, float]:
        """Return the reservation of one process by Ray's resource names."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **self.custom}
        return {name: amount for name, amount in wanted.items() if amount}


@dataclass(frozen=True)
class Call:
    """One function call to run on a worker.

    Attributes:
        function: "module:function"; it takes the payload and returns a JSON-able dict.
        payload: JSON-able arguments.
        resources: What to reserve.
    """

    function: str
    payload: Mapping[str, Any]
    resources: Resources = Resources()


def invoke(allowed: frozenset[str], function: str, payload: Mapping[str, Any]) -> Any:
    """Run a function of the closed list in this process."""
    if function not in allowed:
        raise PermissionError(f"{function} is not in the closed list of stage functions: {sorted(allowed)}")
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(dict(payload))


class RayDispatch:
    """Starts Ray when it is first needed and runs calls on it.

    Args:
        functions: The closed list of functions that may be called.
        address: Address of a running cluster; None starts one in this process group.
        cpus: Logical processors of the embedded cluster; default: those of this machine.
        preload: Modules that workers import while they start, so that the first stage does not wait for them.
        retries: How often a call is repeated when its worker or node dies.
        code: Workspace whose code and declarations are sent to the nodes; None where they see it themselves.
    """

    def __init__(
        self,
        functions: Iterable[str],
        *,
        address: str | None = None,
        cpus: int | None = None,
        preload: Iterable[str] = (),
        retries: int = 3,
        code: Path | None = None,
    ) -> None:
        self._functions = frozenset(functions)
        self._address = address
        self._cpus = cpus or len(os.sched_getaffinity(0))
        self._preload = tuple(preload)
        self._retries = retries
        self._code = code
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._remote: Any = None

    def start(self) -> None:
        """Begin to start Ray in the background; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="ray", daemon=True)
            self._thread.start()

    def wait_ready(self, timeout: float = 120.0) -> None:
        """Wait until Ray can take calls.

        Raises:
            RayUnavailable: It did not start; the message says why.
        """
        self.start()
        if not self._ready.wait(timeout):
            raise RayUnavailable(
                f"RayUnavailable: Ray did not start within {timeout:.0f} s. See the newest folder under /tmp/ray for "
                "its logs; `tessera doctor` looks for the usual reasons."
            )
        if self._failure is not None:
            raise RayUnavailable(
                f"RayUnavailable: {self._failure}. Check the address and token (RAY_AUTH_TOKEN), or leave --address "
                "away to use an embedded Ray."
            ) from self._failure

    def _live(self) -> None:
        try:
            self._connect()
        except BaseException as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        self._closing.wait()
        import ray

        ray.shutdown()

    def _connect(self) -> None:
        os.environ.update(TELEMETRY_OFF)
        for name, value in (ONE_THREAD | KEPT_MEMORY).items():
            os.environ.setdefault(name, value)
        os.environ["RAY_AUTH_MODE"] = "token"
        embedded = self._address is None
        if embedded:
            # Ray offers no switch for this on Linux except the one that it uses itself on Windows and macOS: without
            # it every Ray process listens on all interfaces.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            # A worker imports what stages need while Prefect starts, not when the first stage waits for it.
            os.environ["RAY_preload_python_modules"] = ",".join(self._preload)  # noqa: SIM112
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        if ray.is_initialized():
            raise RuntimeError("Ray already runs in this process")
        environment = self._environment()
        if environment:
            # Inside a submitted job Ray would otherwise refuse to differ from what the job was submitted with.
            os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
        if embedded:
            ray.init(
                address="local",
                num_cpus=self._cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                configure_logging=False,
                object_store_memory=128 * 2**20,
                runtime_env=environment,
            )
        else:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level="error",
                configure_logging=False,
                runtime_env=environment,
            )
        self._remote = ray.remote(invoke)

    def _environment(self) -> dict[str, Any]:
        """Return what workers need of this process: variables on other machines, and code where they do not see it."""
        found: dict[str, Any] = {}
        if self._address is not None:
            names = [*ONE_THREAD, *KEPT_MEMORY, "TESSERA_MIRROR"]
            found["env_vars"] = {name: os.environ[name] for name in names if name in os.environ}
        if self._code is not None:
            found["working_dir"] = str(self._code)
            found["excludes"] = [f"/{path.name}" for path in self._code.iterdir() if path.name not in SENT_CODE]
        return found

    def slots(self) -> float:
        """Return the logical processors of the cluster."""
        import ray

        return float(ray.cluster_resources().get("CPU", self._cpus))

    def check(self, name: str, resources: Resources) -> None:
        """Refuse a call that no node can ever run.

        Raises:
            Unsatisfiable: With what is asked for and what the largest node has.
        """
        nodes = self._nodes()
        wanted = resources.wanted()
        if any(_holds(node, wanted) for node in nodes.values()):
            held = sum(
                min(int(node[key] // amount) for key, amount in wanted.items())
                for node in nodes.values()
                if _holds(node, wanted)
            )
            if held >= resources.workers:
                return
            raise Unsatisfiable(
                f"Unsatisfiable: stage {name} asks for {resources.workers} workers with {_amounts(wanted)} each, but "
                f"the {len(nodes)} nodes hold {held}. Change `resources` in its paper.yaml or use a larger cluster."
            )
        largest = {key: max((node.get(key, 0.0) for node in nodes.values()), default=0.0) for key in wanted}
        short = [key for key, amount in wanted.items() if largest[key] < amount]
        if short:
            have = f"the largest of {len(nodes)} nodes has {_amounts({key: largest[key] for key in short})}"
        else:
            have = f"no node has all of it: {'; '.join(_amounts(node, wanted) for node in nodes.values())}"
        raise Unsatisfiable(
            f"Unsatisfiable: stage {name} asks for {_amounts(wanted)} on one node, but {have}. Change `resources` in "
            "its paper.yaml or use a cluster that has them (--address)."
        )

    def _nodes(self) -> dict[str, dict[str, float]]:
        """Return what every living node has in all, by its id."""
        import ray

        return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    def submit(self, name: str, call: Call) -> Any:
        """Submit a call, for several workers through a group of them; returns its handle."""
        from flows.engine.training_group import GROUP_FUNCTION, together

        functions = self._functions
        if call.resources.workers > 1 and call.function != GROUP_FUNCTION:
            call, functions = together(call), functions | {GROUP_FUNCTION}
        options = call.resources.ray_options()
        if call.resources.exclusive:
            options |= self._whole_node(call.resources)
        task = self._remote.options(name=name, max_retries=self._retries, retry_exceptions=False, **options)
        return task.remote(functions, call.function, dict(call.payload))

    def _whole_node(self, resources: Resources) -> dict[str, Any]:
        """Return the options that reserve the smallest node that holds a call."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted = resources.wanted()
        able = {name: node["CPU"] for name, node in self._nodes().items() if _holds(node, wanted)}
        chosen = min(able, key=lambda name: (able[name], name))
        return {"num_cpus": able[chosen], "scheduling_strategy": NodeAffinitySchedulingStrategy(chosen, soft=True)}

    def wait(self, handles: list[Any], timeout: float) -> list[Any]:
        """Return the handles that have ended, waiting at most `timeout` seconds for the first."""
        import ray

        ended, _ = ray.wait(handles, num_returns=1, timeout=timeout)
        if ended:
            more, _ = ray.wait(handles, num_returns=len(handles), timeout=0)
            ended = more or ended
        return ended

    def result(self, handle: Any) -> Any:
        """Return what an ended call returned, or raise what it raised."""
        import ray

        return ray.get(handle)

    def cancel(self, handle: Any) -> None:
        """Stop a call; its worker process is ended."""
        import ray

        ray.cancel(handle, force=True)

    def release(self) -> None:
        """Begin to shut Ray down in the background; `close` waits for it."""
        # A handle that is collected after Ray's end takes the process with it.
        gc.collect()
        self._closing.set()

    def close(self) -> None:
        """Shut Ray down, if it was started."""
        if self._thread is None:
            return
        self.release()
        self._thread.join(timeout=60)
        self._thread = None


def _holds(node: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    return all(node.get(key, 0.0) >= amount for key, amount in wanted.items())


def _amounts(held: Mapping[str, float], keys: Iterable[str] | None = None) -> str:
    """Spell amounts of resources: `8 CPU, 0.5 GPU, 64 GiB memory`."""
    found = {key: held.get(key, 0.0) for key in (held if keys is None else keys)}
    return ", ".join(
        f"{amount / GIB:.3g} GiB memory" if key == "memory" else f"{amount:g} {key}" for key, amount in found.items()
    )
