"""What the documents tell people to type, open or cite exists."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from documents import ALL_BLOCKS, blocks
from tracked import ROOT, files, text, tree

DOCUMENTS = [path for path in files() if path.suffix == ".md" and path.parts[0] not in ("bases", "results")]
COMMANDS_IN = [*DOCUMENTS, *(path for path in files() if path.name in ("Makefile", "prefect.yaml"))]
TOP_FOLDERS = ("components", "flows", "params", "infra", "tests", "results", "bases")


def commands() -> dict[str, set[str]]:
    """The commands of `tessera` and the options of each, read from flows/cli.py without importing it."""
    options_by_alias = {
        target.id: _options(node.value)
        for node in tree(Path("flows/cli.py")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = {}
    for node in tree(Path("flows/cli.py")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "app.command":
                name = decorator.args[0].value if decorator.args else node.name.replace("_", "-")
                options = {"--help"}
                for argument in node.args.args:
                    annotation = argument.annotation
                    if isinstance(annotation, ast.Name):
                        options |= options_by_alias.get(annotation.id, set())
                    else:
                        options |= _options(annotation)
                found[name] = options
    return found


def _options(node: ast.AST) -> set[str]:
    return {
        constant.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "typer.Option"
        for constant in call.args
        if isinstance(constant, ast.Constant) and str(constant.value).startswith("--")
    }


def code_of(path: Path) -> list[str]:
    """The pieces of a document that are code: inline spans (joined over line ends), indented lines, typed commands."""
    content = text(path)
    if path.suffix != ".md":
        return content.splitlines()
    typed = [block for block in blocks(path) if block.language == "sh"]
    lines = [line.split("#")[0] for block in typed for line in block.body.splitlines()]
    prose = re.sub(r"^```.*?^```", "", content, flags=re.MULTILINE | re.DOTALL)
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
    return spans + lines + [line for line in prose.splitlines() if line.startswith("    ")]


def test_every_command_of_tessera_in_the_documents_exists_with_its_options():
    known = commands()
    assert "reproduce" in known
    unknown = []
    for path in COMMANDS_IN:
        for code in code_of(path):
            for command, rest in re.findall(r"(?:^|[\s/(])tessera ([a-z][a-z-]*)([^|;&#`]*)", code):
                if command not in known:
                    unknown.append(f"{path}: tessera {command}")
                    continue
                options = set(re.findall(r"(?<!\S)(--[a-z-]+)", rest))
                unknown += [f"{path}: tessera {command} {option}" for option in options - known[command]]
    assert unknown == []


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z]+):", text(Path("Makefile")), re.MULTILINE))
    named = {
        (str(path), target)
        for path in DOCUMENTS
        for code in code_of(path)
        for target in re.findall(r"(?:^|\s)make ([a-z]+)", code)
    }
    assert named
    assert [f"{path}: make {target}" for path, target in sorted(named) if target not in targets] == []


def test_every_module_that_the_documents_run_exists():
    named = {
        module for path in DOCUMENTS for code in code_of(path) for module in re.findall(r"python -m ([\w.]+)", code)
    }
    assert [module for module in named if importlib.util.find_spec(module) is None] == []


def test_every_path_of_the_project_in_the_documents_exists():
    tracked = {str(path) for path in files()} | {str(folder) for path in files() for folder in path.parents}
    tracked |= {block.file for block in ALL_BLOCKS}  # what the guide lets a reader write
    missing = []
    for path in DOCUMENTS:
        for code in code_of(path):
            for named in re.findall(rf"(?<![\w./-])((?:{'|'.join(TOP_FOLDERS)})/[\w./-]+)", code):
                named = named.rstrip("/.")
                # A place holder ends the path that can be checked.
                cut = code[code.index(named) + len(named) :][:2]
                if "<" in cut or "*" in cut:
                    named = named.rpartition("/")[0] if not cut.startswith("/") else named
                if named not in tracked and not (ROOT / named).exists():
                    missing.append(f"{path}: {named}")
    assert missing == []


def test_every_relative_link_leads_somewhere():
    broken = [
        f"{path}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(path))
        if not (ROOT / path.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "LICENSE"])
def test_the_documents_that_people_look_for_are_there(name):
    assert Path(name) in files()


def test_licence_and_version_are_the_same_everywhere():
    project = tomllib.loads(text(Path("pyproject.toml")))["project"]
    citation = yaml.safe_load(text(Path("CITATION.cff")))
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert project["version"] == citation["version"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert "Apache License" in text(Path("LICENSE"))
    assert "END OF TERMS AND CONDITIONS" in text(Path("LICENSE"))


def test_the_deployments_start_a_flow_that_exists_with_parameters_that_it_takes():
    declared = yaml.safe_load(text(Path("prefect.yaml")))
    assert [step for step in declared["pull"] if "git_clone" in str(step)] == []
    for deployment in declared["deployments"]:
        file, _, name = deployment["entrypoint"].partition(":")
        (function,) = [
            node for node in tree(Path(file)).body if isinstance(node, ast.FunctionDef) and node.name == name
        ]
        assert any("flow" in ast.unparse(decorator) for decorator in function.decorator_list)
        assert deployment["parameters"].keys() <= {argument.arg for argument in function.args.args}
        for schedule in deployment["schedules"]:
            assert re.fullmatch(r"(\S+ ){4}\S+", schedule["cron"])
    assert [deployment["name"] for deployment in declared["deployments"]] == [
        "nightly-smoke",
        "weekly-small",
        "on-demand",
    ]


def test_the_prefect_version_of_the_deployments_is_the_locked_one():
    declared = yaml.safe_load(text(Path("prefect.yaml")))
    assert f"prefect=={declared['prefect-version']}\n" in text(Path("infra/requirements.lock"))
