"""The chaos suite runs on the real, generated table; it has no stand-ins."""

from __future__ import annotations

from pathlib import Path


def make(name: str, directory: Path) -> None:
    """Refuse: there is no smoke profile to serve."""
    raise ValueError(f"the chaos study has no stand-in for {name!r}")


def make_base(name: str, directory: Path) -> None:
    """Refuse: the study uses no bases."""
    raise ValueError(f"the chaos study has no base {name!r}")
