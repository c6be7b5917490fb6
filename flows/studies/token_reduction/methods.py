"""The methods that reduce tokens, chosen by name."""

from __future__ import annotations

import importlib
from typing import Any

from components.compression.merging.plan import Reducer
from flows.studies.token_reduction.params import METHODS, method_module

_SETTINGS: dict[str, tuple[str, ...]] = {
    "pitome": ("energy", "margin", "fall", "split"),
    "pitome_bsm": ("energy", "margin", "fall"),
    "tofu": ("dropping",),
}


def reducer(params: Any, **changes: Any) -> Reducer | None:
    """Return the method that parameters name, with the settings it has; None where nothing is to be reduced.

    Args:
        params: With `method` and the settings of all methods.
        changes: Settings to be used instead; those that the method does not have are left out.
    """
    if params.method not in METHODS:
        return None
    names = _SETTINGS.get(params.method, ())
    settings = {name: changes.get(name, getattr(params, name)) for name in names}
    return importlib.import_module(method_module(params.method)).build(**settings)
