"""Code digests: which modules count for a stage, and which edits make which stages stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from closures import entries_of, loaded_by_import, loaded_by_smoke, outside_closure
from workspace import REPOSITORY, edit, make_workspace, run_in, write

from flows.declarations.workspace import Workspace
from flows.engine.code_lock import CodeLock
from flows.engine.digests import Code, CodeError

# --- the import closure, on a package made for it -------------------------------------------------------------------

FILES = {
    "__init__": "",
    "entry": "from {p} import direct\nfrom {p}.package.inner import name\nimport {p}.package.other as o\n",
    "direct": "def f():\n    from {p}.lazy import x\n    return x\n",
    "lazy": "x = 1\n",
    "typed": "y = 1\n",
    "package/__init__": "",
    "package/inner": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {p} import typed\nname = 1\n",
    "package/other": "from . import inner\nfrom .. import circular\n",
    "circular": "import {p}.package.other\n",
    "apart": "z = 1\n",
    "filled/__init__": "import {p}.apart\nw = 2\n",
    "filled/deep": "v = 3\n",
    "under": "import {p}.filled.deep\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    name = f"pkg_{abs(hash(request.node.nodeid)) % 10**9}"
    for path, source in FILES.items():
        write(tmp_path, f"{name}/{path}.py", source.format(p=name))
    (tmp_path / ".tessera").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def closure(root, package, *entries):
    code = Code(root, (package,))
    return {module.removeprefix(f"{package}.") for module in code.closure(f"{package}.{entry}" for entry in entries)}


def test_a_closure_holds_lazy_imports_and_leaves_out_what_only_type_checkers_see(tmp_path, package):
    assert closure(tmp_path, package, "entry") == {
        "entry", "direct", "lazy", "package.inner", "package.other", "circular",
    }  # fmt: skip


def test_a_package_whose_init_does_something_counts_with_all_it_imports(tmp_path, package):
    assert closure(tmp_path, package, "under") == {"under", "filled", "filled.deep", "apart"}


def test_a_fresh_process_loads_nothing_outside_the_closure(tmp_path, package):
    for entry in ("entry", "under", "circular", "direct", "apart"):
        source = f"import {package}.{entry}, sys; print(*[m for m in sys.modules if m.startswith({package!r})])"
        done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=True)
        files = {module: tmp_path / (module.replace(".", "/") + ".py") for module in done.stdout.split()}
        loaded = {module.removeprefix(f"{package}.") for module, file in files.items() if file.is_file()}
        loaded |= {"filled"} & {module.removeprefix(f"{package}.") for module in done.stdout.split()}
        assert loaded <= closure(tmp_path, package, entry)


def test_an_unknown_module_is_refused_with_the_nearest_name(tmp_path, package):
    with pytest.raises(
        CodeError, match=rf"{package}\.entri is no module of this checkout\. Did you mean '{package}.entry'"
    ):
        Code(tmp_path, (package,)).digest([f"{package}.entri"])


def test_an_edit_within_one_tick_of_the_clock_is_seen(tmp_path, package):
    file = tmp_path / package / "lazy.py"
    before = Code(tmp_path, (package,)).digest([f"{package}.entry"])
    stat = file.stat()
    file.write_text("x = 2\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Code(tmp_path, (package,)).digest([f"{package}.entry"]) != before


def test_the_cache_of_parsed_modules_changes_no_digest_even_when_damaged(tmp_path, package):
    code = Code(tmp_path, (package,))
    fresh = code.digest([f"{package}.entry"])
    code.save()
    assert Code(tmp_path, (package,)).digest([f"{package}.entry"]) == fresh
    cache = tmp_path / ".tessera" / "syntax.json"
    for damage in ("", "[]", "{", "\x00"):
        cache.write_text(damage)
        assert Code(tmp_path, (package,)).digest([f"{package}.entry"]) == fresh


def test_a_lock_tells_later_what_a_digest_stood_for(tmp_path, package):
    lock = CodeLock()
    code = Code(tmp_path, (package,))
    digest = code.record(lock, [f"{package}.entry"])
    (tmp_path / "params").mkdir()
    assert lock.write(tmp_path)
    assert not lock.write(tmp_path)
    read = CodeLock.read(tmp_path)
    assert read == lock
    assert set(read.of(digest)) == {f"{package}.{module}" for module in closure(tmp_path, package, "entry")}
    assert read.of("0" * 32) is None
    read.keep([])
    assert (read.modules, read.digests) == ({}, {})


def test_two_branches_merge_their_locks_line_by_line(tmp_path, package):
    first, second = CodeLock(), CodeLock()
    code = Code(tmp_path, (package,))
    one, two = code.record(first, [f"{package}.entry"]), code.record(second, [f"{package}.under"])
    texts = []
    (tmp_path / "params").mkdir()
    for lock in (first, second):
        lock.write(tmp_path)
        texts.append((tmp_path / "params/code.lock").read_text())
    write(tmp_path, "params/code.lock", "".join(texts) + "module\nnonsense\n\n")
    merged = CodeLock.read(tmp_path)
    assert merged.of(one) == first.of(one)
    assert merged.of(two) == second.of(two)


# --- which edit makes which stages stale, on a copy of the code ------------------------------------------------------

NUMBERS, MEDIAN = "flows/studies/toy/numbers.py", "flows/studies/toy/rules/median.py"
PARAMS = "flows/studies/toy/params.py"
TRAIN = {"plain-train-mean", "plain-train-median"}
EVALUATE = {"plain-evaluate-mean", "plain-evaluate-median"}
EDITS = {
    # name: (file, old, new, units whose code digest changes)
    "comment": (NUMBERS, "    generator =", "    # a remark\n    generator =", set()),
    "docstring": (NUMBERS, '"""Return `count` normal', '"""Gives `count` normal', set()),
    "formatting": (NUMBERS, "random.Random(seed)", "random.Random(\n        seed\n    )", set()),
    "helper of both": (NUMBERS, "0.0, spread", "0.5, spread", TRAIN | EVALUATE),
    "rule of one arm": (MEDIAN, "statistics.median(", "statistics.median_low(", {"plain-evaluate-median"}),
    "training": ("flows/studies/toy/train.py", '"number", step', '"value", step', TRAIN),
    "evaluation": ("flows/studies/toy/evaluate.py", "numbers) // share", "numbers) // (share + 1)", EVALUATE),
    "metric tables": ("components/metrics/tables.py", "compression_level=3", "compression_level=4",
                      TRAIN | EVALUATE | {"plain-judge"}),
    "judge": ("flows/ledger/judge.py", "indent=1", "indent=2", {"plain-judge"}),
    "determinism": ("components/training/determinism.py", "def reset(", "EXTRA = 1\n\n\ndef reset(", TRAIN | EVALUATE),
    "declarations": ("flows/declarations/paper.py", 'min_length=1)\n    """Title', '\n    )\n    """Title', set()),
    "description of a parameter": (PARAMS, '"""Numbers drawn."""', '"""How many."""', set()),
    "new metric": (PARAMS, "METRICS = {", 'METRICS = {\n    "more": Metric("", "lower", "x"),', set()),
    "unrelated": ("flows/studies/bases/toy_constant.py", '"value": stage', '"values": stage', set()),
    "property of parameters": (PARAMS, '    """Seconds to sleep, for tests that need a slow stage."""',
                               "    @property\n    def twice(self):\n        return 2 * self.steps\n",
                               TRAIN | EVALUATE),
}  # fmt: skip
DIGESTS = """
import json, yaml
from pathlib import Path
from flows.engine.digests import write_digests
def digests():
    write_digests(".")
    return yaml.safe_load(Path("params/toy-0/digests.json").read_text())
