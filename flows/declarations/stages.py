"""The stages of a workspace: the one source of both dvc.yaml and the runner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from components.errors import TesseraError, did_you_mean
from flows.declarations.paper import PROFILES, Paper, Resources
from flows.declarations.resolve import resolve
from flows.declarations.study import entry_module

if TYPE_CHECKING:
    from flows.declarations.parameters import StudyParams
    from flows.declarations.workspace import Workspace

StageKind = Literal["data", "base", "code", "train", "evaluate", "judge"]
Reserved = float | bool | dict[str, float]
"""How much of a resource a stage reserves; further resources of a cluster by name."""


class UnknownVariant(TesseraError):
    """A paper has no variant, or no profile, of this name."""


@dataclass(frozen=True)
class StageSpec:
    """One stage: what it is called, what it reads, where it writes.

    Attributes:
        name: Name in dvc.yaml.
        kind: "data", "base", "code", "train", "evaluate" or "judge".
        paper: Slug, or the name of the data set or base.
        study: Study of the paper, or recipe of the base; "" for others.
        variant: Variant of the paper; "" for data and bases.
        arm: Arm of the paper; "" for the judge, data and bases.
        seed: Seed of this replicate.
        profile: "smoke", "small" or "full".
        unit: Key in digests.json of its code digest and parameters; shared by the seeds of an arm.
        inputs: Input directories by name ("data/<name>", "bases/<name>", "train"; for the judge
            "evaluate/<arm>/s<seed>" and "train/<arm>/s<seed>"), relative to the workspace.
        output: Directory it writes, relative to the workspace.
        log: Directory for text and timings that nothing depends on.
        resources: What it reserves: cpus, and where they matter gpus, memory (GiB), exclusive, custom, workers.
        says: What it does, in words.
    """

    name: str
    kind: StageKind
    paper: str
    study: str = ""
    variant: str = ""
    arm: str = ""
    seed: int = 0
    profile: str = "small"
    unit: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    output: str = ""
    log: str = ""
    resources: Mapping[str, Reserved] = field(default_factory=lambda: {"cpus": 1})
    says: str = ""

    @classmethod
    def code(cls) -> StageSpec:
        """Return the stage that writes every code digest."""
        return cls("code", "code", "", log="runs/code/log", says="digests of the code each stage runs")

    @property
    def file(self) -> str:
        """The dvc.yaml it stands in, relative to the workspace."""
        if self.kind in ("data", "base", "code"):
            return "dvc.yaml"
        return f"params/{self.paper}/{'full/' if self.profile == 'full' else ''}dvc.yaml"

    @property
    def address(self) -> str:
        """DVC's name of the stage, from the workspace's root."""
        return self.name if self.file == "dvc.yaml" else f"{self.file}:{self.name}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What stands behind `python -m flows.stage` for this stage."""
        if self.kind == "code":
            return ("code",)
        words: tuple[str, ...] = (self.kind, self.paper)
        if self.kind not in ("data", "base"):
            words += (self.variant,) if self.kind == "judge" else (self.variant, self.arm, str(self.seed))
        return words if self.profile == "small" else (*words, "--profile", self.profile)

    @property
    def module(self) -> str | None:
        """The module that holds its function; None for data, code, and a judge that derives nothing of its own."""
        if self.kind == "base":
            return f"flows.studies.bases.{self.study}"
        if self.kind in ("data", "code"):
            return None
        return entry_module(self.study, self.paper, self.kind)

    def resolve(self, workspace: Workspace, overrides: Mapping[str, Any] | None = None) -> StudyParams:
        """Return the typed parameters of a base, train or evaluate stage.

        Raises:
            DeclarationError: A value has the wrong type, is out of bounds, or is no parameter of the study.
        """
        if self.kind == "base":
            return workspace.base_params(self.paper)
        paper = workspace.paper(self.paper)
        kind = "train" if self.kind == "train" else "evaluate"
        return resolve(paper, self.variant, self.arm, self.profile, kind, overrides)


def data_stage(workspace: Workspace, name: str) -> StageSpec:
    """Return the stage that makes a data set.

    Raises:
        UnknownDataSet: data.yaml has no such entry.
    """
    declared = workspace.data_set(name)
    unit = f"data-{name}"
    return StageSpec(
        unit, "data", name, unit=unit, output=f"data/{name}", log=f"runs/data/{name}/log", says=declared.title
    )


def base_stage(workspace: Workspace, name: str) -> StageSpec:
    """Return the stage that trains a base.

    Raises:
        UnknownBase: bases.yaml has no such entry.
    """
    base = workspace.base(name)
    unit = f"base-{name}"
    return StageSpec(
        unit,
        "base",
        name,
        study=base.recipe,
        seed=base.seed,
        unit=unit,
        inputs=_sources(base.data, base.bases),
        output=f"bases/{name}",
        log=f"runs/bases/{name}/log",
        resources=_reserved(base.resources),
        says=base.title,
    )


