"""What compares arms of the paper: gains from order, spaces of tokens laid over one another, and its figures."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.analysis.embedding_alignment import AlignmentError, align
from components.metrics.tables import MetricTable
from components.training.weights import read_tensors
from flows.studies.analysis.judge import StreamFigures
from flows.studies.analysis.statistics import embedding_file
from flows.studies.context import JudgeContext

_ORDERED = {"visual_vq": "visual_shuffled", "text_wordpiece": "text_shuffled"}
_LINES = {
    "text_wordpiece": ("#c8553d", "-", "Multi30k English"),
    "text_shuffled": ("#c8553d", ":", "the same, shuffled inside sentences"),
    "visual_vq": ("#1b6ca8", "-", "CIFAR-10, VQ 4 x 4"),
    "visual_shuffled": ("#1b6ca8", ":", "the same, shuffled inside crops"),
}
_IMAGE, _EMOJI, _KMEANS, _COARSE = (
    ("visual_vq", "cifar10"),
    ("visual_vq", "noto-emoji"),
    ("visual_kmeans", "cifar10"),
    ("visual_vq_f8", "cifar10"),
)
_PROSE, _ENGLISH, _GERMAN, _FRENCH = (
    ("text_wordpiece", corpus) for corpus in ("wikitext2", "multi30k-en", "multi30k-de", "multi30k-fr")
)
_RANDOM = ("random", "normal")
_PAIRS = {
    "image-image": ((_IMAGE, _EMOJI), (_IMAGE, _KMEANS), (_IMAGE, _COARSE)),
    "text-text": ((_ENGLISH, _PROSE), (_ENGLISH, _GERMAN), (_ENGLISH, _FRENCH)),
    "image-text": ((_IMAGE, _PROSE), (_IMAGE, _ENGLISH), (_KMEANS, _ENGLISH)),
    "image-random": ((_IMAGE, _RANDOM), (_KMEANS, _RANDOM)),
    "text-random": ((_PROSE, _RANDOM), (_ENGLISH, _RANDOM)),
}
_MEASURES = {
    "procrustes_residual": "rank_residual",
    "nearest_distance": "nearest_distance",
    "mutual_share": "mutual_share",
    "directed_hausdorff": "directed",
    "hausdorff": "symmetric",
}

Space = tuple[str, str]


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return the gains from order and how spaces of tokens align, by arm and seed."""
    tables: dict[tuple[str, int], MetricTable] = {run: MetricTable() for run in stage.evaluations}
    for (arm, seed), table in tables.items():
        if arm in _ORDERED:
            _order_gain(stage, arm, seed, table)
    distances = _alignments(stage, tables)
    figures = _Figures(stage)
    figures.ranks()
    figures.growth()
    figures.leading_digits()
    figures.gains()
    figures.granularity()
    figures.alignment(distances)
    return tables


def _order_gain(stage: JudgeContext, arm: str, seed: int, table: MetricTable) -> None:
    """Add, for each held-out sentence, its part in the gain minus that of the same tokens in random order."""
    runs = [stage.evaluations[name, seed] for name in (arm, _ORDERED[arm])]
    ordered, mixed = (
        pl.read_parquet(run / "metrics.parquet").filter(pl.col("metric") == "gain").select("sample", "value")
        for run in runs
    )
    paired = ordered.join(mixed, on="sample", suffix="_mixed", maintain_order="left")
    rows = (paired["value"] - paired["value_mixed"]).to_list()
    table.add_items("order_gain", rows, unit="%", items=paired["sample"].to_list(), normaliser="unigram perplexity")


def _space(stage: JudgeContext, space: Space, seed: int, like: Tensor | None = None) -> Tensor:
    """Return the embeddings of a space, or as many random ones as another space has."""
    if space == _RANDOM:
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))
    arm, corpus = space
    return read_tensors(stage.evaluations[arm, seed] / embedding_file(corpus))["embeddings"]


def _alignments(stage: JudgeContext, tables: dict[tuple[str, int], MetricTable]) -> pl.DataFrame:
    """Lay spaces over one another, seed by seed; return the distances that the figure shows."""
    rows = []
    for kind, pairs in _PAIRS.items():
        for source, target in pairs:
            arms = {arm for arm, _ in (source, target)} - {_RANDOM[0]}
            seeds = sorted({seed for _, seed in tables if all((arm, seed) in tables for arm in arms)})
            for seed in seeds:
                first = _space(stage, source, seed)
                try:
                    found = align(first, _space(stage, target, seed, first))
                except AlignmentError:  # untrained stand-ins may send all tokens to one point
                    continue
                at = {"corpus": source[1], "other": ".".join(target), "pair": kind}
                for metric, name in _MEASURES.items():
                    unit = "share" if metric == "mutual_share" else ""
                    samples = len(first)
                    tables[source[0], seed].add(metric, getattr(found, name), unit=unit, at=at, samples=samples)
                rows.append((kind, f"{'.'.join(source)} - {'.'.join(target)}", seed, found.nearest_distance))
    columns = {"kind": pl.String, "pair": pl.String, "seed": pl.Int64, "distance": pl.Float64}
    return pl.DataFrame(rows, schema=columns, orient="row")


