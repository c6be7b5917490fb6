"""How a `dvc.lock` is read and spelled: as DVC does, whose YAML is 1.2, and entry by entry, since YAML is slow.

PyYAML knows YAML 1.1, in which 5e-05 is a text: a lock that it has read and written is another one to DVC.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_HEAD = "schema: '2.0'\nstages:\n"


def read_lock(path: Path) -> dict[str, Any]:
    """Return the content of a lock file."""
    from dvc.utils.serialize import load_yaml

    return load_yaml(path)


def spelled(name: str, entry: Any) -> str:
    """Return a stage's entry as it stands in a lock file."""
    from dvc.utils.serialize import dumps_yaml

    return dumps_yaml({"stages": {name: entry}}).removeprefix("stages:\n")


def lock_text(entries: Iterable[str]) -> str:
    """Return a lock file of entries that are spelled already."""
    return "".join([_HEAD, *entries])
