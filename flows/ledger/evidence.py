"""How the evidence for a claim was obtained: four tiers that a reader must be able to tell apart."""

from __future__ import annotations

from typing import Literal, get_args

from flows.declarations.paper import Claim, Paper

Tier = Literal["reported by the paper", "rerun here", "reimplemented here", "out of scale"]
TIERS: tuple[Tier, ...] = get_args(Tier)

MEANING: dict[Tier, str] = {
    "reported by the paper": "the paper's own number; nothing was run here yet",
    "rerun here": "the authors' released code or weights, run here on the declared data",
    "reimplemented here": "built anew from the paper's description, trained and tested here",
    "out of scale": "judging it needs the paper's own scale, which was not run",
}


def tier(paper: Paper, claim: Claim, verdict: str) -> Tier:
    """Return the tier of a claim's evidence.

    Args:
        paper: The declaration.
        claim: One of its claims.
        verdict: Its verdict; anything that is no verdict means that it was not judged.

    Returns:
        The weakest link: a claim of which one arm is ours is reimplemented, whatever the others are.
    """
    if verdict == "out of scale":
        return "out of scale"
    if verdict not in ("reproduced", "contradicted", "inconclusive"):
        return "reported by the paper"
    return "rerun here" if all(map(_is_released, _judged_arms(paper, claim))) else "reimplemented here"


def _judged_arms(paper: Paper, claim: Claim) -> list:
    names = dict.fromkeys(arm for test in claim.tests for arm in test.arms)
    return [paper.arms[name] for name in names if name in paper.arms] or [None]


def _is_released(arm) -> bool:
    return arm is not None and bool(arm.released)
