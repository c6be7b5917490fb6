"""Splits that do not change when a data set grows: by the hash of an identifier, or by position in a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import accumulate


def by_hash(identifiers: Iterable[object], shares: Mapping[str, float], *, salt: str) -> list[str]:
    """Return the split of each identifier; equal identifiers share a split, and no row depends on another.

    An identifier's SHA-256 is read as a number u in [0, 1) and falls into the split whose cumulative share covers it.

    Args:
        identifiers: What must stay together, such as a group's name.
        shares: Share of each split, adding up to 1; the order matters.
        salt: Name of the data set, so that two data sets with the same identifiers are split independently.
    """
    names, bounds = list(shares), list(accumulate(shares.values()))
    # Rounding may leave the last bound just under 1.
    bounds[-1] = 1.0
    return [_split(_uniform(f"{salt}\0{identifier}"), names, bounds) for identifier in identifiers]


def by_position(text: str, shares: Mapping[str, float]) -> dict[str, str]:
    """Cut a text into consecutive parts, in the order of `shares` (adding up to 1); nothing is lost or doubled."""
    ends = [round(len(text) * bound) for bound in accumulate(shares.values())]
    ends[-1] = len(text)
    return {
        name: text[start:end] for name, start, end in zip(shares, [0, *ends[:-1]], ends, strict=True)
    }  # fmt: skip


def _uniform(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _split(value: float, names: list[str], bounds: list[float]) -> str:
    return next(name for name, bound in zip(names, bounds, strict=True) if value < bound)
