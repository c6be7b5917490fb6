"""Functions that a declaration names; each writes a data set's tables into a directory.

A converter is called as `convert(paths, directory)` with the fetched files by name, a package reader and a generator
as `function(directory, **parameters)`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from components.data.declaration import GeneratorSource, PackageSource
from components.data.errors import DeclarationError, SourceUnavailable


def resolve(function: str) -> Callable[..., None]:
    """Return the function named by a dotted name inside `components.data`.

    What a module merely imports does not count: a parameter file could otherwise name any function of any library.

    Raises:
        DeclarationError: There is no such module or function.
    """
    module_name, _, attribute = function.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        if attribute.startswith("_") or not inspect.isfunction(found) or found.__module__ != module_name:
            raise AttributeError(f"{attribute!r} is no function that {module_name} defines for others")
        return found
    except (ModuleNotFoundError, AttributeError) as error:
        raise DeclarationError(
            f"params/data.yaml names the function {function!r}, which does not exist ({error}). "
            "Expected a function of a module in components/data; correct its spelling."
        ) from error


def missing_packages(source: PackageSource) -> str | None:
    """Return which packages of a source are not installed, or None."""
    absent = []
    for package in source.packages:
        try:
            version(package)
        except PackageNotFoundError:
            absent.append(package)
    return f"not installed: {', '.join(absent)}" if absent else None


def run(source: PackageSource | GeneratorSource, directory: Path) -> None:
    """Let the function of a package or generator source write its tables into `directory`.

    Raises:
        SourceUnavailable: A package is not installed.
        DeclarationError: There is no such function, or it does not take the declared parameters.
    """
    if isinstance(source, PackageSource) and (reason := missing_packages(source)):
        raise SourceUnavailable(reason)
    function = resolve(source.function)
    try:
        call = inspect.signature(function).bind(directory, **source.parameters)
    except TypeError as error:
        raise DeclarationError(
            f"params/data.yaml calls {source.function} with {sorted(source.parameters)}: {error}. "
            f"Expected the parameters {inspect.signature(function)}."
        ) from error
    function(*call.args, **call.kwargs)
