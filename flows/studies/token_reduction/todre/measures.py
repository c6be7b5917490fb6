"""Numbers per scene: a share over questions as one value per scene, so that scenes count as whole test items.

Questions of one scene share its picture and are no independent samples. With n_i questions and r_i right ones in scene
i of S, Q = sum_i n_i and p = sum_i r_i / Q, the value of a scene is

    v_i = p + S / Q (r_i - p n_i)

whose mean is p and whose spread is that of p when scenes are drawn as wholes.

Letters: `S` scenes, `Q` questions, `N` visual tokens, `K` tokens kept, `L` layers, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.compression.flops import block_flops
from components.compression.kcenter import covering_radius, mean_pairwise_distance
from components.compression.layer_drop import DropRule
from components.metrics.tables import MetricTable
from components.multimodal.vlm import VLM
from flows.studies.multimodal.models import Asked

GROUPS = ("general", "read", "all")


def ratio_items(sums: Tensor, counts: Tensor) -> Tensor:
    """Return v_i, float64 (S,), of r_i and n_i, (S,)."""
    counts = counts.double()
    share = sums.double().sum() / counts.sum()
    return share + len(counts) / counts.sum() * (sums - share * counts)


def chosen(about: Asked, group: str) -> Tensor:
    """Return which questions belong to a group (general, read, all, or a type of question), bool (Q,)."""
    if group == "all":
        return torch.ones(len(about.scenes.questions), dtype=torch.bool)
    if group in ("general", "read"):
        return about.where(group)
    return torch.from_numpy((about.scenes.questions["type"] == group).to_numpy().copy())


def types(about: Asked) -> list[str]:
    """Return the types of the questions, sorted."""
    return sorted(about.scenes.questions["type"].unique())


def by_scene(about: Asked, values: Tensor, own: Tensor) -> Tensor:
    """Return the mean of values (Q,) over some of the questions, bool (Q,), as one value per scene, float64 (S,)."""
    scene = about.scenes.questions["row"].to_torch()[own].long()
    empty = torch.zeros(len(about.scenes), dtype=torch.float64)
    sums = empty.index_add(0, scene, values[own].double())
    return ratio_items(sums, empty.index_add(0, scene, torch.ones(len(scene), dtype=torch.float64)))


def add_groups(
    table: MetricTable,
    about: Asked,
    metric: str,
    values: Tensor,
    *,
    unit: str,
    at: dict,
    groups: Sequence[str] = GROUPS,
) -> None:
    """Add a metric of every question, (Q,), for each group of questions, with scenes as items."""
    for group in groups:
        own = chosen(about, group)
        if own.any():
            items = by_scene(about, values, own)
            table.add_items(metric, items.tolist(), unit=unit, at={"questions": group, **at})


def add_types(table: MetricTable, about: Asked, metric: str, values: Tensor, *, unit: str, at: dict) -> None:
    """Add the mean of a metric of every question, (Q,), for each type of question, with its variance over scenes."""
    for kind in types(about):
        own = chosen(about, kind)
        add_mean(
            table, metric, by_scene(about, values, own), unit=unit, at={"type": kind, **at}, samples=int(own.sum())
        )


def add_mean(table: MetricTable, metric: str, items: Tensor, *, unit: str, at: dict, samples: int) -> None:
    """Add the mean of items (S,) as one value, with its variance."""
    variance = float(items.var() / len(items))
    table.add(metric, float(items.mean()), unit=unit, at=at, samples=samples, variance=variance)


def add_choice(table: MetricTable, visual: Tensor, choices: Sequence[Tensor], at: dict) -> None:
    """Add how well kept tokens (S, K) cover visual tokens (S, N, D), and how far apart they are; means over choices."""
    unit = "cosine distance"
    for suffix, centred in (("", False), ("_centred", True)):
        radius = torch.stack([covering_radius(visual, kept, centred) for kept in choices]).mean(0)
        table.add_items(f"covering_radius{suffix}", radius.tolist(), unit=unit, at=at)
        apart = torch.stack([mean_pairwise_distance(visual, kept, centred) for kept in choices]).mean(0)
        table.add_items(f"kept_distance{suffix}", apart.tolist(), unit=unit, at=at)


def language_flops(model: VLM, visual: Sequence[float], text: float) -> float:
    """Return the operations of the language model's blocks for one question.

    Args:
        model: The model.
        visual: Visual tokens that each of the L layers reads.
        text: Tokens of the question.
    """
    config = model.language.transformer.config
    # A gated MLP has three matrices where `block_flops` counts two.
    hidden = round(config.mlp_ratio * config.width) * (1.5 if config.activation == "swiglu" else 1)
    return sum(block_flops([1 + count + text] * 2, config.width, hidden) for count in visual)


def rule_flops(model: VLM, rule: DropRule, visual: float, text: float) -> float:
    """Return the operations of asking the rule once: keys and values of all tokens, queries of the rows, products.

    4 n D^2 + 2 R D^2 + 2 n R D,    n = 1 + N + T tokens, R rows: of the visual tokens and of the text
    """
    width = model.language.config.width
    tokens, rows = 1 + visual + text, visual + (text if rule.rows == "all" else 1)
    return 4 * tokens * width**2 + 2 * rows * width**2 + 2 * tokens * rows * width


def cache_kib(model: VLM, visual: Sequence[float], text: float) -> float:
    """Return keys and values of one question in all layers, in KiB of single precision."""
    return sum(1 + count + text for count in visual) * 2 * model.language.config.width * 4 / 1024
