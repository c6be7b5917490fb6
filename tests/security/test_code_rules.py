"""Code that would run what a file or a stranger says is not written here, under whichever name it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from tracked import modules, tree

# Whatever stands below one of these names is refused, too.
FORBIDDEN = {
    "pickle", "_pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal", "jsonpickle",
    "torch.load", "torch.jit.load", "torch.export.load", "torch.package", "torch.hub", "torch.serialization.load",
    "numpy.lib.format.read_array", "pandas.read_pickle", "pandas.read_hdf", "sklearn.externals",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader", "yaml.CLoader", "yaml.CFullLoader",
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
    "asyncio.create_subprocess_shell", "shutil.unpack_archive", "tempfile.mktemp", "zipimport", "runpy",
    "code.interact",
    "xml.sax", "xml.dom", "ssl._create_unverified_context", "telnetlib", "ftplib", "eval", "exec",
    "mlflow.pyfunc", "mlflow.pytorch", "mlflow.sklearn", "skops.io.load",
}  # fmt: skip
# (argument, the only values it may have)
ONLY = {
    "shell": {False}, "allow_pickle": {False}, "weights_only": {True}, "trust_remote_code": {False}, "verify": {True},
}  # fmt: skip
# Python as the truth about expressions, and a script of the tests that is run as `python -m` would.
ALLOWED = {
    "tests/flows/declarations/test_arithmetic.py": {"eval"},
    "tests/components/training/test_loop.py": {"runpy"},
}


def names_of(module: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `from torch import load as read` makes read -> torch.load."""
    names = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """Spell what an expression names; "" where it is no chain of names."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (left := full_name(node.value, names)):
        return f"{left}.{node.attr}"
    return ""


def is_forbidden(name: str) -> str:
    """Return the forbidden name that a name is or lies below; "" where there is none."""
    return next((each for each in FORBIDDEN if name == each or name.startswith(f"{each}.")), "")


def offences(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every construct that runs, unpacks or trusts what it should only read."""
    names = names_of(module)
    for node in ast.walk(module):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            found = [full_name(node, names)]
        for name in found:
            if offence := is_forbidden(name):
                yield node.lineno, offence
        if isinstance(node, ast.Call):
            yield from _arguments(node)
            if isinstance(node.func, ast.Attribute) and node.func.attr == "extractall":
                filters = [word.value for word in node.keywords if word.arg == "filter"]
                if not (filters and isinstance(filters[0], ast.Constant) and filters[0].value == "data"):
                    yield node.lineno, "extractall without filter='data'"


def _arguments(call: ast.Call) -> Iterator[tuple[int, str]]:
    for word in call.keywords:
        allowed = ONLY.get(word.arg or "")
        if allowed and not (isinstance(word.value, ast.Constant) and word.value.value in allowed):
            yield word.value.lineno, f"{word.arg}={ast.unparse(word.value)}"


def test_no_module_runs_unpacks_or_trusts_what_it_should_only_read():
    listed = [
        f"{path}:{line}: {what}"
        for path in modules()
        for line, what in set(offences(tree(path)))
        if what not in ALLOWED.get(path.as_posix(), ())
    ]
    assert sorted(listed) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch as t\nt.load(p)",
        "from torch import load\nload(p)",
        "from torch import load as read\nread(p)",
        "from torch import export\nexport.load(p)",
        "from yaml import load, Loader",
        "import yaml\nyaml.load(t, Loader=yaml.SafeLoader)",
        "import yaml as y\ny.CLoader(t)",
        "from os import system as run\nrun(c)",
        "run(c, shell=1)",
        "run(c, shell=flag)",
        "np.load(p, allow_pickle=flag)",
        "f(p, weights_only=None)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "requests.get(u, verify=False)",
        "archive.extractall(p)",
        "archive.extractall(p, filter='fully_trusted')",
        "from shutil import unpack_archive",
        "import xml.sax as sax",
        "f = eval",
    ],
)
def test_each_way_to_write_it_is_found(source):
    assert list(offences(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "from safetensors.torch import load, load_file\nload(b)",
        "import json\njson.load(f)",
        "import yaml\nyaml.safe_load(t)\nyaml.CSafeLoader",
        "run(c, shell=False)",
        "archive.extractall(p, filter='data')",
        "model.eval()",
        "torch.load_something(p)",
        "re.compile(p).evaluate()",
    ],
)
def test_harmless_code_is_left_alone(source):
    assert not list(offences(ast.parse(source)))
