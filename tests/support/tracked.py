"""The files that git tracks, read once for all tests of the project."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = {".parquet", ".safetensors", ".png", ".jpg", ".npz", ".wav", ".flac", ".gz"}


@functools.cache
def files() -> tuple[Path, ...]:
    """Every tracked file that exists, relative to the top."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())


@functools.cache
def text(path: Path) -> str:
    """The content of a tracked text file."""
    return (ROOT / path).read_text(encoding="utf-8")


@functools.cache
def texts() -> tuple[Path, ...]:
    """Every tracked file that is not binary by its name."""
    return tuple(path for path in files() if path.suffix not in BINARY)


@functools.cache
def modules() -> tuple[Path, ...]:
    """Every tracked Python file."""
    return tuple(path for path in files() if path.suffix == ".py")


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a tracked Python file."""
    return ast.parse(text(path), str(path))
