"""The numeric fingerprint on real code: blind to how the transformer is written, sharp for what it computes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRANSFORMER = "components/nn/transformer.py"


@pytest.fixture
def tree(tmp_path):
    ignore = shutil.ignore_patterns("__pycache__", "results", "runs")
    for folder in ("components", "flows", "params"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    return tmp_path


def fingerprint(tree: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.fingerprint", "tokenization-bias", "markov", "mpc_x1"],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def edit(tree: Path, old: str, new: str) -> None:
    text = (tree / TRANSFORMER).read_text()
    assert old in text
    (tree / TRANSFORMER).write_text(text.replace(old, new))


def test_a_refactored_transformer_keeps_its_fingerprint_and_a_changed_constant_does_not(tree):
    before = fingerprint(tree)
    line = "return self.output(heads.transpose(1, 2).flatten(-2))"
    edit(tree, line, "merged = heads.transpose(1, 2).flatten(-2)\n        return self.output(merged)")
    assert fingerprint(tree) == before
    edit(tree, "return self.output(F.gelu(hidden))", "return self.output(F.gelu(hidden) * 1.0001)")
    assert fingerprint(tree) != before