def plan_stages(paper: Paper, variant: str, profile: str, under: str = "") -> list[StageSpec]:
    """Return the stages of one variant of a paper: trainings, evaluations, the judge.

    At profile smoke every arm is evaluated with its first seed only, and what these evaluations need is trained.

    Args:
        paper: The declaration.
        variant: Name of a variant.
        profile: "smoke", "small" or "full".
        under: Folder under which runs and results are placed instead of the workspace's root ("" for the root), for
            runs that DVC does not track.

    Raises:
        UnknownVariant: The paper has no such variant or profile.
    """
    if variant not in paper.variants:
        raise UnknownVariant(f"{variant!r} is no variant of {paper.slug}.{did_you_mean(variant, paper.variants)}")
    if profile not in paper.profiles:
        known = ", ".join(name for name in PROFILES if name in paper.profiles)
        raise UnknownVariant(f"{paper.slug} has no profile {profile!r}; expected one of {known}.")
    plan = _Plan(paper, variant, profile, under)
    arms = paper.arms_of(variant)
    evaluations = [plan.stage("evaluate", arm, seed) for arm in arms for seed in plan.seeds(arm)]
    needed = {(paper.model_of(stage.arm), stage.seed) for stage in evaluations}
    trained = [(arm, seed) for arm in arms for seed in paper.seeds_of(variant, arm) if (arm, seed) in needed]
    trainings = [plan.stage("train", arm, seed) for arm, seed in trained]
    return [*trainings, *evaluations, plan.judge(evaluations)]


class _Plan:
    def __init__(self, paper: Paper, variant: str, profile: str, under: str) -> None:
        self._paper = paper
        self._variant = variant
        self._profile = profile
        prefix = f"{under}/" if under else ""
        scale = "/full" if profile == "full" else ""
        self._runs = f"{prefix}runs/{paper.slug}/{variant}{scale}"
        self._results = f"{prefix}results/{paper.slug}{scale}/{variant}"

    def seeds(self, arm: str) -> tuple[int, ...]:
        seeds = self._paper.seeds_of(self._variant, arm)
        return seeds[:1] if self._profile == "smoke" else seeds

    def stage(self, kind: Literal["train", "evaluate"], arm: str, seed: int) -> StageSpec:
        declared, profile = self._paper.arms[arm], self._paper.profiles[self._profile]
        variant = self._paper.variants[self._variant]
        data = variant.data if profile.data is None else profile.data
        bases = variant.bases if profile.bases is None else profile.bases
        if kind == "train":
            data, bases = (
                tuple(name for name in names if name not in variant.evaluation_only) for names in (data, bases)
            )
        inputs = _sources(data, bases)
        model = self._paper.model_of(arm)
        if kind == "evaluate" and model is not None:
            inputs["train"] = self._run("train", model, seed)
        resources = _reserved(profile.resources, declared.resources)
        if kind == "evaluate":
            resources.pop("workers", None)
        return StageSpec(
            name=f"{self._variant}-{kind}-{arm}-s{seed}",
            kind=kind,
            paper=self._paper.slug,
            study=self._paper.study,
            variant=self._variant,
            arm=arm,
            seed=seed,
            profile=self._profile,
            unit=f"{self._variant}-{kind}-{arm}",
            inputs=inputs,
            output=self._run(kind, arm, seed),
            log=self._run(kind, arm, seed, "log"),
            resources=resources,
            says=f"{declared.says or arm} ({kind}, seed {seed})",
        )

    def judge(self, evaluations: list[StageSpec]) -> StageSpec:
        inputs = {f"evaluate/{stage.arm}/s{stage.seed}": stage.output for stage in evaluations}
        for stage in evaluations:
            if "train" in stage.inputs:
                inputs[f"train/{stage.arm}/s{stage.seed}"] = stage.inputs["train"]
        return StageSpec(
            name=f"{self._variant}-judge",
            kind="judge",
            paper=self._paper.slug,
            study=self._paper.study,
            variant=self._variant,
            profile=self._profile,
            unit=f"{self._variant}-judge",
            inputs=inputs,
            output=self._results,
            log=f"{self._runs}/judge/log",
            says=f"metrics, figures and verdicts of variant {self._variant}",
        )

    def _run(self, kind: str, arm: str, seed: int, part: str = "run") -> str:
        return f"{self._runs}/{kind}/{arm}/s{seed}/{part}"


def _sources(data: tuple[str, ...], bases: tuple[str, ...]) -> dict[str, str]:
    return {f"data/{name}": f"data/{name}" for name in data} | {f"bases/{name}": f"bases/{name}" for name in bases}


def _reserved(resources: Resources, own: Resources | None = None) -> dict[str, Reserved]:
    """Merge an arm's resources over a profile's and leave out what is not asked for."""
    chosen = resources.model_dump()
    if own is not None:
        chosen |= own.model_dump(include=own.model_fields_set)
    usual = Resources().model_dump()
    return {name: _plain(value) for name, value in chosen.items() if name == "cpus" or value != usual[name]}


def _plain(value: Reserved) -> Reserved:
    if isinstance(value, dict):
        return {name: _plain(amount) for name, amount in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value
