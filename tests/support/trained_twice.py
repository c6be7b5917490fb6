"""Training in two processes that differ in whatever may differ: hash seeds and threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PREAMBLE = """import sys
from pathlib import Path
from components.tokenizers.text.bpe import WORD_PIECES
from {module} import train
text = Path(sys.argv[1]).read_text()
"""


def assert_same_bytes(folder: Path, module: str, text: str, trainings: Mapping[str, str]) -> None:
    """Assert that every training saves the same bytes in both processes.

    Args:
        folder: Empty folder to work in.
        module: Module of a tokenizer, with a function `train`.
        text: What the trainings read as `text`.
        trainings: Expressions that make a tokenizer, by name.
    """
    (folder / "text").write_text(text)
    saves = [f"{training}.save(Path(sys.argv[2] + '.{name}'))\n" for name, training in trainings.items()]
    program = _PREAMBLE.format(module=module) + "".join(saves)
    for process, hash_seed, threads in (("one", "1", "1"), ("two", "2", "4")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "RAYON_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", program, folder / "text", folder / process], check=True, env=environment)
    for name in trainings:
        assert (folder / f"one.{name}").read_bytes() == (folder / f"two.{name}").read_bytes(), name
