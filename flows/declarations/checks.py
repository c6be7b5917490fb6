"""What no single value shows: names that must exist elsewhere, and parts of a paper that must fit together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from components.errors import did_you_mean
from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.document import Document, Location, describe, dotted
from flows.declarations.paper import PROFILES, AllOf, Claim, Monotone, Paper, Test
from flows.declarations.problems import DeclarationError, Problem
from flows.declarations.resolve import resolve
from flows.declarations.study import Study, StudyError, UnknownStudy, load_study
from flows.declarations.validation import field_names

SEED_FLOOR = 3


class PaperChecks:
    """Checks one paper against its study, the data sets, the bases and the catalogue.

    Args:
        paper: The paper; where parts were faulty, stand-ins with empty names are in their place.
        document: Its file; names that stand there count as declared even where their part was faulty.
        replaced: Top-level keys whose faulty value was replaced; nothing is said about them again.
        data: Names in data.yaml; None where that file cannot be read.
        bases: Names in bases.yaml; None where that file cannot be read.
        catalogue: The catalogue, by slug.
    """

    def __init__(
        self,
        paper: Paper,
        document: Document,
        replaced: Collection[str],
        data: Collection[str] | None,
        bases: Collection[str] | None,
        catalogue: Mapping[str, CatalogueEntry],
    ) -> None:
        self._paper = paper
        self._document = document
        self._replaced = replaced
        self._data = data
        self._bases = bases
        self._catalogue = catalogue
        self._arms = _keys(document, "arms")
        self._variants = _keys(document, "variants")

    def problems(self) -> list[Problem]:
        """Return every problem, errors and warnings."""
        found: list[Problem] = []
        study = self._study(found)
        found += self._identity()
        found += self._variant_problems()
        found += self._arm_problems(study)
        found += self._profile_problems()
        found += self._claim_problems(study)
        if study is not None:
            found += self._parameter_problems(study)
        return found

    def _study(self, found: list[Problem]) -> Study | None:
        if "study" in self._replaced:
            return None
        try:
            return load_study(self._paper.study, self._paper.slug)
        except (UnknownStudy, StudyError) as error:
            found.append(self._problem(("study",), str(error)))
            return None

    def _identity(self) -> Iterator[Problem]:
        folder = self._document.path.split("/")[-2]
        if self._paper.slug != folder and "slug" not in self._replaced:
            words = f"{self._paper.slug!r} stands in the folder {folder!r}; a slug is the name of its folder."
            yield self._problem(("slug",), words)
        entry = self._catalogue.get(self._paper.slug)
        for key in ("title", "family", "study") if entry else ():
            given, expected = getattr(self._paper, key), getattr(entry, key)
            if given != expected and key not in self._replaced:
                yield self._problem((key,), f"expected {expected!r} as in params/catalogue.yaml, got {given!r}.")

    def _variant_problems(self) -> Iterator[Problem]:
        canonical = [name for name, variant in self._paper.variants.items() if variant.canonical]
        complete = list(self._paper.variants) == self._variants
        if len(canonical) != 1 and (complete or canonical):
            words = "no variant is marked" if not canonical else f"{', '.join(canonical)} are all marked"
            yield self._problem(("variants",), f"{words} 'canonical: true'; expected exactly one.")
        for name, variant in self._paper.variants.items():
            place: Location = ("variants", name)
            if variant.canonical and variant.demo:
                words = "a demo is never counted, so it cannot be the canonical variant; remove one of the two."
                yield self._problem((*place, "demo"), words)
            yield from self._unknown(variant.arms or (), self._arms, "arm", (*place, "arms"))
            yield from self._sources(variant.data, variant.bases, place)
            inputs = [*variant.data, *variant.bases]
            words = "data set or base of this variant"
            yield from self._unknown(variant.evaluation_only, inputs, words, (*place, "evaluation_only"))
            for arm in self._paper.arms_of(name):
                if not self._paper.seeds_of(name, arm):
                    words = f"arm {arm!r} has none of the seeds {list(variant.seeds or ())}; give it one of them."
                    yield self._problem((*place, "seeds"), words)

    def _sources(self, data: Iterable[str], bases: Iterable[str], place: Location) -> Iterator[Problem]:
        if self._data is not None:
            yield from self._unknown(data, self._data, "data set of params/data.yaml", (*place, "data"))
        if self._bases is not None:
            yield from self._unknown(bases, self._bases, "base of params/bases.yaml", (*place, "bases"))

    def _arm_problems(self, study: Study | None) -> Iterator[Problem]:
        for name, arm in self._paper.arms.items():
            if arm.uses is None:
                continue
            place: Location = ("arms", name, "uses")
            if not arm.trained:
                yield self._problem(("arms", name, "trained"), "says nothing beside 'uses'; remove it.")
            yield from self._unknown([arm.uses], self._arms, "arm", place, single=True)
            owner = self._paper.arms.get(arm.uses)
            if owner is None:
                continue
            if owner.uses is not None:
                cycle = self._cycle(name)
                if cycle:
                    yield self._problem(place, f"the arms use each other in a cycle: {' -> '.join(cycle)}.")
                else:
                    words = f"arm {arm.uses!r} trains nothing itself, it uses {owner.uses!r}; write uses: {owner.uses}."
                    yield self._problem(place, words)
                continue
            if not owner.trained:
                yield self._problem(place, f"arm {arm.uses!r} is not trained; expected an arm that is.")
            yield from self._shared_model(name, arm.uses, study)

    def _shared_model(self, name: str, owner: str, study: Study | None) -> Iterator[Problem]:
        """An arm that evaluates another's model must find it: same variant, same seeds, same training parameters."""
        for variant in self._paper.variants:
            arms = self._paper.arms_of(variant)
            if name not in arms:
                continue
            if owner not in arms:
                words = f"arm {name!r} needs the model of {owner!r}, which does not run in this variant; add it."
                yield self._problem(("variants", variant, "arms"), words)
                continue
            missing = set(self._paper.seeds_of(variant, name)) - set(self._paper.seeds_of(variant, owner))
            if missing:
                words = f"seeds {sorted(missing)} of arm {name!r} have no model: {owner!r} is not trained with them."
                yield self._problem(("arms", name, "uses"), f"in variant {variant}, {words}")
        ours, theirs = self._paper.arms[name].parameters, self._paper.arms[owner].parameters
        for key in ours.keys() & (study.train_params.model_fields.keys() if study else set()):
            default = study.train_params.model_fields[key].default
            if ours[key] != theirs.get(key, default):
                words = f"the model is that of {owner!r}, trained otherwise; train this arm or remove the value."
                yield self._problem(("arms", name, key), words)

    def _cycle(self, start: str) -> list[str]:
        path = [start]
        while (step := self._paper.arms[path[-1]].uses) in self._paper.arms:
            path.append(step)
            if step == start:
                return path
            if step in path[:-1]:
                return []
        return []

    def _profile_problems(self) -> Iterator[Problem]:
        declared = _keys(self._document, "profiles")
        if "small" not in declared:
            words = "'small' is missing; expected at least the profile that is run and judged."
            yield self._problem(("profiles",), words)
        if "smoke" not in declared:
            words = "'smoke' is missing; the test suite runs every arm at it, in seconds."
            yield self._problem(("profiles",), words, warning=True)
        for name, profile in self._paper.profiles.items():
            yield from self._sources(profile.data or (), profile.bases or (), ("profiles", name))

    def _claim_problems(self, study: Study | None) -> Iterator[Problem]:
        if not self._document.data.get("claims"):
            yield self._problem(("claims",), "expected at least one claim; without one there is nothing to judge.")
        first: dict[str, int] = {}
        for position, claim in enumerate(self._paper.claims):
            place: Location = ("claims", position)
            if claim.id in first and self._given(place, "id") == claim.id:
                line = self._document.line(("claims", first[claim.id]))
                words = f"{claim.id!r} stands twice (first on line {line}); expected a name of its own."
                yield self._problem((*place, "id"), words)
            first.setdefault(claim.id, position)
            variant = self._variant_of(claim)
            if claim.variant is not None:
                yield from self._unknown([claim.variant], self._variants, "variant", (*place, "variant"), single=True)
            if variant in self._paper.variants and self._paper.variants[variant].demo:
                words = f"{variant!r} is a demo, which is never counted; name a variant that is judged."
                yield self._problem((*place, "variant"), words)
            for group in ("gates", "tests"):
                for index, test in enumerate(getattr(claim, group)):
                    for where, single in _single_tests(test, (*place, group, index)):
                        yield from self._test_problems(single, where, variant, study)
            yield from self._seed_warnings(claim, place, variant)

    def _variant_of(self, claim: Claim) -> str | None:
        if claim.variant is not None:
            return claim.variant
        return next((name for name, variant in self._paper.variants.items() if variant.canonical), None)

    def _test_problems(self, test: Any, place: Location, variant: str | None, study: Study | None) -> Iterator[Problem]:
        spelled = {"with_metric": "with"}
        for key in ("arm", "minus", "over", "equals_arm"):
            arm = getattr(test, key, None)
            if arm is None:
                continue
            where = (*place, key if key != "over" or self._document.nearest((*place, key))[-1:] == (key,) else "times")
            yield from self._unknown([arm], self._arms, "arm", where, single=True)
            if arm in self._paper.arms and variant in self._paper.variants and arm not in self._paper.arms_of(variant):
                words = f"arm {arm!r} does not run in variant {variant!r}, where the claim is judged."
                yield self._problem(where, words)
        for key in ("metric", "with_metric"):
            metric = getattr(test, key, None)
            if study is not None and metric is not None:
                kind = f"metric of study {study.name}"
                yield from self._unknown([metric], study.metrics, kind, (*place, spelled.get(key, key)), single=True)
        if isinstance(test, Monotone) and len({isinstance(value, str) for value in test.values}) > 1:
            words = f"expected all numbers or all text, got {list(test.values)}."
            yield self._problem((*place, "values"), words)

    def _seed_warnings(self, claim: Claim, place: Location, variant: str | None) -> Iterator[Problem]:
        """Three seeds are the floor of a judged comparison; an arm that names its own seeds has decided otherwise."""
        if claim.scope != "small" or variant not in self._paper.variants:
            return
        judged = dict.fromkeys(arm for test in claim.tests for arm in test.arms)
        for arm in judged:
            if arm not in self._paper.arms or self._paper.arms[arm].seeds is not None:
                continue
            seeds = self._paper.seeds_of(variant, arm)
            if len(seeds) < SEED_FLOOR:
                words = (
                    f"arm {arm!r} is judged with {len(seeds)} seed(s) in variant {variant!r}; expected at least "
                    f"{SEED_FLOOR}. An arm that needs fewer (it is deterministic) says so with its own 'seeds'."
                )
                yield self._problem(place, words, warning=True)

    def _parameter_problems(self, study: Study) -> Iterator[Problem]:
        yield from self._unknown(self._paper.clocks, study.metrics, f"metric of study {study.name}", ("clocks",))
        known = field_names(study.evaluate_params)
        unknown: set[Location] = set()
        groups = {"variants": self._paper.variants, "arms": self._paper.arms, "profiles": self._paper.profiles}
        for group, entries in groups.items():
            for name, entry in entries.items():
                for key in entry.parameters.keys() - set(known):
                    allowed = sorted(entry.reserved()) + known
                    words = f"{key!r} is no parameter of study {study.name}; expected one of {', '.join(allowed)}."
                    unknown.add((group, name, key))
                    yield self._problem((group, name, key), words + did_you_mean(key, allowed))
        for variant in self._paper.variants:
            for arm in self._paper.arms_of(variant):
                for profile in PROFILES:
                    if profile in self._paper.profiles:
                        yield from self._resolved(variant, arm, profile, unknown)

    def _resolved(self, variant: str, arm: str, profile: str, unknown: set[Location]) -> Iterator[Problem]:
        try:
            resolve(self._paper, variant, arm, profile, "evaluate")
        except DeclarationError as error:
            spelled = {dotted(location) for location in unknown}
            yield from (problem for problem in error.problems if problem.where not in spelled)

    def _unknown(
        self, names: Iterable[str], known: Collection[str], what: str, place: Location, *, single: bool = False
    ) -> Iterator[Problem]:
        for index, name in enumerate(names):
            if name and name not in known:
                expected = f"expected one of {', '.join(known)}." if known else "there is none yet."
                words = f"{describe(name)} is no {what}; {expected}{did_you_mean(name, known)}"
                yield self._problem(place if single else (*place, index), words)

    def _given(self, place: Location, key: str) -> object:
        value = self._document.data
        for step in place:
            value = value[step]
        return value.get(key) if isinstance(value, dict) else None

    def _problem(self, location: Location, words: str, *, warning: bool = False) -> Problem:
        return Problem(self._document.path, self._document.line(location), dotted(location), words, warning)


def _single_tests(test: Test, place: Location) -> list[tuple[Location, Any]]:
    if isinstance(test, AllOf):
        return [((*place, "all_of", index), single) for index, single in enumerate(test.all_of)]
    return [(place, test)]


def _keys(document: Document, section: str) -> list[str]:
    values = document.data.get(section)
    return list(values) if isinstance(values, dict) else []


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Return one cycle of a directed graph as a closed path, or an empty list where there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        steps = [iter([start])]
        while steps:
            node = next(steps[-1], None)
            if node is None:
                steps.pop()
                if path:
                    done.add(path.pop())
            elif node in path:
                return [*path[path.index(node) :], node]
            elif node not in done and node in edges:
                path.append(node)
                steps.append(iter(edges[node]))
    return []
