"""The models of `params/<slug>/paper.yaml`: what a paper claims, and what is run to judge it."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, PrivateAttr, Tag, model_validator

from flows.declarations.document import Document, Location
from flows.declarations.validation import Declaration, fill

Family = Literal["text", "language", "representations", "diffusion", "image", "audio", "multimodal"]
ProfileName = Literal["smoke", "small", "full"]
PROFILES: tuple[ProfileName, ...] = ("smoke", "small", "full")

Scalar = bool | int | float | str
"""A value of a flat parameter or of a condition."""


def _matching(pattern: str, example: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} is no valid name here; expected a name such as {example}.")
        return value

    return AfterValidator(check)


# Arms hold no dashes, so that the stage name `<variant>-train-<arm>-s<seed>` has exactly one reading.
Slug = Annotated[str, _matching(r"[a-z0-9]+(-[a-z0-9]+)*", "'one-d-piece' (lower case, digits, single dashes)")]
ArmName = Annotated[str, _matching(r"[a-z0-9]+(_[a-z0-9]+)*", "'tail_drop' (lower case, digits, single underscores)")]
ClaimId = Annotated[str, _matching(r"[a-z0-9]+(-[a-z0-9]+)*", "'head-concentration' (lower case, digits, dashes)")]
VariantName = Annotated[
    str,
    _matching(r"(?!(?:smoke|small|full)$)[a-z0-9]+(-[a-z0-9]+)*", "'cifar10' (lower case, digits, dashes; no profile)"),
]

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Condition = dict[str, Scalar]


class Resources(Declaration):
    """What one stage reserves on the machine that runs it."""

    cpus: float = Field(1, gt=0)
    """Processor cores."""
    gpus: float = Field(0, ge=0)
    """Accelerators; a fraction shares one."""
    memory: float | None = Field(None, gt=0)
    """Main memory in GiB."""
    exclusive: bool = False
    """Whether the stage reserves its whole node, because it measures time."""
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """What else a node must offer, by the names under which the cluster's nodes offer it."""
    workers: int = Field(1, ge=1)
    """Processes that train one model together, each with the processors, accelerators and memory above."""


class _WithParameters(Declaration):
    """A mapping of reserved keys and flat study parameters; the study's own models check the latter."""

    parameters: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Study parameters set here, by name."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        reserved = {key: value for key, value in values.items() if key in cls.reserved()}
        return reserved | {"parameters": {key: value for key, value in values.items() if key not in reserved}}

    @classmethod
    def reserved(cls) -> frozenset[str]:
        """Return the keys that are no study parameters."""
        return frozenset(cls.model_fields) - {"parameters"}


class Variant(_WithParameters):
    """The same claims on one data set; every other key is a study parameter."""

    canonical: bool = False
    """Whether this variant carries the paper's verdicts."""
    demo: bool = False
    """Whether it only demonstrates, on embedded data, and is never counted."""
    says: str = ""
    """What is special about this variant."""
    data: Names = ()
    """Names in data.yaml."""
    bases: Names = ()
    """Names in bases.yaml."""
    evaluation_only: Names = ()
    """Those of `data` and `bases` that no training reads, so that a change of them retrains nothing."""
    arms: Names | None = None
    """Arms to run; all where this is absent."""
    seeds: Seeds | None = None
    """Seeds to run instead of the paper's."""
    minutes: float | None = Field(None, gt=0)
    """Budget on two cores, in minutes, where it differs from the profile's."""


class Arm(_WithParameters):
    """One way to do it: the method, a baseline or an ablation; every other key is a study parameter."""

    says: str = ""
    """What this arm is, in a few words."""
    uses: str | None = None
    """Arm whose trained model is evaluated; this arm then trains nothing itself."""
    trained: bool = True
    """Whether there is anything to train."""
    released: str = ""
    """Where the authors' own code or weights come from, if this arm runs them: its evidence is a rerun, not ours."""
    seeds: Seeds | None = None
    """Seeds of this arm, where they differ from the paper's."""
    resources: Resources | None = None
    """What its stages reserve, where it differs from the profile's."""

    @property
    def trains(self) -> bool:
        """Whether this arm has a train stage of its own."""
        return self.trained and self.uses is None


class Profile(_WithParameters):
    """One scale to run at; every other key is a study parameter."""

    minutes: float | None = Field(None, gt=0)
    """Budget of the canonical variant on two cores, in minutes."""
    resources: Resources = Resources()
    """What each train and evaluate stage reserves."""
    data: Names | None = None
    """Names in data.yaml used instead of the variant's."""
    bases: Names | None = None
    """Names in bases.yaml used instead of the variant's."""
    expect: dict[str, float] = Field(default_factory=dict)
    """What the built model must measure, such as its number of parameters."""
    needs: str = ""
    """What a run needs, in words."""


