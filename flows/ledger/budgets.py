"""What the small profile of every paper took, beside the minutes and the memory it declares.

    minutes = sum over stages of wall time x reserved cores / 2          two cores, as the declaration counts
    own     = sum over stages of processor time / 2                      what it had taken on a quiet machine, at least

A machine that trains something else beside a stage makes its wall time longer, not its processor time. So a paper whose
minutes are over its budget and whose processor time is not waited for others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flows.declarations.paper import Paper
from flows.declarations.stages import plan_stages
from flows.declarations.workspace import Workspace
from flows.ledger import costs

CORES = 2
SLACK = 1.3
"""A budget is kept up to this factor."""
MOST_GIB = 3.0
"""What a stage of the small profile may take."""

State = Literal["within", "over", "waited", "not recorded", "not declared"]


@dataclass(frozen=True)
class Budget:
    """One variant of a paper, small profile.

    Attributes:
        slug: The paper.
        title: Its title.
        variant: The variant.
        declared: Minutes on two cores, None where it declares none.
        minutes: What its stages took, as if two cores were always busy.
        own: Their processor time on two cores, in minutes.
        stages: Stages whose cost is recorded.
        planned: Stages that there are.
        peak: Largest resident memory of a stage, GiB.
        peak_stage: Which stage that is.
    """

    slug: str
    title: str
    variant: str
    declared: float | None
    minutes: float
    own: float
    stages: int
    planned: int
    peak: float
    peak_stage: str

    @property
    def ratio(self) -> float | None:
        """Minutes over declared minutes."""
        return self.minutes / self.declared if self.declared and self.stages else None

    @property
    def state(self) -> State:
        """Whether the budget was kept, up to SLACK."""
        if not self.stages:
            return "not recorded"
        if self.declared is None:
            return "not declared"
        if self.minutes <= SLACK * self.declared:
            return "within"
        return "over" if self.own > SLACK * self.declared else "waited"


def budgets(workspace: Workspace) -> list[Budget]:
    """Return every variant of every declared paper, by slug."""
    return [
        _budget(workspace, workspace.paper(slug), variant)
        for slug in workspace.slugs
        for variant in workspace.paper(slug).variants
        if "small" in workspace.paper(slug).profiles
    ]


def _budget(workspace: Workspace, paper: Paper, variant: str) -> Budget:
    stages = [stage for stage in plan_stages(paper, variant, "small") if stage.kind != "judge"]
    known = costs.read(workspace.root, paper.slug, variant, "small")
    spent = [(stage, known[stage.name]) for stage in stages if stage.name in known]
    reserved = [
        cost.wall_seconds * (CORES if stage.resources.get("exclusive") else min(CORES, stage.resources.get("cpus", 1)))
        for stage, cost in spent
    ]
    highest = max(spent, key=lambda pair: pair[1].peak_memory_bytes, default=None)
    return Budget(
        slug=paper.slug,
        title=paper.title,
        variant=variant,
        declared=_declared(paper, variant),
        minutes=sum(reserved) / CORES / 60,
        own=sum(cost.cpu_seconds for _, cost in spent) / CORES / 60,
        stages=len(spent),
        planned=len(stages),
        peak=highest[1].peak_memory_bytes / 2**30 if highest else 0.0,
        peak_stage=highest[0].name if highest else "",
    )


def _declared(paper: Paper, variant: str) -> float | None:
    """Return a variant's own budget, or the profile's where it is the canonical one."""
    own = paper.variants[variant].minutes
    if own is not None or not paper.variants[variant].canonical:
        return own
    return paper.profiles["small"].minutes


def highest_peak(found: Iterable[Budget]) -> Budget | None:
    """Return the variant with the stage that took the most memory; None where nothing is recorded."""
    return max((budget for budget in found if budget.stages), key=lambda budget: budget.peak, default=None)
