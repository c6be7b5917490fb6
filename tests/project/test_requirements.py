"""The lock pins everything, and covers what is asked for."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys

from packaging.requirements import Requirement
from packaging.version import Version
from tracked import ROOT, files, modules, tree

INFRA = ROOT / "infra"

# Versions below these have published weaknesses, or lack what SECURITY.md promises: the audit by hand of
# infra/audit.md, for machines from which no database of advisories can be reached. One line per kind of input.
OLDEST = {
    "ray": "2.60", "mlflow": "3.17.2", "torch": "2.10", "prefect": "3.8.8", "dvc": "3.67",
    # What speaks to the network.
    "aiohttp": "3.13.3", "urllib3": "2.6.3", "requests": "2.32.4", "h11": "0.16", "h2": "4.3", "certifi": "2024.7.4",
    "idna": "3.7", "asyncssh": "2.14.2", "cryptography": "46.0.5", "grpcio": "1.65", "websockets": "13",
    # What serves.
    "starlette": "0.49.1", "werkzeug": "3.1.5", "gunicorn": "23", "flask-cors": "6.0.0", "jinja2": "3.1.6",
    "mako": "1.2.2",
    # What reads files of others.
    "pillow": "12.1.1", "pyyaml": "5.4", "pyarrow": "14.0.1", "protobuf": "6.33.5", "fonttools": "4.60.2",
    "safetensors": "0.4", "gitpython": "3.1.41", "sqlparse": "0.5.4", "orjson": "3.9.15", "tqdm": "4.66.3",
    "zipp": "3.19.1", "dulwich": "0.9.9",
    # What installs.
    "setuptools": "78.1.1", "filelock": "3.20.3", "virtualenv": "20.36.1",
}  # fmt: skip


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lines(name: str) -> list[str]:
    stripped = (line.split(" #")[0].strip() for line in (INFRA / name).read_text(encoding="utf-8").splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def locked() -> dict[str, Version]:
    requirements = [Requirement(line) for line in lines("requirements.lock")]
    return {canonical(found.name): Version(str(found.specifier).removeprefix("==")) for found in requirements}


def test_every_line_of_the_lock_is_one_exact_version():
    assert [line for line in lines("requirements.lock") if not re.fullmatch(r"[\w.-]+==[\w.!+]+", line)] == []
    names = [canonical(line.split("==")[0]) for line in lines("requirements.lock")]
    assert sorted(names) == sorted(set(names))


def test_the_lock_satisfies_what_is_asked_for():
    versions = locked()
    for name in ("requirements.in", "requirements-test.in"):
        for line in lines(name):
            wanted = Requirement(line)
            assert canonical(wanted.name) in versions, f"{wanted.name} of {name} is not locked; run `make lock`"
            assert wanted.specifier.contains(versions[canonical(wanted.name)], prereleases=True), line


def test_no_locked_version_is_older_than_what_the_security_page_promises():
    versions = locked()
    assert {name: str(versions[name]) for name, oldest in OLDEST.items() if versions[name] < Version(oldest)} == {}


def test_every_package_that_the_code_imports_is_asked_for_by_name():
    asked = {canonical(Requirement(line).name) for line in lines("requirements.in")}
    providers = importlib.metadata.packages_distributions()
    first_party = {path.parts[0].removesuffix(".py") for path in files()} | {"components", "flows"}
    unasked = set()
    for path in modules():
        if path.parts[0] not in ("components", "flows"):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for top in {name.split(".")[0] for name in names} - first_party - sys.stdlib_module_names:
                if not asked & {canonical(provider) for provider in providers.get(top, [])}:
                    unasked.add(f"{top} ({path}:{node.lineno})")
    assert sorted(unasked) == []
