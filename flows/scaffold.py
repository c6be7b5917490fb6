"""`tessera new`: the folder of a new paper, a component stub with a property test that fails, and what to do next.

Nothing is invented: data, bases and the smallest settings come from a paper of the same study that already runs, the
title and the family from the catalogue. What only a reader of the paper can know says so (see `FILL_IN`), and the stub
is the study's own component under another name, so that the new paper runs from the first minute.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from components.errors import TesseraError, did_you_mean
from components.training.atomic import write_bytes
from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.document import Location, dotted, read_document
from flows.declarations.metric import Metric
from flows.declarations.paper import AllOf, Family, Paper, Profile, Variant
from flows.declarations.problems import DeclarationError, Problem
from flows.declarations.schema import schema_comment
from flows.declarations.study import Study, load_study, own_params, python_name, study_names
from flows.declarations.workspace import Workspace
from flows.declarations.yaml_text import flow, scalar, yaml_text

FILL_IN = "Fill in: "
"""How a fact begins that nobody but a reader of the paper can give."""

METHOD, BASELINE = "method", "baseline"
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ENTRIES = ("build", "train", "load")


class CannotStartPaper(TesseraError):
    """A new paper cannot be started under this name, or not in this way."""


@dataclass(frozen=True)
class Component:
    """A component that an arm of a study chooses by name.

    Attributes:
        parameter: Parameter of the study that names it.
        package: Package that it stands in, such as "components.quantizers".
        default: Module that the study takes where nothing is said, such as "vq".
        free: Whether any module of the package may be named, or only those that the study lists.
    """

    parameter: str
    package: str
    default: str
    free: bool


@dataclass(frozen=True)
class Draft:
    """A paper that was started.

    Attributes:
        slug: Its name.
        files: What was written, relative to the workspace: the declaration, the stub, its test.
        like: Paper of the study that data and the smallest settings were taken from; "" where there is none.
        component: What the stub stands in for; None where the study chooses no component by name.
        chosen: Whether the arm `method` already names the stub.
    """

    slug: str
    files: tuple[str, ...]
    like: str
    component: Component | None
    chosen: bool

    def next_steps(self) -> list[str]:
        """Say, in five steps, what is between this draft and a verdict."""
        declaration, stub, test = self.files
        study_says = "" if self.chosen else f" {self._wiring()}"
        return [
            f"State the facts: what says {FILL_IN.strip(': ')!r} in {declaration} (`tessera validate` lists it).",
            f"Write the method in {stub}, until `python -m pytest {test}` passes.{study_says}",
            f"Run every arm for a moment: `tessera reproduce {self.slug} --profile smoke`",
            f"Commit the claims and their bars, then judge them: `tessera reproduce {self.slug}`",
            f"Read the verdicts with `tessera show {self.slug}`, write the story, commit, and confirm: "
            f"`tessera verify {self.slug}`",
        ]

    def _wiring(self) -> str:
        if self.component is None:
            return "Then use it in the study's train.py or evaluate.py, or in a package of the paper's own beside them."
        return (
            f"Then add {python_name(self.slug)!r} to the choices of `{self.component.parameter}` in the study's "
            f"params.py, and let the arm {METHOD!r} name it."
        )


def start_paper(
    root: Path,
    slug: str,
    *,
    study: str | None = None,
    title: str | None = None,
    component: str | None = None,
    like: str | None = None,
) -> Draft:
    """Write the declaration, the component stub and the property test of a new paper; all of them or nothing.

    Args:
        root: The workspace.
        slug: Name of the paper.
        study: Experiment form that runs it; None for the one that the catalogue names.
        title: Title of the paper; None for the catalogue's.
        component: Parameter of the study that names the component which is new; None for the first such parameter.
        like: Paper of the same study to take data and settings from; None for its smallest.

    Raises:
        CannotStartPaper: The slug is taken or no name, or an argument does not fit the others.
        UnknownStudy: There is no such study.
    """
    workspace = Workspace.load(root)
    root = workspace.root
    _check_slug(workspace, slug)
    entry = workspace.catalogue.get(slug)
    declared = load_study(_study_of(slug, study, entry))
    example = _example(workspace, declared.name, like)
    options = list(components_of(declared))
    place = _choose(options, component, declared.name)
    folder = place.package if place else "components.analysis"
    name = python_name(slug)
    paths = (
        f"params/{slug}/paper.yaml",
        f"{folder.replace('.', '/')}/{name}.py",
        f"tests/{folder.replace('.', '/')}/test_{name}.py",
    )
    taken = [path for path in (f"params/{slug}", *paths[1:]) if (root / path).exists()]
    if taken:
        raise CannotStartPaper(f"{taken[0]} exists already and is left as it is; choose another slug or remove it.")
    chosen = place is not None and place.free
    facts = _facts(workspace, slug, title, entry, declared, example, {place.parameter: name} if chosen else {})
    texts = (facts, _stub(folder, place), _test(slug, folder))
    with _all_or_nothing(root) as write:
        for path, text in zip(paths, texts, strict=True):
            write(path, text)
        problems = [problem for problem in Workspace.load(root).problems([slug]) if not problem.warning]
        if problems:
            listed = "\n".join(map(str, problems))
            raise CannotStartPaper(
                f"Study {declared.name} has no settings that a new paper could start from, so nothing was written; "
                f"name a paper of the study with --like. What would not be valid:\n{listed}"
            )
    return Draft(slug, paths, example.slug if example else "", place, chosen)


def components_of(study: Study) -> Iterator[Component]:
    """Yield the components that arms of a study choose by name, in the order of its parameters."""
    try:
        params = study.evaluate_params()
    except ValidationError:  # a study without defaults for everything chooses nothing by default
        return
    modules = {module for kind in ("train", "evaluate") for module in study.components(params, kind)}
    for name, field in study.evaluate_params.model_fields.items():
        value = getattr(params, name)
        for module in sorted(modules) if isinstance(value, str) else ():
            package, _, last = module.rpartition(".")
            if last == value and package.startswith("components."):
                yield Component(name, package, value, free=field.annotation is str)


def placeholders(root: Path, slug: str) -> list[Problem]:
    """Return a warning for every fact of a paper that is still to be filled in, with its line."""
    document = read_document(root, f"params/{slug}/paper.yaml", "a paper's declaration")
    return [
        Problem(document.path, document.line(place), dotted(place), f"still to be filled in: {words}", warning=True)
        for place, words in _unfilled(document.data, ())
    ]


def _unfilled(value: Any, place: Location) -> Iterator[tuple[Location, str]]:
    if isinstance(value, str):
        if value.startswith(FILL_IN):
            yield place, value.removeprefix(FILL_IN)
        return
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield from _unfilled(item, (*place, key))


def _check_slug(workspace: Workspace, slug: str) -> None:
    if not _SLUG.fullmatch(slug):
        suggestion = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")
        hint = f" Did you mean {suggestion!r}?" if suggestion else ""
        raise CannotStartPaper(
            f"{slug!r} is no slug; expected lower-case words, digits and single dashes, such as 'one-d-piece'.{hint}"
        )
    if slug in workspace.slugs or (workspace.root / "params" / slug).exists():
        raise CannotStartPaper(
            f"{slug!r} is in params/ already; `tessera show {slug}` shows it. A new paper needs a slug of its own."
        )
    if slug in ("schema", "full"):
        raise CannotStartPaper(f"{slug!r} is the name of another folder; choose another slug.")


def _study_of(slug: str, study: str | None, entry: CatalogueEntry | None) -> str:
    if study is None and entry is None:
        raise CannotStartPaper(
            f"{slug!r} is not in params/catalogue.yaml, so --study must say which experiment form runs it: one of "
            f"{', '.join(study_names())}."
        )
    if study is not None and entry is not None and study != entry.study:
        load_study(study)  # a misspelled study is the better message
        raise CannotStartPaper(
            f"params/catalogue.yaml gives {slug} the study {entry.study!r}, not {study!r}; leave --study away, or "
            "choose another slug for another paper."
        )
    if study is None and entry.study not in study_names():
        raise CannotStartPaper(
            f"params/catalogue.yaml gives {slug} the study {entry.study!r}, which is not built yet; CONTRIBUTING.md "
            f"says how one is made. Built are {', '.join(study_names())}."
        )
    return study or entry.study


def _example(workspace: Workspace, study: str, like: str | None) -> Paper | None:
    """Return the paper whose data and settings the new one starts from: the smallest of the study."""
    papers = []
    for slug in workspace.slugs:
        try:
            paper = workspace.paper(slug)
        except DeclarationError:  # its own problem; `tessera validate` tells
            continue
        if paper.study == study and any(variant.canonical for variant in paper.variants.values()):
            papers.append(paper)
    if like is None:
        # One whose parameters are the study's: those of a paper that has its own mean nothing elsewhere.
        own = own_params(study)
        return min(papers, key=lambda paper: (paper.slug in own, len(paper.arms), paper.slug), default=None)
    known = [paper.slug for paper in papers]
    if like not in known:
        expected = f"expected one of {', '.join(known)}" if known else f"no paper of study {study} is built yet"
        raise CannotStartPaper(f"--like {like!r}: {expected}.{did_you_mean(like, known)}")
    return workspace.paper(like)


def _choose(options: list[Component], parameter: str | None, study: str) -> Component | None:
    if parameter is None:
        free = [option for option in options if option.free]
        return next(iter(free or options), None)
    for option in options:
        if option.parameter == parameter:
            return option
    known = [option.parameter for option in options]
    expected = f"expected one of {', '.join(known)}" if known else f"study {study} chooses no component by name"
    raise CannotStartPaper(f"--component {parameter!r}: {expected}.{did_you_mean(parameter, known)}")


@contextmanager
def _all_or_nothing(root: Path) -> Iterator[Callable[[str, str], None]]:
    """Give a function that writes a file; what it wrote, folders included, goes again when the block fails."""
    made: list[Path] = []

    def write(path: str, text: str) -> None:
        folders = [folder for folder in (root / path).parents if not folder.exists()]
        made.extend(reversed(folders))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        made.append(root / path)
        write_bytes(root / path, text.encode())

    try:
        yield write
    except BaseException:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        raise


# The declaration -----------------------------------------------------------------------------------------------------

_FACTS = """\
{schema}
slug: {slug}
title: {title}
family: {family}
study: {study}
story: {story}
seeds: [0, 1, 2]

