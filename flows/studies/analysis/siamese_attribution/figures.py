"""Figures of explained pairs: matrices to look at, errors, shares, kinds of words, and the tuned encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from components.analysis.attribution_groups import mass_by_labels
from components.analysis.attribution_shares import cumulative_shares
from flows.studies.analysis.siamese_attribution import explanations, pairs
from flows.studies.analysis.siamese_attribution.explanations import Explanation
from flows.studies.analysis.siamese_attribution.groups import labelled
from flows.studies.figures import RunFigures

_METHOD = "integrated_jacobians"
_SHOWN_PAIRS = 3
_SHARES = {
    _METHOD: ("#1b6ca8", "integrated Jacobians"),
    "random_encoder": ("#c8553d", "the same, random layers"),
    "last_layer_dot": ("#3a7d44", "final token vectors"),
}
_LAYERS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e")
_QUALITY = {
    "word_overlap": "word overlap",
    "untouched": "published",
    "shifted_no_finetune": "published,\nshifted",
    "plain_finetuned": "tuned",
    "shifted_finetuned": "tuned,\nshifted",
}
_FEWEST_CELLS = 30  # pairs of words that a mean is shown of


class AttributionFigures(RunFigures):
    """Figures of siamese-attribution."""

    def matrices(self) -> None:
        """Draw the matrices of the first pairs of the first sample."""
        folder = self._folders(_METHOD)[0]
        sampled, explained = pairs.read(folder)[:_SHOWN_PAIRS], explanations.read_matrices(folder)
        caption = (
            "Similarity of pairs of sentences, attributed to pairs of tokens by integrated Jacobians at the input of "
            "the last layer. All cells of a matrix add up to the number above it, the cosine of both sentences after "
            "that of their references is taken off; blue adds to it, red takes away. The first pairs of the sample of "
            "seed 0, not chosen."
        )
        with self.figure("matrices", caption, 1, len(sampled), (4.6 * len(sampled), 4.6)) as (figure, axes):
            for axis, pair in zip(axes[0], sampled, strict=True):
                found = explained[pair.name]
                limit = np.abs(found.matrix).max()
                image = axis.imshow(found.matrix, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
                axis.set_xticks(range(len(pair.second.pieces)), pair.second.pieces, rotation=90, fontsize=7)
                axis.set_yticks(range(len(pair.first.pieces)), pair.first.pieces, fontsize=7)
                axis.set_xlabel("tokens of the second sentence")
                axis.set_ylabel("tokens of the first sentence")
                axis.set_title(f"corrected cosine {found.similarity:.2f}", fontsize=9)
                figure.colorbar(image, ax=axis, shrink=0.7, label="attribution (cosine)")

    def errors(self) -> None:
        """Draw the error against the number of points, by rule and layer."""
        frames = [pl.read_parquet(folder / explanations.ERRORS_FILE) for folder in self._folders(_METHOD)]
        frame = pl.concat(frames)
        caption = (
            "How far attributions are from adding up to the corrected cosine, against the points of the integral; the "
            "median over pairs with the middle half of them shaded. Left, points at the right ends of intervals (the "
            "public code's rule): the error falls as 1/N (grey). Right, points in the middle: as 1/N^2. N = 1 at the "
            "right end is gradient times input, the diamond."
        )
        rules = [rule for rule in ("right", "midpoint") if rule in frame["rule"].unique().to_list()]
        with self.figure("errors", caption, 1, len(rules), (3.7 * len(rules), 3.3), sharey=True) as (_, axes):
            for axis, rule in zip(axes[0], rules, strict=True):
                for colour, layer in zip(
                    _LAYERS, sorted(frame["layer"].unique().to_list(), reverse=True), strict=False
                ):
                    part = frame.filter((pl.col("rule") == rule) & (pl.col("layer") == layer))
                    points = (
                        part.group_by("points")
                        .agg(*(pl.col("error").quantile(q, "linear").alias(str(q)) for q in (0.25, 0.5, 0.75)))
                        .sort("points")
                    )
                    label = f"before layer {layer} ({part['pair'].n_unique()} pairs)"
                    axis.plot(points["points"], points["0.5"], "o-", color=colour, markersize=3, label=label)
                    axis.fill_between(points["points"], points["0.25"], points["0.75"], color=colour, alpha=0.2, lw=0)
                of_rule = frame.filter(pl.col("rule") == rule)
                places = np.sort(of_rule["points"].unique().to_numpy()).astype(float)
                start = of_rule.filter(pl.col("points") == places[0])["error"].median()
                order = 1 if rule == "right" else 2
                axis.plot(places, start * (places[0] / places) ** order, color="#aaaaaa", linewidth=0.8)
                axis.set_xscale("log")
                axis.set_yscale("log")
                ticks = sorted({*of_rule["points"].to_list(), *([1] if rule == "right" else [])})
                axis.set_xticks(ticks, [str(tick) for tick in ticks])
                axis.minorticks_off()
                axis.set_xlabel("points N of the integral")
                axis.set_title({"right": "right ends", "midpoint": "middles"}[rule], fontsize=9)
            if self.has("gradient_x_input"):
                values = [rows["value"].to_numpy() for _, rows in self.values("gradient_x_input", "pair_error")]
                axes[0][0].plot(1, np.median(np.concatenate(values)), "D", color="#333333", label="gradient x input")
            axes[0][0].set_ylabel("|sum of attributions - cosine|")
            axes[0][0].legend(fontsize=7)

    def shares(self) -> None:
        """Draw how much of the similarity the largest pairs of tokens add up to."""
        caption = (
            "Share of the corrected cosine that the largest pairs of tokens add up to, sorted by signed attribution; "
            "thick, the median over pairs of sentences; shaded, the middle half. Curves rise above 1 where negative "
            "pairs take away again. The dotted line crosses at the share of pairs that is needed for 80%; with equal "
            "attributions (dashed) that is 0.8."
        )
        grid = np.linspace(0, 1, 201)
        with self.figure("shares", caption, 1, 1, (5.2, 3.6)) as (_, axes):
            axis = axes[0][0]
            for arm, (colour, name) in _SHARES.items():
                curves = [_curve(each, grid) for each in self._explained(arm) if each.matrix.sum() > 0]
                if not curves:
                    continue
                low, middle, high = np.quantile(curves, (0.25, 0.5, 0.75), axis=0)
                axis.plot(grid, middle, color=colour, linewidth=1.8, label=name)
                axis.fill_between(grid, low, high, color=colour, alpha=0.15, lw=0)
            axis.plot([0, 1], [0, 1], "--", color="#8a8a8a", linewidth=1, label="equal attributions")
            axis.axhline(0.8, color="#333333", linestyle=":", linewidth=0.8)
            axis.set_xlabel("share of the pairs of tokens, largest first")
            axis.set_ylabel("share of the corrected cosine")
            axis.set_ylim(bottom=0)
            axis.legend(fontsize=7, loc="lower right")

    def words(self) -> None:
        """Draw the mass of pairs of words by their tags and by their relations."""
        folders = self._folders(_METHOD)
        caption = (
            "Mean absolute attribution of a pair of words by what both words are, over that of the average pair of "
            "words (1, white), all samples together. Left, universal parts of speech; right, relations to the word "
            f"that a word depends on. Combinations with fewer than {_FEWEST_CELLS} pairs of words are left empty."
        )
        with self.figure("words", caption, 1, 2, (11.0, 5.0)) as (figure, axes):
            for axis, labels in zip(axes[0], ("tags", "relations"), strict=True):
                found = [
                    pair
                    for folder in folders
                    for pair in labelled(pairs.read(folder), explanations.read_matrices(folder), labels)
                ]
                names, grid = _grid(mass_by_labels(found))
                image = axis.imshow(grid, cmap="PuOr", vmin=0, vmax=2, interpolation="nearest")
                axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
                axis.set_yticks(range(len(names)), names, fontsize=7)
                for row, column in zip(*np.nonzero(np.isfinite(grid)), strict=True):
                    value = grid[row, column]
                    ink = "black" if abs(value - 1) < 0.6 else "white"
                    axis.text(column, row, f"{value:.1f}", color=ink, ha="center", va="center", fontsize=6)
                axis.set_title({"tags": "parts of speech", "relations": "relations"}[labels], fontsize=9)
                axis.set_xlabel("word of one sentence")
                axis.set_ylabel("word of the other")
                figure.colorbar(image, ax=axis, shrink=0.7, extend="max", label="mass over the average pair of words")

    def quality(self) -> None:
        """Draw the agreement with human scores of each encoder."""
        caption = (
            "Rank correlation of cosines with human similarity on held-out pairs (Spearman, times 100). Word overlap "
            "knows no meaning. Shifted: the embedding of a reference of the same length is subtracted, so that the "
            "reference maps to zero. Tuned: the two upper layers were tuned on human scores; dots are seeds."
        )
        arms = [arm for arm in _QUALITY if self.has(arm)]
        if not arms:
            return
        with self.figure("quality", caption, 1, 1, (5.0, 3.2)) as (_, axes):
            axis = axes[0][0]
            for place, arm in enumerate(arms):
                values = [rows["value"].mean() for _, rows in self.values(arm, "spearman")]
                colour = "#c8553d" if "shifted" in arm else "#1b6ca8" if "tuned" in arm else "#8a8a8a"
                axis.bar(place, np.mean(values), 0.6, color=colour, alpha=0.75)
                axis.plot([place] * len(values), values, "o", color="#333333", markersize=3)
                axis.text(place, np.mean(values) + 1.5, f"{np.mean(values):.1f}", ha="center", fontsize=8)
            axis.set_xticks(range(len(arms)), [_QUALITY[arm] for arm in arms], fontsize=8)
            axis.set_ylabel("Spearman x 100")

    def _folders(self, arm: str) -> list[Path]:
        return [folder for (owner, _), folder in sorted(self.stage.trainings.items()) if owner == arm]

    def _explained(self, arm: str) -> list[Explanation]:
        folders = self._folders(arm) if arm == _METHOD else list(self.runs(arm).values())
        return [each for folder in folders for each in explanations.read_matrices(folder).values()]


def _curve(explanation: Explanation, grid: np.ndarray) -> np.ndarray:
    """Cumulative share at the places of a grid of shares of pairs, linear between pairs."""
    reached = cumulative_shares(explanation.matrix)
    return np.interp(grid, np.arange(len(reached) + 1) / len(reached), [0.0, *reached])


def _grid(masses: dict[tuple[str, str], tuple[float, int]]) -> tuple[list[str], np.ndarray]:
    """Square of the means that rest on enough pairs; labels without any are left out."""
    shown = {both: mean for both, (mean, count) in masses.items() if count >= _FEWEST_CELLS}
    names = sorted({label for both in shown or masses for label in both})
    grid = np.full((len(names), len(names)), np.nan)
    for (one, other), mean in shown.items():
        row, column = names.index(one), names.index(other)
        grid[row, column] = grid[column, row] = mean
    return names, grid
