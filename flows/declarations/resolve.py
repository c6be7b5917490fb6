"""From a paper's layers of values to the typed parameters of one stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from components.errors import did_you_mean
from flows.declarations.document import Location, dotted
from flows.declarations.paper import Paper
from flows.declarations.parameters import StudyParams
from flows.declarations.problems import DeclarationError, Problem
from flows.declarations.study import Study, load_study
from flows.declarations.validation import fault_message, field_names

Kind = Literal["train", "evaluate"]

_OVERRIDE: Location = ("--set",)


def resolve(
    paper: Paper,
    variant: str,
    arm: str,
    profile: str,
    kind: Kind,
    overrides: Mapping[str, Any] | None = None,
) -> StudyParams:
    """Merge the layers of one arm into typed parameters, later layers over earlier ones.

    Study defaults < profile (small, or full) < variant < training parameters of the arm whose model is used < arm <
    smoke (only at profile smoke) < overrides.

    Args:
        paper: The declaration.
        variant: Name of a variant.
        arm: Name of an arm.
        profile: "smoke", "small" or "full".
        kind: "train" for the study's TrainParams, "evaluate" for its EvaluateParams.
        overrides: Values for an exploratory run: by name for every arm ("steps") or for one ("arms.no_drop.steps").

    Raises:
        DeclarationError: A value has the wrong type, is out of bounds, or is no parameter of the study.
    """
    study = load_study(paper.study, paper.slug)
    model = study.train_params if kind == "train" else study.evaluate_params
    found = _layers(paper, study, variant, arm, profile)
    found.append((_OVERRIDE, _overrides_of(paper, study, arm, overrides or {})))
    values = {name: value for _, layer in found for name, value in layer.items()}
    if kind == "train":
        # Only what exists: a name that is no parameter at all is refused by the fuller model.
        evaluate_only = study.evaluate_params.model_fields.keys() - model.model_fields.keys()
        values = {name: value for name, value in values.items() if name not in evaluate_only}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise DeclarationError(_problems(error, paper, model, found, (variant, arm, profile))) from None


def _layers(
    paper: Paper, study: Study, variant: str, arm: str, profile: str
) -> list[tuple[Location, Mapping[str, Any]]]:
    scale = "full" if profile == "full" else "small"
    declared = paper.arms[arm]
    layers: list[tuple[Location, Mapping[str, Any]]] = []
    if scale in paper.profiles:
        layers.append((("profiles", scale), paper.profiles[scale].parameters))
    layers.append((("variants", variant), paper.variants[variant].parameters))
    if declared.uses in paper.arms:
        # The model was trained with these, so its evaluation must be told the same.
        trained = paper.arms[declared.uses].parameters
        training = study.train_params.model_fields
        layers.append((("arms", declared.uses), {name: value for name, value in trained.items() if name in training}))
    layers.append((("arms", arm), declared.parameters))
    if profile == "smoke" and "smoke" in paper.profiles:
        layers.append((("profiles", "smoke"), paper.profiles["smoke"].parameters))
    return layers


def _overrides_of(paper: Paper, study: Study, arm: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    known = field_names(study.evaluate_params)
    for key, value in overrides.items():
        owner, name = "", key
        if key.startswith("arms."):
            _, owner, name = [*key.split(".", 2), ""][:3]
            if owner not in paper.arms:
                words = f"{owner!r} is no arm of {paper.slug}.{did_you_mean(owner, paper.arms)}"
                raise DeclarationError([Problem(f"--set {key}", None, "", words)])
        if name not in known:
            words = f"{name!r} is no parameter of study {study.name}; expected one of {', '.join(known)}."
            raise DeclarationError([Problem(f"--set {key}", None, "", words + did_you_mean(name, known))])
        if owner in ("", arm):
            values[name] = value
    return values


def _problems(
    error: ValidationError,
    paper: Paper,
    model: type[StudyParams],
    found: list[tuple[Location, Mapping[str, Any]]],
    stage: tuple[str, str, str],
) -> list[Problem]:
    """Place each fault at the layer that set the value: the last one that names it."""
    problems = []
    variant, arm, profile = stage
    for fault in error.errors(include_url=False):
        name = fault["loc"][0] if fault["loc"] else ""
        layer = next((location for location, values in reversed(found) if name in values), ("arms", arm))
        allowed = field_names(model)
        words = fault_message(fault, allowed)
        if not fault["loc"]:
            words = f"variant {variant}, profile {profile}: {words}"
        if layer == _OVERRIDE:
            problems.append(Problem(f"--set {dotted(fault['loc'])}", None, "", words))
            continue
        location = (*layer, *fault["loc"])
        problems.append(Problem(paper.path, paper.line(location), dotted(location), words))
    return problems