"""
ONE = DIGESTS + "print(json.dumps(digests()))"
EACH = """
outcomes = {}
for name, (file, old, new) in json.loads(Path("edits.json").read_text()).items():
    text = Path(file).read_text()
    assert old in text, name
    Path(file).write_text(text.replace(old, new))
    outcomes[name] = digests()
    Path(file).write_text(text)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    root = make_workspace(tmp_path_factory.mktemp("copy"), papers=1, code=True)
    return root, json.loads(run_in(root, ONE))


@pytest.fixture(scope="module")
def outcomes(copy):
    root, _ = copy
    write(root, "edits.json", json.dumps({name: row[:3] for name, row in EDITS.items()}))
    return json.loads(run_in(root, DIGESTS + EACH))


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_makes_exactly_its_users_stale(copy, outcomes, name):
    _, before = copy
    after = outcomes[name]
    assert {unit for unit in before if before[unit]["code"] != after[unit]["code"]} == EDITS[name][3]
    assert {unit for unit in before if before[unit]["params"] != after[unit]["params"]} == set()


def test_a_changed_default_is_a_changed_parameter_and_no_changed_code(copy):
    root, before = copy
    edit(root, PARAMS, "Field(20, ge=1)", "Field(21, ge=1)")
    after = json.loads(run_in(root, ONE))
    edit(root, PARAMS, "Field(21, ge=1)", "Field(20, ge=1)")
    assert {unit: entry["code"] for unit, entry in after.items()} == {u: entry["code"] for u, entry in before.items()}
    assert {unit for unit in before if before[unit]["params"] != after[unit]["params"]} == TRAIN | EVALUATE
    assert after["plain-train-mean"]["params"]["steps"] == 21