class _Figures(StreamFigures):
    def gains(self) -> None:
        """Draw the gain of the grammar over the unigram model against its updates."""
        caption = (
            "Gain of a compound grammar over a unigram model, in percent of perplexity, on held-out sentences of 16 "
            "tokens, against the updates of its training; one line per seed. A sentence is a window of a description "
            "or a crop of 4 x 4 image tokens. Dotted: the same tokens in random order inside each sentence, where "
            "only what occurs together can be learned. The distance between solid and dotted is what order is worth."
        )
        with self.figure("grammar", caption, 1, 1, (5.0, 3.3)) as (_, axes):
            axis = axes[0][0]
            for arm, (colour, style, name) in _LINES.items():
                trained = [run for (owner, _), run in sorted(self.stage.trainings.items()) if owner == arm]
                for number, run in enumerate(trained):
                    points = pl.read_parquet(run / "curves.parquet").filter(pl.col("series") == "gain").sort("step")
                    label = name if not number else None
                    axis.plot(points["step"], points["value"], style, color=colour, linewidth=1.1, label=label)
            axis.axhline(0, color="#8a8a8a", linewidth=0.6)
            axis.set_xlabel("updates of 32 sentences")
            axis.set_ylabel("gain over unigram (% of perplexity)")
            axis.legend(fontsize=7)

    def granularity(self) -> None:
        """Draw how tokens agree with labels of objects and of parts."""
        caption = (
            "Agreement of a token with the label of its cell on scenes of shapes with marks: mutual information "
            "adjusted for chance, with whole objects by class, and with parts (body or mark of a class). Dots are "
            "tokenizers of three seeds, bars their mean; grey, the same with the labels of each scene in random "
            "order among its cells."
        )
        with self.figure("granularity", caption, 1, 1, (4.2, 3.1)) as (_, axes):
            axis = axes[0][0]
            for place, level in enumerate(("whole", "part")):
                for shift, metric, colour in ((-0.18, "ami", "#1b6ca8"), (0.18, "ami_null", "#bbbbbb")):
                    values = [
                        frame.filter(pl.col("at") == f"level={level}")["value"].item()
                        for _, frame in self.values("visual_shapes", metric)
                    ]
                    name = {"ami": "tokens and labels", "ami_null": "labels permuted inside scenes"}[metric]
                    label = name if not place else None
                    axis.bar(place + shift, np.mean(values), 0.34, color=colour, alpha=0.7, label=label)
                    axis.plot([place + shift] * len(values), values, "o", color="#333333", markersize=3)
            axis.set_xticks([0, 1], ["whole object", "part"])
            axis.set_ylabel("adjusted mutual information")
            axis.set_ylim(top=1.3 * axis.get_ylim()[1])
            axis.legend(fontsize=7, loc="upper right")

    def alignment(self, distances: pl.DataFrame) -> None:
        """Draw how far spaces of tokens lie apart after iterated matching."""
        caption = (
            "Mean distance from a token's embedding to the nearest one of another space, after rotating the spaces "
            "onto each other by iterated matching, in units of the root mean square length of a point. Embeddings "
            "are learned from neighbours in the stream (GloVe, width 64). One dot per pair of spaces and seed; "
            "right, spaces against normal random points."
        )
        with self.figure("alignment", caption, 1, 1, (5.0, 3.0)) as (_, axes):
            axis = axes[0][0]
            colours = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a8a8a", "#bbbbbb")
            for place, (kind, colour) in enumerate(zip(_PAIRS, colours, strict=True)):
                values = distances.filter(pl.col("kind") == kind)["distance"].to_numpy()
                spread = place + np.linspace(-0.2, 0.2, max(1, len(values)))[: len(values)]
                axis.plot(spread, values, "o", color=colour, markersize=4)
            axis.set_xticks(range(len(_PAIRS)), [kind.replace("-", "\n") for kind in _PAIRS], fontsize=8)
            axis.set_ylabel("distance to the nearest point")
