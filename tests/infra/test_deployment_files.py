"""What infra/ says about machines: exact images, health, shut doors, secrets from outside, one version of Ray.

No container can be started where these tests run. They check what the files say; infra/README.md says what else was
checked by hand, and what never ran.
"""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from tracked import ROOT, text

from flows.engine.serving import plan

COMPOSE, TLS = Path("infra/compose/compose.yaml"), Path("infra/compose/tls.yaml")
DOCKERFILE, LAUNCHER = Path("infra/image/Dockerfile"), Path("infra/ray-cluster.yaml")
CLUSTER, JOB = Path("infra/kuberay/cluster.yaml"), Path("infra/kuberay/job.yaml")
OUR_IMAGE = "tessera:0.1.0"
# name:tag with a tag that names one release; "latest", "17" and no tag at all change under one's feet.
EXACT = re.compile(r"[\w./-]+:(?:\d+\.\d+[\w.-]*|RELEASE\.\d{4}-\d\d-\d\dT[\d-]+Z)(?:@sha256:[0-9a-f]{64})?")
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN$|AUTH_STRING|ACCESS_KEY|_KEY$|^MC_HOST")
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]*\}")
ANY_VARIABLE = re.compile(r"(?<!\$)\$(?:\{(\w+)([^}]*)\}|(\w+))")
SERVICE_KEYS = {
    "image", "build", "restart", "init", "cap_drop", "security_opt", "logging", "environment", "command", "user",
    "volumes", "healthcheck", "ports", "depends_on", "shm_size", "deploy",
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(text(path))


SERVICES: dict[str, Any] = read(COMPOSE)["services"]


def ray_version() -> str:
    return re.search(r"^ray==(\S+)$", text(Path("infra/requirements.lock")), re.MULTILINE)[1]


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: word and arguments, with continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text(DOCKERFILE), flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def test_every_image_has_an_exact_tag():
    images = [
        service["image"] for path in (COMPOSE, TLS) for service in read(path)["services"].values() if "image" in service
    ]
    images += [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    assert len(images) >= 8
    assert [image for image in images if not EXACT.fullmatch(image)] == []


@pytest.mark.parametrize("image", ["postgres", "postgres:latest", "postgres:17", "minio/minio:edge", "nginx:stable"])
def test_a_loose_tag_is_told_from_an_exact_one(image):
    assert not EXACT.fullmatch(image)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_only_known_things_and_is_watched_and_confined(name):
    service = SERVICES[name]
    assert set(service) <= SERVICE_KEYS
    once = service["restart"] == "no"
    assert once or service["restart"] == "unless-stopped"
    assert once or {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["image"] != OUR_IMAGE or service["cap_drop"] == ["ALL"]
    assert service["logging"]["options"]["max-size"]
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


def test_every_port_is_published_on_loopback_alone():
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) >= 5
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []
    (wide,) = read(TLS)["services"]["door"]["ports"]
    assert re.fullmatch(r"\$\{TLS_ADDRESS:\?[^}]+\}:443:443", wide)


def test_every_secret_comes_from_a_required_variable_and_none_stands_in_a_file():
    wrong = []
    for path in (COMPOSE, TLS):
        for name, service in read(path)["services"].items():
            for key, value in (service.get("environment") or {}).items():
                in_address = "://" in str(value) and "@" in str(value)
                if (SECRET.search(key) or in_address) and not REQUIRED.search(str(value)):
                    wrong.append(f"{path}: {name}.{key}")
            wrong += [f"{path}: {name}: {word}" for word in service.get("command", []) if "PASSWORD" in word]
    assert wrong == []


def test_the_example_of_the_env_file_names_every_required_variable_and_holds_no_value():
    example = text(Path("infra/compose/env.example"))
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    assert set(given.values()) == {""}
    assert set(given) == {name for name in REQUIRED.findall(text(COMPOSE))}
    assert {name for name in REQUIRED.findall(text(TLS))} <= set(re.findall(r"[A-Z_]+(?==)", example))


def test_a_variable_is_required_or_has_a_default():
    loose = [
        found[0]
        for path in (COMPOSE, TLS)
        for line in text(path).splitlines()
        if not line.strip().startswith("#")
        for found in ANY_VARIABLE.finditer(line)
        if found[3] or not found[2].startswith((":?", ":-"))
    ]
    assert loose == []


def test_what_a_service_waits_for_and_mounts_exists():
    named = set(read(COMPOSE)["volumes"])
    used = set()
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            state = "service_completed_successfully" if SERVICES[other]["restart"] == "no" else "service_healthy"
            assert how == {"condition": state}
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if not volume.startswith("${") else ""
            if source.startswith("./"):
                assert (ROOT / COMPOSE.parent / source).is_file()
                assert volume.endswith(":ro")
            elif source:
                used.add(source)
    assert used == named


def test_the_servers_of_the_compose_file_may_be_reached_because_they_have_authentication(tmp_path):
    served = {}
    for service in SERVICES.values():
        match service.get("command"):
            case ["tessera", "serve", kind, "--host", host]:
                given = {key: REQUIRED.sub("x" * 32, str(value)) for key, value in service["environment"].items()}
                served[kind] = plan(tmp_path, kind, host, environment=given)
    assert set(served) == {"mlflow", "prefect"}
    assert "basic-auth" in served["mlflow"].command
    assert served["mlflow"].settings["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")


def test_ray_asks_for_a_token_wherever_it_is_started():
    for name, service in SERVICES.items():
        if "ray" in service.get("command", [])[:1]:
            assert service["environment"]["RAY_AUTH_MODE"] == "token", name
            assert service["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    launcher = read(LAUNCHER)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [line for line in launcher[key] if "ray start" in line]
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in start.split("ray start")[0]
    cluster = documents(CLUSTER)["RayCluster"]["spec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "ray-token"}
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    pods.append(documents(JOB)["RayJob"]["spec"]["submitterPodTemplate"])
    for pod in pods:
        for container in pod["spec"]["containers"]:
            variables = {each["name"]: each for each in container["env"]}
            assert variables["RAY_AUTH_MODE"]["value"] == "token"
            assert variables["RAY_AUTH_TOKEN"]["valueFrom"] == {
                "secretKeyRef": {"name": "ray-token", "key": "auth_token"}
            }
    assert dict(pair.split("=") for pair in environment_of_image())["RAY_AUTH_MODE"] == "token"


def environment_of_image() -> list[str]:
    return [pair for word, rest in instructions() if word == "ENV" for pair in rest.split()]


def documents(path: Path) -> dict[str, Any]:
    """The Kubernetes objects of a file by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all(text(path))}


def test_the_kubernetes_objects_are_confined_bounded_and_of_one_version():
    cluster, job = documents(CLUSTER), documents(JOB)
    assert set(cluster) == {"RayCluster", "NetworkPolicy"}
    assert set(job) == {"RayJob"}
    spec = cluster["RayCluster"]["spec"]
    assert cluster["RayCluster"]["apiVersion"] == job["RayJob"]["apiVersion"] == "ray.io/v1"
    assert spec["rayVersion"] == ray_version()
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    pods = [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    pods.append(job["RayJob"]["spec"]["submitterPodTemplate"])
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        for container in pod["spec"]["containers"]:
            assert container["image"] == OUR_IMAGE
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
            assert {mount["name"] for mount in container.get("volumeMounts", [])} == {
                volume["name"] for volume in pod["spec"].get("volumes", [])
            }
    name = cluster["RayCluster"]["metadata"]["name"]
    assert job["RayJob"]["spec"]["clusterSelector"] == {"ray.io/cluster": name}
    assert cluster["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == {"ray.io/cluster": name}
    assert cluster["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress"]
    assert re.search(r"&& tessera reproduce .* --remote store", job["RayJob"]["spec"]["entrypoint"])


def test_the_cluster_launcher_file_is_one_that_ray_accepts():
    from ray.autoscaler._private.util import prepare_config, validate_config

    launcher = read(LAUNCHER)
    validate_config(prepare_config(launcher))
    with pytest.raises(Exception, match="nonsense"):
        validate_config(prepare_config({**launcher, "nonsense": 1}))
    assert len(launcher["provider"]["worker_ips"]) == launcher["max_workers"]
    assert not any("0.0.0.0" in line for line in launcher["head_start_ray_commands"])


def test_the_image_is_built_without_surprises():
    steps = instructions()
    words = [word for word, _ in steps]
    assert set(words) <= {"FROM", "ENV", "RUN", "COPY", "WORKDIR", "ARG", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    final = steps[max(place for place, word in enumerate(words) if word == "FROM") :]
    assert [rest for word, rest in final if word == "USER"] == ["10001:10001"]
    assert [word for word, _ in final].count("HEALTHCHECK") == 1
    assert all(rest.startswith("[") for word, rest in steps if word in ("CMD", "ENTRYPOINT"))
    assert all(rest.startswith("/") for word, rest in steps if word == "WORKDIR")
    for rest in (rest for word, rest in steps if word == "RUN"):
        assert not re.search(r"\b(?:curl|wget|sudo|ssh)\b|\|\s*(?:ba)?sh\b", rest)
        if "apt-get install" in rest:
            assert "apt-get update" in rest
            assert "--yes --no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest
        for install in re.findall(r"pip install (.*?)(?:&&|$)", rest):
            assert "--requirement /tmp/requirements.lock" in install or "--no-deps" in install
    assert not any(re.match(r"\w*(?:PASSWORD|TOKEN|SECRET|KEY)\w*=.", pair) for pair in environment_of_image())


def test_the_image_copies_what_exists_and_the_ignore_file_lets_through():
    let_through = {line[1:] for line in text(Path(".dockerignore")).splitlines() if line.startswith("!")}
    for rest in (rest for word, rest in instructions() if word == "COPY" and "--from" not in rest):
        *sources, _ = [word for word in rest.split() if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(
                kept == source or kept.startswith(f"{source}/") or source.startswith(f"{kept}/") for kept in let_through
            )


def test_the_door_speaks_new_tls_only_and_never_leads_to_ray():
    door = re.sub(r"#.*", "", text(Path("infra/compose/nginx.conf")))
    assert door.count("{") == door.count("}")
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in door
    assert set(re.findall(r"proxy_pass http://(\w+):", door)) == {"mlflow", "prefect"}
    assert all(line.endswith(" ssl") or line.endswith("default_server") for line in re.findall(r"listen ([^;]+)", door))


def test_the_health_check_asks_its_own_server_and_nobody_else():
    class Well(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *words):
            """Be silent."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Well)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        states = [
            subprocess.run([sys.executable, ROOT / "infra/image/answers.py", *words], capture_output=True).returncode
            for words in ([f"{url}/health"], [f"{url}/ill"], ["http://example.org/health"], [])
        ]
    finally:
        server.shutdown()
        server.server_close()
    assert states[0] == 0
    assert all(states[1:])