class _Test(Declaration):
    kind: ClassVar[str]

    metric: str
    """Name of a metric of the study."""
    arm: str
    """Arm that is measured."""
    at: Condition | None = None
    """Condition at which the metric is read, such as {k: 8}."""
    also: Literal["every seed"] | None = None
    """Extra condition: the point estimate of every single seed satisfies the bar too."""
    note: str = ""
    """Nuance for the reader; no part of the verdict."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm whose measurements this test reads."""
        named = (getattr(self, name, None) for name in ("arm", "minus", "over", "equals_arm"))
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric this test reads."""
        named = (self.metric, getattr(self, "with_metric", None))
        return tuple(name for name in named if name is not None)


class _BarTest(_Test):
    above: float | None = None
    """The whole interval lies above this."""
    below: float | None = None
    """The whole interval lies below this."""
    seed_bar: float | None = None
    """Bar of `also: every seed`, where it is another than the interval's."""

    @model_validator(mode="after")
    def _one_bar(self) -> _BarTest:
        if (self.above is None) == (self.below is None):
            raise ValueError("give exactly one of 'above' and 'below'; two bars are two tests.")
        if self.seed_bar is not None and self.also is None:
            raise ValueError("'seed_bar' is the bar of 'also: every seed'; add that, or remove the bar.")
        return self


class Threshold(_BarTest):
    """The metric of one arm lies above or below a bar."""

    kind = "threshold"


class Difference(_BarTest):
    """The metric of one arm minus that of another (paired over seeds and samples) lies above or below a margin."""

    kind = "difference"

    minus: str
    """Arm that is subtracted."""
    minus_at: Condition | None = None
    """Condition of the subtracted arm; the same as `at` where it is absent."""

    @model_validator(mode="after")
    def _two_sides(self) -> Difference:
        _refuse_itself(self.arm, self.at, self.minus, self.minus_at, "minus")
        return self


class Ratio(_BarTest):
    """The mean of one arm over the mean of another lies above or below a bar."""

    kind = "ratio"

    over: str
    """Arm that is divided by; `{above: 5, times: mpc}` is the same as `{above: 5, over: mpc}`."""
    over_at: Condition | None = None
    """Condition of the divisor; the same as `at` where it is absent."""

    @model_validator(mode="before")
    @classmethod
    def _times_is_over(cls, values: Any) -> Any:
        if isinstance(values, dict) and "times" in values:
            if "over" in values:
                raise ValueError("'over' and 'times' say the same; give one of them.")
            values = {("over" if key == "times" else key): value for key, value in values.items()}
        return values

    @model_validator(mode="after")
    def _two_sides(self) -> Ratio:
        _refuse_itself(self.arm, self.at, self.over, self.over_at, "over")
        return self


class Equality(_Test):
    """The metric equals a value, or another arm's, within a tolerance: the whole interval lies inside."""

    kind = "equality"

    equals: float | None = None
    """Value to equal."""
    equals_arm: str | None = None
    """Arm to equal, at the same condition."""
    within: float = Field(ge=0)
    """Tolerance, in the metric's unit."""

    @model_validator(mode="after")
    def _one_partner(self) -> Equality:
        if (self.equals is None) == (self.equals_arm is None):
            raise ValueError("give exactly one of 'equals' (a value) and 'equals_arm' (an arm).")
        if self.equals_arm is not None:
            _refuse_itself(self.arm, self.at, self.equals_arm, None, "equals_arm")
        return self


class Monotone(_Test):
    """The metric never falls (or rises) along a key of its condition, on every seed, up to a tolerance."""

    kind = "monotone"

    along: str
    """Key of the condition, such as k."""
    values: Annotated[tuple[Scalar, ...], Field(strict=False, min_length=2)]
    """Values of the key in the order in which the metric is followed."""
    direction: Literal["increasing", "decreasing"]
    """Which way the metric goes; equal neighbours are allowed."""
    tolerance: float = Field(0.0, ge=0)
    """How far a step may go the wrong way, in the metric's unit."""

    @model_validator(mode="after")
    def _along_is_free(self) -> Monotone:
        _refuse_fixed_key(self.at, self.along)
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"'values' holds a value twice: {list(self.values)}.")
        return self