# The data the claims are judged on; every further key is a parameter of the study.
variants:
{variants}

# What is compared, under the same data and budget; every further key is a parameter of the study.
arms:
  {method}: {method_arm}
  {baseline}: {baseline_arm}

# smoke: seconds, judges nothing. small: what is judged. full: the paper's own scale.
profiles:
{profiles}

# From the paper, with its numbers, and committed before the run that is judged.
claims:
  - id: main-claim
    says: {says}
    cites: {cites}
    scope: small
    tests:
      - {test}

# What is done otherwise than in the paper, each with its reason.
deviations:
  - what: {what}
    why: {why}
"""


def _facts(
    workspace: Workspace,
    slug: str,
    title: str | None,
    entry: CatalogueEntry | None,
    study: Study,
    example: Paper | None,
    named: Mapping[str, str],
) -> str:
    """Return the text of the paper's declaration.

    Args:
        workspace: The workspace.
        slug: Name of the paper.
        title: Its title; None for the catalogue's.
        entry: What the catalogue says of it.
        study: Its study.
        example: Paper that data and settings are taken from.
        named: Parameters by which the arm of the method chooses the stub.
    """
    if entry is not None and title is not None and title != entry.title:
        raise CannotStartPaper(f"params/catalogue.yaml calls {slug} {entry.title!r}; leave --title away.")
    open_facts = {
        "story": "what the paper says; after the run, what was run, what came out and what differs",
        "says": "the paper's claim with its number, in your words",
        "cites": "the section, table or figure where it stands",
        "what": "what is done otherwise",
        "why": "the reason",
    }
    return _FACTS.format(
        schema=schema_comment("paper", 1),
        slug=slug,
        title=scalar(entry.title if entry else title or f"{FILL_IN}the paper's title"),
        family=_family(workspace, study.name, entry, example),
        study=study.name,
        variants=textwrap.indent(yaml_text(_variants(study, example)), "  ").rstrip(),
        method=METHOD,
        method_arm=flow({"says": f"{FILL_IN}the paper's method, in a few words", **named}),
        baseline=BASELINE,
        baseline_arm=flow({"says": f"{FILL_IN}what the paper compares with"}),
        profiles=textwrap.indent(yaml_text(_profiles(study, example)), "  ").rstrip(),
        test=flow(_first_test(study, example)),
        **{name: scalar(FILL_IN + words) for name, words in open_facts.items()},
    )


def _family(workspace: Workspace, study: str, entry: CatalogueEntry | None, example: Paper | None) -> str:
    if entry is not None:
        return entry.family
    if example is not None:
        return example.family
    known = Counter(paper.family for paper in workspace.catalogue.values() if paper.study == study)
    return known.most_common(1)[0][0] if known else get_args(Family)[0]


def _variants(study: Study, example: Paper | None) -> dict[str, Any]:
    if example is None:
        return {"main": {"canonical": True, "data": []}}
    variant = example.variants[example.canonical]
    lists = {name: list(getattr(variant, name)) for name in ("data", "bases", "evaluation_only")}
    kept = {name: names for name, names in lists.items() if names}
    return {example.canonical: {"canonical": True, **kept, **_parameters(study, variant)}}


def _profiles(study: Study, example: Paper | None) -> dict[str, Any]:
    smoke, small = (
        _parameters(study, example.profiles[name]) if example and name in example.profiles else {}
        for name in ("smoke", "small")
    )
    return {
        "smoke": smoke,
        "small": {"minutes": 10, **small},
        "full": {"needs": f"{FILL_IN}what the paper's own setting needs: data, hardware, time"},
    }


def _parameters(study: Study, declared: Variant | Profile) -> dict[str, Any]:
    """Return the parameters of the study that are set here; those of a paper that has its own stay there."""
    return {name: value for name, value in declared.parameters.items() if name in study.evaluate_params.model_fields}


def _first_test(study: Study, example: Paper | None) -> dict[str, Any]:
    """Return a test of the method against the baseline, on the first metric that has a better direction."""
    metric, at = next(_measured(example, study.metrics), (None, None))
    if metric is None:
        metric = next((name for name, fact in study.metrics.items() if fact.better != "neither"), None)
    if metric is None:
        metric = next(iter(study.metrics))
    bar = "below" if study.metrics[metric].better == "lower" else "above"
    condition = {"at": dict(at)} if at else {}
    return {"metric": metric, "arm": METHOD, "minus": BASELINE, **condition, bar: 0, "also": "every seed"}


def _measured(example: Paper | None, metrics: Mapping[str, Metric]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yield the metrics, with their conditions, that the claims of a paper are judged by."""
    for claim in example.claims if example else ():
        for test in claim.tests if claim.scope == "small" else ():
            for single in test.all_of if isinstance(test, AllOf) else (test,):
                fact = metrics.get(single.metric)
                if fact is not None and fact.better != "neither" and not hasattr(single, "along"):
                    yield single.metric, single.at