def test_files_that_say_the_same_are_not_touched(copy):
    root, _ = copy
    run_in(root, ONE)
    files = [*root.glob("params/**/digests.json"), root / "params/code.lock"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    assert len(files) == 3
    assert run_in(root, "from flows.engine.digests import write_digests; print(write_digests('.'))").strip() == "[]"
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files} == before


def test_checking_says_what_would_change_and_writes_nothing(copy):
    root, _ = copy
    run_in(root, ONE)
    before = (root / "params/toy-0/digests.json").read_bytes()
    edit(root, "params/toy-0/paper.yaml", "median, rule: median}", "median, rule: median, spread: 3.0}")
    try:
        source = "from flows.engine.digests import write_digests\nprint(*write_digests('.', check=True))"
        assert run_in(root, source).strip() == "update params/toy-0/digests.json"
        assert (root / "params/toy-0/digests.json").read_bytes() == before
    finally:
        edit(root, "params/toy-0/paper.yaml", ", spread: 3.0}", "}")


def test_only_a_changed_claim_makes_the_judge_stale(copy):
    root, before = copy
    for old, new, stale in (("below: 3}", "below: 2}", True), ("story: The", "story: Once, the", False)):
        edit(root, "params/toy-0/paper.yaml", old, new)
        after = json.loads(run_in(root, ONE))
        edit(root, "params/toy-0/paper.yaml", new, old)
        changed = {unit for unit in before if before[unit] != after[unit]}
        assert changed == ({"plain-judge"} if stale else set())


def test_a_paper_without_code_is_named_and_does_not_keep_the_others_from_being_written(tmp_path):
    root = make_workspace(tmp_path, papers=1, code=True)
    study = root / "flows/studies/silent"
    study.mkdir()
    (study / "__init__.py").write_text("")
    (study / "params.py").write_text((root / PARAMS).read_text())
    text = (root / "params/toy-0/paper.yaml").read_text()
    write(root, "params/mute/paper.yaml", text.replace("toy-0", "mute").replace("study: toy", "study: silent"))
    source = textwrap.dedent("""
        from flows.engine.digests import CodeError, write_digests
        try:
            write_digests(".")
        except CodeError as error:
            print(error)
    """)
    message = run_in(root, source)
    assert "params/mute/dvc.yaml:plain-train-mean-s0: nothing to run; expected a function train(stage) in" in message
    assert (root / "params/toy-0/digests.json").is_file()
    assert not (root / "params/mute/digests.json").exists()


# --- the papers of this repository -----------------------------------------------------------------------------------


def test_importing_a_paper_loads_no_first_party_code_outside_its_closure():
    code = Code(REPOSITORY)
    for entries, modules in loaded_by_import(entries_of(REPOSITORY)).items():
        assert outside_closure(code, entries, modules) == set(), entries


@pytest.mark.slow
@pytest.mark.parametrize("slug", Workspace.load(REPOSITORY).slugs)
def test_running_a_paper_loads_no_first_party_code_outside_its_closure(slug, tmp_path):
    code = Code(REPOSITORY)
    for entries, modules in loaded_by_smoke(slug, tmp_path).items():
        assert outside_closure(code, entries, modules) == set(), entries
