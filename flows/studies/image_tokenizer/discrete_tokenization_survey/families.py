"""Which family an image arm belongs to, and how a family is drawn."""

from __future__ import annotations

COLOURS = {
    "vq": ("#1b6ca8", "o"),
    "rvq": ("#c8553d", "s"),
    "pq": ("#4c9f70", "D"),
    "additive": ("#8a6fb0", "P"),
    "fsq": ("#d9a441", "^"),
    "lfq": ("#3aa6b9", "v"),
    "bsq": ("#b5477d", "<"),
    "gumbel": ("#6b6b6b", "X"),
    "bernoulli": ("#9aa83a", ">"),
    "dimension wise": ("#222222", "*"),
    "none": ("#bbbbbb", "."),
}
"""Colour and marker of each family."""

FAMILIES = tuple(name for name in COLOURS if name != "none")
"""Families in the order of the legend."""


def family(arm: str) -> str:
    """Return the family of an image arm by its name, "" where it has none: no codes, or another modality."""
    if arm.startswith(("speech", "graph", "gumbel_relaxed", "gumbel_st")):
        return ""
    name = arm.removeprefix("prior_").replace("_", " ")
    return next((known for known in FAMILIES if name == known or name.startswith(f"{known} ")), "")
