"""The root of every error that Tessera raises on purpose."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TesseraError(Exception):
    """An error a user can act on: its message says what, where, what was expected and how to fix it.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = 2


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `choices`, or an empty string when nothing is near."""
    near = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
