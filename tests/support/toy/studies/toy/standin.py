"""Stand-ins for smoke runs of the toy study."""

from __future__ import annotations

import json
from pathlib import Path


def make(name: str, directory: Path) -> None:
    """The toy study reads no data set."""
    raise ValueError(f"the toy study has no data set {name!r}")


def make_base(name: str, directory: Path) -> None:
    """Write a base with the schema of `toy_constant`."""
    (directory / "model.json").write_text(json.dumps({"value": 1.0}), encoding="utf-8")