class Correlation(_BarTest):
    """The metric's correlation with a key of its condition, or with another metric, lies above or below a bar."""

    kind = "correlation"

    along: str | None = None
    """Key of the condition, such as position."""
    with_metric: str | None = Field(None, alias="with")
    """Other metric of the same arm."""
    method: Literal["spearman", "pearson"] = "spearman"
    """Rank or linear correlation."""

    @model_validator(mode="after")
    def _one_partner(self) -> Correlation:
        if (self.along is None) == (self.with_metric is None):
            raise ValueError("give exactly one of 'along' (a key of the condition) and 'with' (a metric).")
        if self.along is not None:
            _refuse_fixed_key(self.at, self.along)
        return self


def _refuse_itself(arm: str, at: Condition | None, other: str, other_at: Condition | None, key: str) -> None:
    if arm == other and (other_at is None or other_at == at):
        raise ValueError(f"arm {arm!r} is compared with itself; name another arm under {key!r} or another condition.")


def _refuse_fixed_key(at: Condition | None, along: str) -> None:
    if at and along in at:
        raise ValueError(f"{along!r} stands both in 'at' (fixed) and in 'along' (followed); remove it from 'at'.")


_KEYS_OF_KIND = {
    "difference": {"minus", "minus_at"},
    "ratio": {"over", "over_at", "times"},
    "equality": {"equals", "equals_arm", "within"},
    "monotone": {"values", "direction", "tolerance"},
    "correlation": {"with", "method"},
    "all_of": {"all_of"},
}


def kind_of_test(values: Any) -> str:
    """Tell from a test's keys which test (or group of tests) it is; a threshold where no key says otherwise.

    Raises:
        ValueError: Keys of two kinds stand side by side.
    """
    if isinstance(values, _Test | AllOf):
        return values.kind
    if not isinstance(values, dict):
        return "threshold"
    kinds = [kind for kind, keys in _KEYS_OF_KIND.items() if keys & values.keys()]
    if not kinds and "along" in values:
        return "correlation" if {"above", "below"} & values.keys() else "monotone"
    return kinds[0] if kinds else "threshold"


_SingleTest = (
    Annotated[Threshold, Tag("threshold")]
    | Annotated[Difference, Tag("difference")]
    | Annotated[Ratio, Tag("ratio")]
    | Annotated[Equality, Tag("equality")]
    | Annotated[Monotone, Tag("monotone")]
    | Annotated[Correlation, Tag("correlation")]
)


class AllOf(Declaration):
    """Tests that count as one in the claim's join: it holds when all of them hold, and fails when one fails."""

    kind: ClassVar[str] = "all_of"

    says: str = Field(min_length=1)
    """What the tests ask together, in a few words."""
    all_of: Annotated[
        tuple[Annotated[_SingleTest, Discriminator(kind_of_test)], ...], Field(strict=False, min_length=2)
    ]
    """The tests."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm whose measurements these tests read."""
        return tuple(dict.fromkeys(arm for test in self.all_of for arm in test.arms))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric these tests read."""
        return tuple(dict.fromkeys(metric for test in self.all_of for metric in test.metrics))


Test = Annotated[_SingleTest | Annotated[AllOf, Tag("all_of")], Discriminator(kind_of_test)]
"""One test of the closed vocabulary, or a group of them that counts as one."""

Tests = Annotated[tuple[Test, ...], Field(strict=False)]


class KOfN(Declaration):
    """At least `k_of_n` of the claim's tests hold."""

    k_of_n: int = Field(ge=1)
    """How many tests must hold."""


Join = Annotated[
    Annotated[Literal["all_of", "any_of"], Tag("word")] | Annotated[KOfN, Tag("KOfN")],
    Discriminator(lambda value: "KOfN" if isinstance(value, (dict, KOfN)) else "word"),
]


class Claim(Declaration):
    """One claim of the paper, and the tests that judge it."""

    id: ClaimId
    """Name of the claim, unique in the paper."""
    says: str = Field(min_length=1)
    """The paper's claim with its number, in our words."""
    cites: str = Field(min_length=1)
    """Where in the paper it stands: section, table or figure."""
    scope: Literal["small", "full-only"]
    """Whether it is judged at the small profile or needs the full one."""
    variant: str | None = None
    """Variant it is judged in; the canonical one where this is absent."""
    join: Join = "all_of"
    """How the tests are joined."""
    gates: Tests = ()
    """Tests that must hold before anything is judged; where one does not, the claim is inconclusive."""
    needs: str = ""
    """What judging a full-only claim would need."""
    tests: Tests = ()
    """Tests of the closed vocabulary."""

    @model_validator(mode="after")
    def _judgeable(self) -> Claim:
        if self.scope == "small" and not self.tests:
            raise ValueError("'tests' is missing; a claim of scope 'small' is judged by at least one test.")
        if self.scope == "full-only" and not self.needs:
            raise ValueError("'needs' is missing; a claim of scope 'full-only' says what judging it would need.")
        if isinstance(self.join, KOfN) and self.join.k_of_n > len(self.tests):
            raise ValueError(
                f"'join' asks for {self.join.k_of_n} of {len(self.tests)} tests; expected at most as many."
            )
        return self


