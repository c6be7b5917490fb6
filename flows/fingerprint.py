"""The numeric fingerprint of an arm: `python -m flows.fingerprint SLUG VARIANT ARM`.

Trains the arm for 20 steps on its stand-in data with a fixed seed, evaluates it once, and hashes every byte of both
outputs. Two versions of the code share a fingerprint only when they compute the same numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import tempfile
from pathlib import Path

from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage

STEPS = 20


def fingerprint(root: Path, slug: str, variant: str, arm: str) -> str:
    """Return the fingerprint of one arm with the code of this process.

    Args:
        root: The workspace whose declarations are used.
        slug: The paper.
        variant: Its variant.
        arm: Its arm.

    Returns:
        64 hexadecimal digits.
    """
    workspace = Workspace.load(root)
    paper = workspace.paper(slug)
    values = {"steps": STEPS} if "steps" in load_study(paper.study, paper.slug).train_params.model_fields else {}
    total = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="tessera-fingerprint-") as under:
        make_stand_ins(root, paper, variant, under)
        for spec in smoke_plan(paper, variant, under):
            if spec.arm not in (arm, paper.model_of(arm)) or spec.kind not in ("train", "evaluate"):
                continue
            run_stage(root, dataclasses.replace(spec, seed=0), set_values=values)
            output = Path(under) / spec.output
            for path in sorted(output.rglob("*")):
                if path.is_file():
                    total.update(f"{spec.kind} {spec.arm} {path.relative_to(output)}\n".encode())
                    total.update(path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    print(fingerprint(Path.cwd(), *sys.argv[1:4]))
