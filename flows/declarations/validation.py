"""Pydantic models filled from YAML documents, with every fault put into words and placed at its line."""

from __future__ import annotations

import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import did_you_mean
from flows.declarations.document import Document, Location, describe, dotted
from flows.declarations.problems import DeclarationError, Problem

Model = TypeVar("Model", bound=BaseModel)


class Declaration(BaseModel):
    """Root of everything declared in YAML: unknown keys are refused, values frozen, nothing is converted."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        validate_default=True,
    )


def fill(model: type[Model], document: Document, location: Location = ()) -> Model:
    """Validate the value at `location` of a document as a `model`.

    Raises:
        DeclarationError: Listing every fault with its line.
    """
    value: Any = document.data
    for step in location:
        value = value[step]
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise DeclarationError(problems_of(error, model, document, location)) from None


def problems_of(error: ValidationError, model: type[BaseModel], document: Document, at: Location = ()) -> list[Problem]:
    """Put a pydantic error into our words, one problem for each fault."""
    faults: dict[tuple[Location, str], list[dict[str, Any]]] = {}
    for fault in error.errors(include_url=False):
        location = _in_document(fault["loc"], document, at)
        missing = str(fault["loc"][-1]) if fault["type"] == "missing" else ""
        faults.setdefault((location, missing), []).append(fault)
    problems = []
    for (location, missing), here in faults.items():
        if missing:
            words = f"{missing!r} is missing; expected {_meaning(model, here[0]['loc'])}."
        else:
            words = _message(here, allowed_keys(model, here[0]["loc"][:-1]))
        problems.append(Problem(document.path, document.line(location), dotted(location), words))
    return problems


def _message(faults: list[dict[str, Any]], allowed: list[str]) -> str:
    """Join the faults of one value: a union complains once for each of its members."""
    if len(faults) > 1 and all(fault["type"] in _EXPECTED for fault in faults):
        expected = dict.fromkeys(_EXPECTED[fault["type"]] for fault in faults)
        return f"expected {' or '.join(expected)}, got {describe(faults[0].get('input'))}."
    return " ".join(dict.fromkeys(fault_message(fault, allowed) for fault in faults))


def _in_document(location: Location, document: Document, at: Location) -> Location:
    """Drop the steps that pydantic adds (the tag of a union) and that a file does not hold."""
    value: Any = document.data
    for step in at:
        value = value[step]
    kept = list(at)
    for step in location:
        if (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        ):
            value = value[step]
            kept.append(step)
    return tuple(kept)


def fault_message(fault: dict[str, Any], allowed: list[str]) -> str:
    """Say in a sentence what was given, what was expected and what is probably meant.

    Args:
        fault: One entry of `ValidationError.errors()`.
        allowed: Keys allowed beside the faulty one, for unknown keys.
    """
    kind, given, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    got = describe(given)
    if kind == "extra_forbidden":
        name = str(fault["loc"][-1])
        return f"unknown key; expected one of {', '.join(allowed)}.{did_you_mean(name, allowed)}"
    if kind == "literal_error":
        choices = context["expected"].replace(" or ", ", ")
        names = [choice.strip().strip("'") for choice in choices.split(",")]
        return f"expected one of {', '.join(names)}, got {got}.{did_you_mean(str(given), names)}"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {got}."
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        bound = f"{context[key]:g}" if isinstance(context[key], float) else context[key]
        return f"expected {word} {bound}, got {got}."
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    message = fault["msg"]
    return f"{message[:1].lower()}{message[1:]}, got {got}."


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "date_from_datetime_parsing": "a date (YYYY-MM-DD)",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than": ("a number above", "gt"),
    "greater_than_equal": ("a number of at least", "ge"),
    "less_than": ("a number below", "lt"),
    "less_than_equal": ("a number of at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
    "too_short": ("a number of entries of at least", "min_length"),
    "too_long": ("a number of entries of at most", "max_length"),
    "string_too_short": ("a number of characters of at least", "min_length"),
    "string_pattern_mismatch": ("text of the form", "pattern"),
}


def allowed_keys(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that the model at a location inside `model` accepts."""
    found = _model_at(model, location)
    return field_names(found) if found else []


def field_names(model: type[BaseModel]) -> list[str]:
    """Return a model's keys as they are spelled in YAML."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _meaning(model: type[BaseModel], location: Location) -> str:
    parent = _model_at(model, location[:-1])
    for name, field in (parent.model_fields if parent else {}).items():
        if location[-1] in (name, field.alias):
            says = (field.description or "a value").strip()
            return says[:1].lower() + says[1:].split("\n\n")[0].replace("\n", " ").rstrip(".")
    return "a value"


def _model_at(annotation: Any, location: Location) -> type[BaseModel] | None:
    """Follow a location through nested annotations; a step that names no field is a union's tag and is skipped."""
    models = _models_in(annotation)
    if not location:
        return models[0] if models else None
    step, rest = location[0], location[1:]
    for model in models:
        for name, field in model.model_fields.items():
            if step in (name, field.alias):
                return _model_at(field.annotation, rest)
    tagged = next((model for model in models if _is_tag(step, model)), None)
    if tagged is not None:
        return _model_at(tagged, rest)
    item = _item_type(annotation)
    return _model_at(item, rest) if item is not None else None


def _is_tag(step: str | int, model: type[BaseModel]) -> bool:
    """Tell whether a union calls a model by this word: its class name, or the value of a field that can be no other."""
    literals = (typing.get_args(field.annotation) for field in model.model_fields.values())
    return str(step).replace("_", "").lower() == model.__name__.lower() or (step,) in literals


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _models_in(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [model for option in typing.get_args(annotation) for model in _models_in(option)]
    return []


def _item_type(annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        options = [_item_type(option) for option in arguments]
        return next((option for option in options if option is not None), None)
    if origin is tuple:
        return arguments[0]
    return arguments[1] if origin is dict else None
