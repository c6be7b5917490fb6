"""Real Ray clusters of several nodes on this machine, for tests: one `ray start --block` per node.

A node may live in a network namespace of its own, with an address of its own, and see neither the driver's workspace
nor the other nodes' files; that needs root.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RAY = [sys.executable, "-m", "patient_ray"]
HIDE = 'for folder in $HIDDEN; do mount -t tmpfs tmpfs "$folder" || exit 9; done; exec "$@"'
MARK = "TESSERA_TEST_NODE"
ATTEMPTS = 4
_numbers = itertools.count()


@dataclass
class Node:
    """A node that runs: its process, and the address it has."""

    process: subprocess.Popen
    host: str
    log: Path
    mark: str


@dataclass
class Cluster:
    """A cluster that runs.

    Attributes:
        address: HOST:PORT of the head.
        client: ray://HOST:PORT, where asked for.
        dashboard: http://HOST:PORT, where asked for.
        environment: What a driver needs in its environment.
        nodes: The head first.
    """

    address: str
    client: str
    dashboard: str
    environment: dict[str, str]
    nodes: list[Node] = field(default_factory=list)

    def resources(self) -> list[dict[str, float]]:
        """Return what each living node has, asked of the cluster by a process of its own."""
        source = (
            f"import json, ray; ray.init(address={self.address!r}, log_to_driver=False, logging_level='error');"
            "print(json.dumps([n['Resources'] for n in ray.nodes() if n['Alive']]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", source], env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind((host, 0))
        return listening.getsockname()[1]


@contextlib.contextmanager
def cluster(
    nodes: Sequence[dict],
    *,
    client: bool = False,
    dashboard: bool = False,
    separate: Sequence[Path] | None = None,
    **variables: str,
) -> Iterator[Cluster]:
    """Run a cluster.

    Args:
        nodes: What each node has: {"cpus": n, "gpus": n, "resources": {...}}; the first is the head.
        client: Whether drivers may connect by ray://.
        dashboard: Whether jobs may be submitted.
        separate: Folders that every node but the head gets an empty one of; such nodes have network namespaces and
            addresses of their own. None for nodes that share everything.
        variables: Further environment variables of nodes and drivers.
    """
    temporary = Path(tempfile.mkdtemp(prefix="tr-", dir="/tmp"))  # Ray's sockets need a short path
    token = secrets.token_hex(16)
    environment = os.environ | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1", "OMP_NUM_THREADS": "1",
        "RAY_gcs_server_request_timeout_seconds": "60", "RAY_raylet_start_wait_time_s": "120",
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "200", "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
        "RAY_agent_register_timeout_ms": "300000",
    } | variables  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        if separate is not None:
            environment["TESSERA_SCRATCH"] = str(temporary / "scratch")  # every node has a folder of its own there
        network = stack.enter_context(_network(len(nodes) - 1)) if separate is not None else None
        host = network.head if network else "127.0.0.1"
        ports = [free_port(host) for _ in range(3)]
        made = Cluster(
            f"{host}:{ports[0]}",
            f"ray://{host}:{ports[1]}" if client else "",
            f"http://{host}:{ports[2]}" if dashboard else "",
            environment,
        )
        stack.callback(_stop, made)
        for number, wanted in enumerate(nodes):
            words = [*RAY, "start", "--block", "--disable-usage-stats", "--include-log-monitor=false"]
            words += ["--object-store-memory=80000000", "--temp-dir", str(temporary)]
            words += [f"--num-cpus={wanted.get('cpus', 1)}", f"--num-gpus={wanted.get('gpus', 0)}"]
            words += ["--resources", json.dumps(wanted.get("resources", {}))]
            # Where a port is left to an agent, a raylet waits twenty seconds to be told of it, and then dies.
            for agent in ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent"):
                words += [f"--{agent}-port={free_port()}"]
            if "memory" in wanted:
                words += [f"--memory={wanted['memory']}"]
            prefix: list[str] = []
            own = host
            if number == 0:
                words += ["--head", f"--port={ports[0]}", f"--include-dashboard={str(dashboard).lower()}"]
                words += ["--dashboard-host", host, f"--dashboard-port={ports[2]}"]
                if client:
                    words += [f"--ray-client-server-port={ports[1]}"]
            else:
                words += ["--address", made.address]
                if network:
                    own = network.hosts[number - 1]
                    prefix = ["ip", "netns", "exec", network.names[number - 1], "unshare", "-m", "sh", "-c", HIDE, "sh"]
            words += ["--node-ip-address", own]
            hidden = " ".join(str(folder) for folder in [temporary, *(separate or ())])
            log = temporary.with_name(f"{temporary.name}-{number}.log")
            stack.callback(log.unlink, missing_ok=True)
            for attempt in range(ATTEMPTS):
                mark = f"{temporary.name}-{number}-{attempt}"
                with open(log, "w") as text:
                    process = subprocess.Popen(
                        [*prefix, *words],
                        env=environment | {"HIDDEN": hidden, MARK: mark},
                        stdout=text,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                made.nodes.append(Node(process, own, log, mark))
                if _has_started(made.nodes[-1]):
                    break
                # Ray gives its own processes thirty seconds, which a machine that is busy does not keep.
                stop_node(made.nodes.pop())
                assert attempt + 1 < ATTEMPTS, log.read_text()
        yield made


def _has_started(node: Node, seconds: float = 420.0) -> bool:
    deadline = time.monotonic() + seconds
    while "Ray runtime started" not in node.log.read_text():
        if node.process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _stop(made: Cluster) -> None:
    for node in reversed(made.nodes):
        stop_node(node)


def stop_node(node: Node) -> None:
    """Kill a node with everything it has started, and nothing else."""
    while found := [process for process in psutil.process_iter() if _is_of(process, node)]:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=20)
    node.process.wait(timeout=20)


def _is_of(process: psutil.Process, node: Node) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == node.mark
    except psutil.Error:
        return False


@dataclass
class Network:
    """A bridge and the namespaces that hang on it."""

    head: str
    names: list[str]
    hosts: list[str]


def separation_refused() -> str:
    """Say why network namespaces cannot be made here; "" where they can."""
    for words in (
        ["ip", "netns", "add", "tessera-try"],
        ["ip", "netns", "del", "tessera-try"],
        ["unshare", "-m", "true"],
    ):
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except OSError as error:
            return str(error)
        if done.returncode:
            return done.stderr.strip() or " ".join(words)
    return ""


@contextlib.contextmanager
def _network(count: int) -> Iterator[Network]:
    """A bridge in this namespace, and `count` namespaces that reach it and each other."""
    number = next(_numbers)
    tag = f"{os.getpid() % 10000}{number}"
    # A subnet of its own, too: two bridges with one address would take each other's answers.
    subnet = f"10.{200 + os.getpid() % 50}.{(os.getpid() // 50 + number) % 250}"
    bridge = f"tb{tag}"
    with contextlib.ExitStack() as stack:

        def run(*words: str) -> None:
            subprocess.run(words, check=True, capture_output=True)

        def later(*words: str) -> None:
            stack.callback(subprocess.run, words, capture_output=True)

        run("ip", "link", "add", bridge, "type", "bridge")
        later("ip", "link", "del", bridge)
        run("ip", "addr", "add", f"{subnet}.1/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        names, hosts = [], []
        for number in range(count):
            name, outer, inner, host = (
                f"tn{tag}{number}",
                f"to{tag}{number}",
                f"ti{tag}{number}",
                f"{subnet}.{number + 2}",
            )
            run("ip", "netns", "add", name)
            later("ip", "netns", "del", name)
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
            later("ip", "link", "del", outer)
            run("ip", "link", "set", inner, "netns", name)
            run("ip", "link", "set", outer, "master", bridge, "up")
            for words in (
                ("addr", "add", f"{host}/24", "dev", inner),
                ("link", "set", inner, "up"),
                ("link", "set", "lo", "up"),
                ("route", "add", "default", "via", f"{subnet}.1"),
            ):
                run("ip", "-n", name, *words)
            names.append(name)
            hosts.append(host)
        yield Network(f"{subnet}.1", names, hosts)
