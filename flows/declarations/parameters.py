"""The root of every study's typed parameters."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class StudyParams(BaseModel):
    """Base of a study's `TrainParams` and, through it, of its `EvaluateParams`.

    Fields are flat: numbers, strings, booleans, `Literal`s and tuples of them. Each has a default, its bounds and a
    description (`Field(..., description="...")` or a docstring under the field), which the published JSON Schema shows
    in editors. Unknown names are refused, values are frozen, and nothing is converted: `"3"` is no number and `true`
    no integer. Only a YAML list becomes a tuple, and a whole number is accepted where a float is expected.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_become_tuples(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: _frozen(value) if name in cls.model_fields else value for name, value in values.items()}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
