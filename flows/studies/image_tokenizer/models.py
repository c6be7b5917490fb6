"""The tokenizer that a study's parameters describe."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from components.bases import specification
from flows.declarations.parameters import StudyParams
from flows.studies.image_tokenizer.params import TrainParams


def tokenizer_description(params: TrainParams, **parts: Any) -> dict[str, Any]:
    """Return the description (components.bases) of the tokenizer and its quantizer.

    A tokenizer's or quantizer's module names, in the signature of its `build`, the parameters it takes; those are read
    from `params` by name.

    Args:
        params: Parameters of the study.
        parts: Further arguments of the tokenizer's `build`, such as descriptions of other parts.
    """
    quantizer = described(f"components.quantizers.{params.quantizer}", params, {})
    return described(f"components.tokenizers.image.{params.tokenizer}", params, {"quantizer": quantizer, **parts})


def described(module: str, params: StudyParams, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of what a module's `build` makes, its arguments read from `params` by name.

    Args:
        module: A module of `components`.
        params: Parameters; those that the signature of `build` names are passed on.
        parts: Arguments that are no parameters, such as descriptions of other parts.
    """
    names = inspect.signature(importlib.import_module(module).build).parameters
    given = {name: getattr(params, name) for name in names if name in type(params).model_fields and name not in parts}
    return specification(module, **given, **parts)
