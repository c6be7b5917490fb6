"""How the stages of a `dvc.lock` are spelled: as DVC does, entry by entry, since YAML is slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_HEAD = "schema: '2.0'\nstages:\n"


def spelled(name: str, entry: Any) -> str:
    """Return a stage's entry as it stands in a lock file."""
    from dvc.utils.serialize import dumps_yaml

    return dumps_yaml({"stages": {name: entry}}).removeprefix("stages:\n")


def lock_text(entries: Iterable[str]) -> str:
    """Return a lock file of entries that are spelled already."""
    return "".join([_HEAD, *entries])
