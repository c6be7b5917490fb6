"""Figures of the survey beside its image codec: speech, the graph, gradient estimators, and the taxonomy as a table."""

from __future__ import annotations

import textwrap

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from flows.studies.image_tokenizer.discrete_tokenization_survey import taxonomy
from flows.studies.image_tokenizer.discrete_tokenization_survey.families import COLOURS
from flows.studies.image_tokenizer.judge import Figures

_SPEECH = {
    "speech_mean_frame": "mean frame",
    "speech_vq_k256": "vq, 256",
    "speech_rvq": "rvq, 4 x 64",
    "speech_pq": "pq, 4 x 64",
    "speech_additive": "additive, 4 x 64",
    "speech_fsq": "fsq, 8 x 8 levels",
    "speech_lfq": "lfq, 24 signs",
    "speech_bsq": "bsq, 24 signs",
    "speech_continuous": "no quantizer",
}
_SPECTRA = ("speech_vq_k256", "speech_rvq", "speech_pq", "speech_continuous")
_GRAPH = {"graph_table": "a row per node", "graph_anchors": "anchors and relations"}
_ESTIMATORS = {
    "reinforce": ("score function", "#1b6ca8"),
    "ste": ("straight-through", "#c8553d"),
    "rotation_trick": ("rotation trick", "#8a6fb0"),
    "gumbel_relaxed": ("Gumbel, relaxed", "#4c9f70"),
    "gumbel_st": ("Gumbel, straight-through", "#d9a441"),
}
_FRAME_SECONDS = 0.01
_COLUMNS = {
    "family": 7,
    "name": 18,
    "codebook": 9,
    "gradient": 24,
    "bits": 18,
    "structure": 24,
    "failures": 24,
    "modalities": 20,
    "papers": 30,
}
"""Columns of the table of families, and their widths in letters."""


