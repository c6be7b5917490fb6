"""Compiled files that are touched only when their content changes."""

from __future__ import annotations

from pathlib import Path

from components.training.atomic import write_bytes


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file atomically unless it already holds `content`, so that an unchanged file keeps its time stamp.

    Returns:
        Whether the file changed.
    """
    try:
        if path.read_bytes() == content:
            return False
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return True
