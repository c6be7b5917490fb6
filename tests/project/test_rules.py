"""Rules that hold for every tracked file, whoever wrote it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracked import ROOT, files, modules, text, texts, tree

FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "torch.load",
    "torch.jit.load",
    "torch.export.load",
    "pd.read_pickle",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "eval",
    "exec",
    "NotImplementedError",
    "pytest.skip",
    "pytest.xfail",
    "pytest.importorskip",
    "pytest.mark.skip",
    "pytest.mark.skipif",
    "pytest.mark.xfail",
}
# What a test may do because what it needs lies outside the lock file or the tree, or because Python itself is the
# truth that it compares with.
ALLOWED = {
    "tests/web/test_browser.py": {"pytest.skip", "pytest.importorskip"},  # a browser
    "tests/cluster/test_separate_nodes.py": {"pytest.skip"},  # the right to make network namespaces
    "tests/chaos/test_chaos.py": {"pytest.skip"},  # the right to make memory cgroups
    "tests/chaos/test_remote.py": {"pytest.skip"},  # the right to make network namespaces
    "tests/flows/engine/test_mlflow_migration.py": {"pytest.skip"},  # PostgreSQL's server
    "tests/benchmarks/test_ledger.py": {"pytest.skip", "pytest.importorskip"},  # a browser
    "tests/benchmarks/test_quantizers.py": {"pytest.skip", "pytest.importorskip"},  # a peer that is no dependency
    "tests/benchmarks/test_data_loading.py": {"pytest.importorskip"},  # the same
    "tests/benchmarks/test_text_encoding.py": {"pytest.importorskip"},  # the same
    "tests/benchmarks/test_orchestration.py": {"pytest.skip"},  # a peer with an environment of its own
    "tests/benchmarks/test_memory.py": {"pytest.skip"},  # papers that ran here
    "tests/components/encoders/test_sentence.py": {"pytest.mark.skipif"},  # published weights, which data/ may lack
    "tests/flows/ledger/test_bars.py": {"pytest.skip"},  # the git history, which an archive of the tree lacks
    "tests/flows/declarations/test_arithmetic.py": {"eval"},  # expressions that the test itself makes
}
FORBIDDEN_ARGUMENTS = {("shell", True), ("allow_pickle", True), ("weights_only", False)}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "base", "manager", "managers"}
# Written in two parts, so that this file does not hold them.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")
MACHINE_PATHS = re.compile(
    r"(?<![\w.])/(?:" + "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers"]) + r")/\w"
)
REGISTRIES = re.compile(
    "|".join(
        re.escape(host)
        for host in (
            "pypi." + "org/simple",
            "python" + "hosted.org",
            "download.py" + "torch.org",
            "registry.np" + "mjs.org",
            "conda.ana" + "conda.org",
            "index-" + "url",
        )
    )
)
LARGEST_FILE = 10 * 2**20
# Fourteen bases of speech, half of them on three seeds, are a third as much again as what images and text need.
ALL_BASES = 200 * 2**20
# Lines of what only one paper does. A paper with parameters of its own has an experiment of its own; its modules must
# then be readable one by one, and whatever a second paper wants moves into the study. A paper with several experiments,
# which share their parameters and nothing else, has a little more for each.
LONGEST_PAPER, LONGEST_MODULE, LONGEST_EXPERIMENT, FURTHER_EXPERIMENT = 330, 250, 1400, 350
EXPERIMENTS = {"flows.studies.image_tokenizer.discrete_tokenization_survey": 4}  # images, speech, graphs, gradients


def dotted(node: ast.expr) -> str:
    """Spell an attribute chain such as `torch.jit.load`; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def offences(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, what) of every forbidden construct."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in FORBIDDEN_IMPORTS:
                yield node.lineno, f"import {name}"
        if isinstance(node, ast.Name | ast.Attribute) and dotted(node) in FORBIDDEN_CALLS:
            yield node.lineno, dotted(node)
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            for argument, value in FORBIDDEN_ARGUMENTS:
                if node.arg == argument and node.value.value is value:
                    yield node.value.lineno, f"{argument}={value}"


def found(pattern: re.Pattern[str], paths: tuple[Path, ...]) -> list[str]:
    """Return "file:line: text" of every match."""
    return [
        f"{path}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(text(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_package_init_files_are_empty():
    assert [str(path) for path in files() if path.name == "__init__.py" and text(path).strip()] == []


def test_every_folder_of_code_is_a_package():
    folders = {
        path.parent for path in modules() if path.parts[0] in ("components", "flows") and path.name != "__init__.py"
    }
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


def test_no_forbidden_construct_is_used():
    listed = [
        f"{path}:{line}: {what}"
        for path in modules()
        for line, what in offences(tree(path))
        if what not in ALLOWED.get(path.as_posix(), ())
    ]
    assert listed == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import dump",
        "torch.load(p)",
        "x = yaml.load",
        "subprocess.run(c, shell=True)",
        "np.load(p, allow_pickle=True)",
        "exec(code)",
        "raise NotImplementedError",
        "@pytest.mark.skipif(True)\ndef f(): ...",
    ],
)
def test_the_search_finds_each_kind_of_forbidden_construct(source):
    assert len(list(offences(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source", ["model.eval()", "yaml.safe_load(t)", "run(c, shell=False)", "load(p)", "text = 'torch.load'"]
)
def test_the_search_leaves_harmless_constructs_alone(source):
    assert list(offences(ast.parse(source))) == []


def test_nothing_is_left_unfinished():
    assert found(UNFINISHED, texts()) == []


def test_no_tracked_file_knows_a_machine_or_a_package_registry():
    assert found(MACHINE_PATHS, texts()) == []
    assert found(REGISTRIES, texts()) == []


def test_names_say_what_is_inside():
    vague = [
        str(path)
        for path in files()
        if path.parts[0] in ("components", "flows", "tests") and {*path.parts[:-1], path.stem} & FORBIDDEN_NAMES
    ]
    assert vague == []


def test_no_tracked_file_is_large_and_bases_stay_within_their_budget():
    sizes = {path: (ROOT / path).stat().st_size for path in files()}
    assert [str(path) for path, size in sizes.items() if size > LARGEST_FILE] == []
    assert sum(size for path, size in sizes.items() if path.parts[0] == "bases") <= ALL_BASES


def paper_packages() -> dict[str, list[Path]]:
    """The modules of each package below a study, by dotted package name: what only one paper does."""
    packages: dict[str, list[Path]] = {}
    for path in modules():
        if path.parts[:2] == ("flows", "studies") and len(path.parts) > 4:
            packages.setdefault(".".join(path.parts[:4]), []).append(path)
    return packages


def test_what_only_one_paper_does_is_short_and_used_by_no_other():
    packages = paper_packages()
    too_long = {}
    for name, paths in packages.items():
        lengths = {path.name: len(text(path).splitlines()) for path in paths}
        own = "params.py" in lengths
        experiment = LONGEST_EXPERIMENT + FURTHER_EXPERIMENT * (EXPERIMENTS.get(name, 1) - 1)
        if sum(lengths.values()) > (experiment if own else LONGEST_PAPER):
            too_long[name] = sum(lengths.values())
        if own:
            too_long |= {f"{name}/{file}": lines for file, lines in lengths.items() if lines > LONGEST_MODULE}
    assert too_long == {}
    outside = []
    for path in modules():
        if path.parts[0] not in ("components", "flows"):
            continue
        own = ".".join(path.parts[:4])
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            used = {".".join(name.split(".")[:4]) for name in names} & packages.keys()
            outside += [f"{path} imports {name}" for name in used - {own}]
    assert outside == []