class ModalityFigures(Figures):
    """Figures of the arms that code no images, each drawn where its arms were run."""

    def draw(self) -> None:
        """Draw every figure that the variant's arms allow."""
        if self.has(*_SPECTRA):
            self.speech()
        if self.has(*_GRAPH):
            self.graph()
        if self.has(*_ESTIMATORS):
            self.estimators()
        self.families()
        self.uses()

    def speech(self) -> None:
        """Draw spectra of one test recording, and the distance of every arm."""
        caption = (
            "Spoken digits through a codec of 40 ms blocks of log-mel frames. Left: mel spectra in dB of one test "
            "recording, original and decoded (first seed). Right: log-spectral distance of test recordings (lower is "
            "better); bars are means over seeds, points single seeds, numbers the nominal bits of a block. vq, rvq, pq "
            "and additive store 256 codes each."
        )
        with self.figure("speech", caption, 1, 2, (10.5, 4.6), width_ratios=(1.25, 1)) as (figure, axes):
            self._spectra(figure, axes[0][0])
            self._distances(axes[0][1])

    def _spectra(self, figure, axis: Axes) -> None:
        """Draw the spectra one above the other in the place of an axis."""
        place = axis.get_subplotspec()
        axis.remove()
        inner = figure.add_subfigure(place).subplots(1 + len(_SPECTRA), 1, sharex=True)
        shown = [("original", _SPECTRA[0], "original")] + [(_SPEECH[arm], arm, "decoded") for arm in _SPECTRA]
        for small, (title, arm, kind) in zip(inner, shown, strict=True):
            frame = pl.read_parquet(next(iter(self.runs(arm).values())) / "spectra.parquet")
            name = frame["recording"][0]
            bands = np.stack(frame.filter((pl.col("kind") == kind) & (pl.col("recording") == name))["bands"].to_list())
            image = small.imshow(
                bands.T, origin="lower", aspect="auto", cmap="magma", vmin=-80, vmax=-20,
                extent=(0, len(bands) * _FRAME_SECONDS, 0, bands.shape[1]),
            )  # fmt: skip
            small.set_title(title, fontsize=7, loc="left", pad=2)
            small.set_ylabel("mel band", fontsize=7)
            small.tick_params(labelsize=6)
        inner[-1].set_xlabel(f"seconds of recording {name}", fontsize=8)
        inner[0].figure.colorbar(image, ax=list(inner), label="dB", shrink=0.6)

    def _distances(self, axis: Axes) -> None:
        arms = [arm for arm in _SPEECH if self.has(arm)]
        for height, arm in enumerate(reversed(arms)):
            values = np.array([float(frame["value"].mean()) for _, frame in self.values(arm, "lsd")])
            bits = [float(frame["value"].mean()) for _, frame in self.values(arm, "block_bits") if len(frame)]
            colour = COLOURS.get(arm.removeprefix("speech_").split("_")[0], COLOURS["none"])[0]
            axis.barh(height, values.mean(), color=colour, alpha=0.8)
            axis.plot(values, np.full(len(values), height), ".", color="#222222", markersize=4)
            words = f"{values.mean():.2f} dB" + (f", {bits[0]:.0f} bits" if bits else "")
            axis.annotate(
                words, (values.max(), height), textcoords="offset points", xytext=(5, 0), fontsize=7, va="center"
            )
        axis.set_yticks(range(len(arms)), [_SPEECH[arm] for arm in reversed(arms)])
        axis.set_xlabel("log-spectral distance (dB)")
        axis.margins(x=0.3)

    def graph(self) -> None:
        """Draw how well links are found, and what the nodes' embeddings cost."""
        caption = (
            "Predicting held-out links of the import graph of Python modules. Left: mean reciprocal rank of the right "
            "module among all, by relation, in both directions (higher is better; 1 seed). Right: trained numbers that "
            "modules are embedded with: a table with a row per module, or an encoder of anchors and relation types, "
            "whose size does not grow with the graph."
        )
        with self.figure("graph", caption, 1, 2, (8.6, 3.2), width_ratios=(2, 1)) as (figure, axes):
            left, right = axes[0]
            conditions = ("", "relation=import", "relation=from-import", "relation=sub-module")
            for place, (arm, label) in enumerate(_GRAPH.items()):
                _, frame = next(self.values(arm, "mrr"))
                heights = [frame.filter(pl.col("at") == at)["value"].mean() or 0 for at in conditions]
                colour = ("#8a8a8a", "#1b6ca8")[place]
                left.bar(np.arange(len(conditions)) + 0.4 * place - 0.2, heights, 0.38, color=colour, label=label)
                _, sizes = next(self.values(arm, "node_parameters"))
                right.bar(place, sizes["value"].item() / 1000, 0.6, color=colour)
            left.set_xticks(
                range(len(conditions)), ["all links", *(at.removeprefix("relation=") for at in conditions[1:])]
            )
            left.set_ylabel("mean reciprocal rank")
            right.set_xticks(range(len(_GRAPH)), [textwrap.fill(label, 12) for label in _GRAPH.values()])
            right.set_ylabel("trained numbers (thousands)")
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    def estimators(self) -> None:
        """Draw bias against variance of the gradient estimators, and both against temperature."""
        caption = (
            "Estimates of the gradient through the draw of one of four codes, on problems whose true gradient is "
            "enumerated; lengths are in units of the true gradient's mean length. Left: bias against variance; Gumbel "
            "estimators at temperatures from 1 (large point) to 0.03, biases below 0.001 at the left end. Middle: bias "
            "against temperature. Right: cosine between the truth and one estimate. Means over problems and seeds; "
            "horizontal lines are estimators without a temperature."
        )
        with self.figure("gradient-estimators", caption, 1, 3, (11, 3.6)) as (figure, axes):
            plane, biases, cosines = axes[0]
            for arm, (label, colour) in _ESTIMATORS.items():
                found = {metric: self._by_temperature(arm, metric) for metric in ("bias", "variance", "draw_cosine")}
                taus, bias = found["bias"]
                least = np.maximum(np.abs(bias), 1e-3)
                plane.plot(least, found["variance"][1], "-", color=colour, linewidth=0.8)
                plane.scatter(
                    least, found["variance"][1], s=12 + 20 * np.nan_to_num(taus, nan=1.0), color=colour, label=label
                )
                for axis, values in ((biases, bias), (cosines, found["draw_cosine"][1])):
                    if len(values) > 1:
                        axis.plot(taus, values, "o-", markersize=3.5, color=colour)
                    else:
                        axis.axhline(values[0], color=colour, linewidth=1, linestyle="--")
            plane.set(xscale="log", yscale="log", xlabel="bias", ylabel="variance")
            biases.set(xscale="log", xlabel="temperature", ylabel="bias")
            cosines.set(xscale="log", xlabel="temperature", ylabel="cosine of one estimate")
            figure.legend(*plane.get_legend_handles_labels(), loc="outside lower center", ncols=5)

    def _by_temperature(self, arm: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return temperatures, falling (NaN where there is none), and the mean over items and seeds at each."""
        frame = pl.concat([frame for _, frame in self.values(arm, metric)])
        tau = pl.col("at").str.extract(r"tau=([\d.]+)").cast(pl.Float64).alias("tau")
        means = frame.group_by(tau).agg(pl.col("value").mean()).sort("tau", descending=True)
        return means["tau"].fill_null(np.nan).to_numpy(), means["value"].to_numpy()

    def families(self) -> None:
        """Draw the table of families, with the papers of this collection that use each."""
        caption = (
            "The survey's eight families of quantizers. K codes of a book, M books, D dimensions, L levels, A anchors, "
            "k of them at a node, R relation types, m of them at a node. The last column names papers of this ledger."
        )
        with self.figure("families", caption, 1, 1, (13.5, 6.6)) as (_, axes):
            _table(axes[0][0], taxonomy.families(), _COLUMNS)

    def uses(self) -> None:
        """Draw the tables of tiers, challenges and directions."""
        caption = (
            "Where the survey sees discrete tokens used (above), and its challenges and directions (below), each with "
            "the claim of this page that is about it, or the papers of this ledger that go there."
        )
        with self.figure("tiers-and-challenges", caption, 2, 1, (9.5, 4.6), height_ratios=(1, 2)) as (_, axes):
            _table(axes[0][0], taxonomy.tiers(), {"tier": 30, "what takes part": 46, "tasks or modalities": 60})
            _table(axes[1][0], taxonomy.challenges(), {"kind": 12, "name": 40, "here": 84})


def _table(axis: Axes, frame: pl.DataFrame, columns: dict[str, int]) -> None:
    """Draw columns of a table of text, each as wide as so many letters, in place of an axis."""
    rows = [list(columns)] + [
        [textwrap.fill(text, width, break_on_hyphens=False) for text, width in zip(row, columns.values(), strict=True)]
        for row in frame.select(list(columns)).iter_rows()
    ]
    lines = [max(cell.count("\n") + 1.6 for cell in row) for row in rows]
    widths = np.array(list(columns.values()), dtype=float)
    axis.axis("off")
    drawn = axis.table(rows, colWidths=list(widths / widths.sum()), cellLoc="left", bbox=(0, 0, 1, 1))
    drawn.auto_set_font_size(False)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_height(lines[row] / sum(lines))
        cell.set_fontsize(7.5)
        cell.set_edgecolor("#cccccc")
        cell.PAD = 0.03
        if row == 0:
            cell.set_text_props(weight="bold")
