"""What a study declares about itself in `flows/studies/<study>/params.py`, and how names turn into modules."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from components.errors import TesseraError, did_you_mean
from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class UnknownStudy(TesseraError):
    """No folder of flows/studies has this name."""


class StudyError(TesseraError):
    """A study's params module does not declare what every study declares."""


@dataclass(frozen=True)
class Study:
    """A study as its params module declares it.

    Attributes:
        name: Name as in YAML ("image-tokenizer").
        train_params: Model of what a train stage is given.
        evaluate_params: Subclass of it: what an evaluate stage is given.
        metrics: Every metric the study's stages may write, by name.
        components: `(params, kind) -> modules` that an arm chooses by name and that are imported dynamically.
    """

    name: str
    train_params: type[StudyParams]
    evaluate_params: type[StudyParams]
    metrics: Mapping[str, Metric]
    components: Callable[[StudyParams, str], tuple[str, ...]]


@dataclass(frozen=True)
class Recipe:
    """How one kind of base artefact is made: its parameters, and the modules they choose by name."""

    name: str
    params: type[StudyParams]
    components: Callable[[StudyParams, str], tuple[str, ...]]


def python_name(name: str) -> str:
    """Turn a slug or a study's name into a module's: `one-d-piece` to `one_d_piece`, `4m-21` to `paper_4m_21`."""
    python = name.replace("-", "_")
    return f"paper_{python}" if python[0].isdigit() else python


def _folders(package: str) -> list[str]:
    """Return where a package lies; by name, since declarations stand below the studies and import none."""
    return list(importlib.import_module(package).__path__)


def study_names() -> list[str]:
    """Return the name of every study that has a params module, sorted."""
    packages = [found.name for found in pkgutil.iter_modules(_folders("flows.studies")) if found.ispkg]
    return sorted(name.replace("_", "-") for name in packages if _exists(params_module(name)))


def own_params(study: str) -> list[str]:
    """Return the slugs of the papers of a study that have a params module of their own, sorted."""
    package = f"flows.studies.{python_name(study)}"
    folders = [found.name for found in pkgutil.iter_modules(_folders(package)) if found.ispkg]
    return sorted(
        folder.removeprefix("paper_").replace("_", "-") for folder in folders if _exists(f"{package}.{folder}.params")
    )


def recipe_names() -> list[str]:
    """Return the name of every recipe for bases that has a params module, sorted."""
    modules = [found.name for found in pkgutil.iter_modules(_folders("flows.studies.bases"))]
    return sorted(module.removesuffix("_params") for module in modules if module.endswith("_params"))


def params_module(study: str, slug: str = "") -> str:
    """Return the module that declares the parameters of a study, or of one paper in it where the paper has its own."""
    package = f"flows.studies.{python_name(study)}"
    own = f"{package}.{python_name(slug)}.params" if slug else ""
    return own if own and _exists(own) else f"{package}.params"


def recipe_params_module(recipe: str) -> str:
    """Return the module that declares the parameters of a recipe for bases."""
    return f"flows.studies.bases.{recipe}_params"


def entry_candidates(study: str, slug: str, kind: str) -> tuple[str, str]:
    """Return the modules that may hold a stage's function: the paper's own first, then the study's."""
    package = f"flows.studies.{python_name(study)}"
    return f"{package}.{python_name(slug)}.{kind}", f"{package}.{kind}"


def entry_module(study: str, slug: str, kind: str) -> str | None:
    """Return the module that holds a stage's function, None where neither the paper nor the study has one."""
    return next((module for module in entry_candidates(study, slug, kind) if _exists(module)), None)


@functools.cache
def load_study(name: str, slug: str = "") -> Study:
    """Import a study's params module and check that it is complete.

    A paper whose experiment needs other parameters than its study's has a params module of its own, with its own
    `TrainParams`, `EvaluateParams` and `components`; its `METRICS` are added to the study's.

    Args:
        name: Name of the study.
        slug: The paper whose stages are meant; "" for the study itself.

    Raises:
        UnknownStudy: There is no such study.
        StudyError: The params module lacks a part or has one of the wrong type, or redefines a metric of the study.
    """
    if not _exists(params_module(name)):
        known = study_names()
        raise UnknownStudy(f"{name!r} is no study; expected one of {', '.join(known)}.{did_you_mean(name, known)}")
    shared = importlib.import_module(params_module(name))
    module = importlib.import_module(params_module(name, slug))
    train, evaluate = _model(module, "TrainParams"), _model(module, "EvaluateParams")
    if not issubclass(evaluate, train):
        raise StudyError(f"{module.__name__}: EvaluateParams must be a subclass of TrainParams.")
    metrics = _metrics(shared)
    if module is not shared:
        own = _metrics(module)
        if changed := sorted(metric for metric in own if metrics.get(metric, own[metric]) != own[metric]):
            raise StudyError(
                f"{module.__name__}: METRICS gives {changed} another meaning than the study; one name means one thing "
                "in a study, so rename it."
            )
        metrics = {**metrics, **own}
    return Study(name, train, evaluate, metrics, _components(module))


def _metrics(module: object) -> dict[str, Metric]:
    metrics = getattr(module, "METRICS", None)
    if not isinstance(metrics, dict) or not all(isinstance(metric, Metric) for metric in metrics.values()):
        raise StudyError(f"{module.__name__}: METRICS must be a dict of name to flows.declarations.metric.Metric.")
    return metrics


@functools.cache
def load_recipe(name: str) -> Recipe:
    """Import the parameters of a recipe for bases.

    Raises:
        UnknownStudy: There is no such recipe.
        StudyError: Its params module lacks `Params`.
    """
    if not name.isidentifier() or not _exists(recipe_params_module(name)):
        known = recipe_names()
        raise UnknownStudy(f"{name!r} is no recipe; expected one of {', '.join(known)}.{did_you_mean(name, known)}")
    module = importlib.import_module(recipe_params_module(name))
    return Recipe(name, _model(module, "Params"), _components(module))


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package on the way does not exist
        return False


def _model(module: object, name: str) -> type[StudyParams]:
    model = getattr(module, name, None)
    if not (isinstance(model, type) and issubclass(model, StudyParams)):
        raise StudyError(f"{module.__name__}: {name} must be a subclass of flows.declarations.parameters.StudyParams.")
    return model


def _components(module: object) -> Callable[[StudyParams, str], tuple[str, ...]]:
    chosen = getattr(module, "components", None)
    if chosen is None:
        return _no_components
    if not callable(chosen):
        raise StudyError(f"{module.__name__}: components must be a function (params, kind) -> names of modules.")
    return chosen


def _no_components(params: StudyParams, kind: str) -> tuple[str, ...]:
    return ()