# The stub and its test -----------------------------------------------------------------------------------------------

_STUB = '''\
"""{fill}what this component does, in one sentence.

    y = f(x)                the paper's equation, in its letters

Letters: `...` any leading axes, `D` width of a vector.

Source: {fill}author, year, section and number of the equation.
"""

from __future__ import annotations

from torch import Tensor
{imports}

def transform(x: Tensor) -> Tensor:
    """{fill}the equation, for a whole tensor at once. Until then y = x.

    Args:
        x: (..., D).

    Returns:
        (..., D).
    """
    return x
{entries}'''

_ENTRY = """
The study asks this module for {names}. Until the method is here it is that of {sibling}, so that the paper runs from \
the first minute; put your own in its place.
"""

_TEST = '''\
"""What must hold of {name}: the paper's equation, written so plainly that a mistake in the fast version shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from {folder} import {name}


def definition(x: Tensor) -> Tensor:
    """Compute y = f(x) as the paper writes it: loops and single numbers, slow and without tricks."""
    pytest.fail(
        "Write the paper's equation into `definition`, then the component until the two agree. Any other truth "
        "serves as well: a closed form, a conserved quantity, a library. Then break the component on purpose: this "
        "test must fail again."
    )


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_equation_of_the_paper(seed):
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close({name}.transform(x), definition(x))
'''


def _stub(folder: str, place: Component | None) -> str:
    imports, entries = "", ""
    names = [name for name in _ENTRIES if name in _top_level(f"{folder}.{place.default}")] if place else []
    if names:
        imports = f"\nfrom {folder} import {place.default}\n"
        sibling = f"{folder.replace('.', '/')}/{place.default}.py"
        words = _ENTRY.format(names=" and ".join(f"`{name}`" for name in names), sibling=sibling).strip()
        comment = textwrap.fill(words, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        entries = "\n\n" + comment + "\n" + "".join(f"{name} = {place.default}.{name}\n" for name in names)
    return _STUB.format(fill=FILL_IN, imports=imports, entries=entries)


def _test(slug: str, folder: str) -> str:
    return _TEST.format(name=python_name(slug), folder=folder)


def _top_level(module: str) -> set[str]:
    """Return the names that a module defines at its top, read from its source: importing it would import torch."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return set()
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return names | {target.id for target in targets if isinstance(target, ast.Name)}