class Deviation(Declaration):
    """One thing done otherwise than in the paper."""

    what: str = Field(min_length=1)
    """What is done otherwise."""
    why: str = Field(min_length=1)
    """The reason."""


def _date(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return datetime.date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"expected a date (YYYY-MM-DD), got {value!r}.") from None
    return value


class HistoryEntry(Declaration):
    """One change of a test after a result was seen."""

    date: Annotated[datetime.date, BeforeValidator(_date)]
    """Day of the change."""
    what: str = Field(min_length=1)
    """What was changed."""
    why: str = Field(min_length=1)
    """The reason."""


class Paper(Declaration):
    """One paper, as declared in `params/<slug>/paper.yaml`."""

    slug: Slug
    """Name of the paper's folder."""
    title: str = Field(min_length=1)
    """Title of the paper."""
    family: Family
    """Which of the seven families it belongs to."""
    study: Slug
    """Which experiment form runs it."""
    reference: str | None = None
    """Repository of the implementation that the paper cites, as owner/name."""
    story: str = Field(min_length=1)
    """What the paper says, what was run, what came out, what differs and why."""
    seeds: Seeds
    """Independent replicates; three are the floor for a judged comparison."""
    variants: Annotated[dict[VariantName, Variant], Field(min_length=1)]
    """The data sets the claims are judged on, by name."""
    arms: Annotated[dict[ArmName, Arm], Field(min_length=1)]
    """What is compared, by name."""
    profiles: dict[ProfileName, Profile]
    """The scales it can run at: smoke, small, full."""
    claims: Annotated[tuple[Claim, ...], Field(strict=False)]
    """What the paper claims."""
    clocks: Names = ()
    """Metrics that are wall clocks or follow from them, which no rerun gives bit for bit: `tessera verify` asks of them
    on every machine what it asks of all metrics on another one."""
    deviations: Annotated[tuple[Deviation, ...], Field(strict=False)] = ()
    """What is done otherwise than in the paper, each with its reason."""
    history: Annotated[tuple[HistoryEntry, ...], Field(strict=False)] = ()
    """Changes of a test after a result was seen."""

    _document: Document | None = PrivateAttr(None)

    @property
    def path(self) -> str:
        """Path of the paper's file, relative to the workspace."""
        return f"params/{self.slug}/paper.yaml" if self._document is None else self._document.path

    def line(self, location: Location) -> int | None:
        """Return the line of a value in the paper's file; None where the paper was not read from one."""
        return None if self._document is None else self._document.line(location)

    @classmethod
    def read(cls, document: Document) -> Paper:
        """Validate a document's structure.

        Raises:
            DeclarationError: Listing every fault with its line.
        """
        paper = fill(cls, document)
        paper._document = document
        return paper

    @property
    def canonical(self) -> str:
        """Name of the variant that carries the paper's verdicts."""
        return next(name for name, variant in self.variants.items() if variant.canonical)

    def variant_of(self, claim: Claim) -> str:
        """Return the one variant in which a claim is judged."""
        return claim.variant or self.canonical

    def arms_of(self, variant: str) -> dict[str, Arm]:
        """Return the arms that run in a variant, in the order of the file."""
        chosen = self.variants[variant].arms
        return {name: arm for name, arm in self.arms.items() if chosen is None or name in chosen}

    def seeds_of(self, variant: str, arm: str) -> tuple[int, ...]:
        """Return an arm's seeds in a variant: the arm's own, or the paper's, kept to the variant's where it has any."""
        own = self.arms[arm].seeds
        of_variant = self.variants[variant].seeds
        if own is None:
            return of_variant or self.seeds
        return tuple(seed for seed in own if of_variant is None or seed in of_variant)

    def model_of(self, arm: str) -> str | None:
        """Return the arm whose trained model an arm evaluates; None where nothing is trained."""
        declared = self.arms[arm]
        if declared.uses is not None:
            return declared.uses
        return arm if declared.trained else None
