"""Every command that a document tells people to type runs: in a copy of this repository, block by block.

What takes minutes, needs a server or starts one is replaced by the nearest thing that ends at once and still fails when
the command, its target or one of its options does not exist (`REPLACED`). The guide to a paper of one's own is followed
to the letter in test_guide.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from documents import ALL_BLOCKS, GUIDE, PATHS, Block
from tracked import ROOT, files, text
from workspace import command, write

LANGUAGES = {"sh", "python", "yaml", "text"}
# (pattern, replacement, why it is not run as it stands)
REPLACED = (
    (r"make (\w+(?: \w+=\S+)?)", r"make --dry-run \1", "minutes to hours; a dry run needs all that the target names"),
    (r"(tessera reproduce .*)", r"\1 --dry-run", "minutes; the dry run checks declarations and plans every stage"),
    (r"(tessera verify (?!.*--dry-run).*)", r"\1 --dry-run", "reruns papers; the dry run finds what would be rerun"),
    (r"dvc repro (.*)", r"dvc status \1", "minutes, and data; the status finds the same stages"),
    (r"tessera doctor", "tessera doctor || test $? = 1", "its exit code speaks about this machine"),
    (r"tessera ask .*", "tessera ask --help", "needs a data set that is made first; tests/flows/test_asking.py asks"),
    (r"tessera try .*", "tessera try --help", "trains; tests/flows/test_reproduction.py runs one"),
    (r"(mlflow (?:ui|server)|prefect server start|prefect worker start|ray start)\b(.*)", r"\1 --help", "a server"),
    (r"tessera serve (\w+)(.*)", r"tessera serve \1 --help", "a server; test_serving.py starts each"),
    (r"ray up (\S+)", r"test -f \1", "machines to connect to; tests/infra validates the file"),
    (r"docker build .*", "test -f infra/image/Dockerfile", "a container engine; tests/infra checks the files"),
    (r"docker compose .*", "test -f infra/compose/compose.yaml", "a container engine; tests/infra checks the files"),
    (r"kubectl .* --filename (\S+)", r"test -f \1", "a Kubernetes cluster; tests/infra checks the files"),
    (r"(?:ssh|pipx run) .*", "true", "another machine, or a package that is not locked"),
    (r"(export \w+=\"?\$\(openssl).*", "true", "a secret for a server that is not started"),
    (r"(ray job submit)\b(.*)", r"\1 --help", "needs a cluster; tests/cluster submits one"),
    (r"tessera track .*", "tessera track --help", "needs a database; test_mlflow_migration.py moves one"),
    (r"(prefect (?:deploy|work-pool create|work-pool set-concurrency-limit|deployment run))\b(.*)", r"\1 --help",
     "needs a Prefect server"),
)  # fmt: skip
SERVERS = re.compile(r"^(?:mlflow|prefect|ray) ", re.MULTILINE)
COMMANDS = [block for block in ALL_BLOCKS if block.language == "sh" and block.section != GUIDE]


def replaced(line: str) -> str:
    """Return what is run for one line of a document."""
    bare = line.split("#")[0].strip()
    for pattern, instead, _ in REPLACED:
        if re.fullmatch(pattern, bare):
            return re.sub(pattern, instead, bare)
    return bare


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of what git tracks here, as a repository of its own, with the log of a stage that ran."""
    root = tmp_path_factory.mktemp("checkout") / "tessera"
    for path in files():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, root / path)
    command(root, "git", "init", "-q", "-b", "main")
    command(root, "git", "add", "-A")
    command(root, "git", "commit", "-q", "-m", "copy")
    write(root, "runs/one-d-piece/cifar10/judge/log/log.txt", "it ran\n")
    return root


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(block, id=block.name, marks=[pytest.mark.slow] if SERVERS.search(block.body) else [])
        for block in COMMANDS
    ],
)
def test_the_commands_of_a_block_run(block: Block, checkout: Path):
    lines = [line for line in block.body.splitlines() if line.split("#")[0].strip()]
    script = "\n".join(["set -e", *map(replaced, lines)])
    done = command(checkout, "bash", "-c", script, check=False, timeout=280)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    said = done.stdout + done.stderr
    for line in lines:
        if replaced(line).endswith("--help") and not line.startswith("tessera"):
            missing = [word for word in shlex.split(line, comments=True) if word.startswith("--") and word not in said]
            assert missing == [], line


def test_every_replacement_is_needed_and_says_why():
    lines = [line.split("#")[0].strip() for block in COMMANDS for line in block.body.splitlines()]
    unused = [
        pattern for pattern, _, why in REPLACED if not why or not any(re.fullmatch(pattern, line) for line in lines)
    ]
    assert unused == []


def test_every_block_says_what_it_is_and_no_command_hides_in_another_form():
    assert [block.name for block in ALL_BLOCKS if block.language not in LANGUAGES] == []
    starts = re.compile(r"^(?: {4,}|\t|\$ )(?:tessera|make|dvc|mlflow|prefect|ray|git|pip|python) ")
    hidden = [f"{path}: {line.strip()}" for path in PATHS for line in text(path).splitlines() if starts.match(line)]
    assert hidden == []


def test_the_documents_have_commands():
    documents = {str(block.document) for block in COMMANDS}
    assert {
        "README.md",
        "CONTRIBUTING.md",
        *(f"docs/{name}.md" for name in ("architecture", "claims", "cluster", "data")),
    } <= documents
