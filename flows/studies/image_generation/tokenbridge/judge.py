"""Figures of TokenBridge, and the comparisons of arms that its gates are about."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.metrics.tables import MetricTable
from flows.studies.context import JudgeContext
from flows.studies.image_generation.judge import PALETTE, Figures, montage, show

_LABELS = {
    "dim_ar": "dimensions one by one",
    "dim_ar_natural": "one by one, natural order",
    "dim_ar_reversed": "one by one, reversed order",
    "dim_parallel": "dimensions in parallel",
    "flow_head": "continuous, flow head",
    "rvq_ar": "residual VQ, equal bits",
    "vq_ar": "VQ, 144 bits",
    "no_context": "head without context",
    "unigram": "histograms",
    "dimwise_8": "8 levels",
    "dimwise_16": "16 levels",
    "dimwise_32": "32 levels",
    "dimwise_64": "64 levels",
    "uniform_16": "16 uniform levels",
    "vq_kmeans": "k-means, 4,096 codes",
    "rvq_kmeans_48": "residual k-means, 6 x 256",
    "rvq_kmeans_64": "residual k-means, 8 x 256",
    "vq_trained": "VQ autoencoder, 512 codes",
    "continuous": "continuous latents",
}
_DIMENSION_WISE = ("dimwise_8", "dimwise_16", "dimwise_32", "dimwise_64")
_RESIDUAL = ("rvq_kmeans_48", "rvq_kmeans_64")
_PLACES = ("dim_ar", "dim_ar_natural", "dim_ar_reversed", "dim_parallel", "no_context")
_SHOWN = 10
# What is judged of each arm's Frechet distance: dim_ar lies below this many times it.
_JUDGED = {"dim_parallel": 1.0, "flow_head": 1.15, "dim_ar_reversed": 1.0}


def derive(stage: JudgeContext) -> dict[tuple[str, int], MetricTable]:
    """Draw the figures; return how far arms are apart, and what a token's dimensions tell about each other."""
    figures = _Figures(stage, _LABELS)
    evaluated = dict.fromkeys(arm for arm, _ in stage.evaluations)
    generators = [arm for arm in evaluated if figures.mean(arm, "fd_cifar") is not None]
    figures.grids(generators)
    figures.scores(generators)
    figures.levels()
    figures.reconstructions()
    figures.places()
    return figures.comparisons()


class _Figures(Figures):
    def comparisons(self) -> dict[tuple[str, int], MetricTable]:
        tables: dict[tuple[str, int], MetricTable] = {}
        first, again = self.by_seed("dim_ar", "fd_cifar"), self.by_seed("dim_ar", "fd_cifar_again")
        spread = float(np.mean([abs(first[seed] - again[seed]) for seed in first]))
        for seed in first:
            table = tables.setdefault(("dim_ar", seed), MetricTable())
            table.add("fd_spread", spread, unit="", samples=len(first))
        for arm, factor in _JUDGED.items():
            # One number for the comparison of means, the same at every seed: the gate asks for no interval.
            apart = abs(factor * self.mean(arm, "fd_cifar") - self.mean("dim_ar", "fd_cifar"))
            for seed in self.runs(arm):
                table = tables.setdefault((arm, seed), MetricTable())
                table.add("fd_separation", apart / max(spread, 1e-12), unit="", samples=len(first))
        (pooled,) = self.by_seed("unigram", "pooled_bits_per_dimension").values()
        for seed, joint in self.by_seed("no_context", "bits_per_dimension").items():
            places = len(self._by_place("no_context")[0])
            table = tables.setdefault(("no_context", seed), MetricTable())
            table.add("total_correlation", places * (pooled - joint), unit="bits", samples=1, normaliser="tokens")
        return tables

    def levels(self) -> None:
        caption = (
            "What is lost when finished latents are turned into codes, against the bits of an image's code; no network "
            "is trained. Left: peak signal-to-noise ratio of decoded test images, the dashed line without "
            "quantization (higher is better). Right: squared error of the latents over their variance (lower is "
            "better). Lines: 8, 16, 32 and 64 levels per dimension that fit a Gaussian, and residual k-means codebooks "
            "of whole vectors at the bits of 8 and 16 levels. An autoencoder that was trained with a codebook stands "
            "beside them. The paper's point: fixed levels, with nothing to learn, come as close to the continuous "
            "latents as one likes."
        )
        groups = {
            "Gaussian levels": (_DIMENSION_WISE, "o-"),
            "16 uniform levels": (("uniform_16",), "s"),
            "residual k-means": (_RESIDUAL, "^-"),
            "k-means, 4,096 codes": (("vq_kmeans",), "D"),
            "VQ autoencoder, 512 codes": (("vq_trained",), "v"),
        }
        with self.figure("levels", caption, 1, 2, (8.2, 3.4)) as (figure, axes):
            for axis, metric, unit in zip(axes[0], ("psnr", "distortion"), ("PSNR (dB)", "distortion"), strict=True):
                for colour, (name, (arms, style)) in zip(PALETTE, groups.items(), strict=False):
                    points = [(self.mean(arm, "code_bits"), self.mean(arm, metric)) for arm in arms]
                    if points[0][1] is None:  # latents of another autoencoder have no distortion
                        continue
                    axis.plot(*zip(*points, strict=True), style, color=colour, markersize=4, label=name)
                axis.set_xlabel("bits per image")
                axis.set_ylabel(unit)
            axes[0][0].axhline(self.mean("continuous", "psnr"), color="#222222", linestyle="--", linewidth=0.8)
            axes[0][1].set_yscale("log")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)

    def reconstructions(self) -> None:
        caption = (
            "Test images decoded from quantized latents; the autoencoder was trained without any quantization and "
            "stays as it is. In brackets: bits of an image's code and peak signal-to-noise ratio over all test "
            "images. The paper's point: with enough levels the images are those of the continuous latents."
        )
        arms = ("continuous", *reversed(_DIMENSION_WISE), "uniform_16", *reversed(_RESIDUAL), "vq_kmeans", "vq_trained")
        with self.figure("reconstructions", caption, len(arms) + 1, 1, (5.4, 0.62 * (len(arms) + 1))) as (_, axes):
            rows = {"original": montage(self.images("continuous", "original")[:_SHOWN], _SHOWN)}
            for arm in arms:
                bits = self.mean(arm, "code_bits")
                size = "" if arm == "continuous" else f"{bits:,.0f} bits, "
                name = f"{self.label(arm)}\n({size}{self.mean(arm, 'psnr'):.2f} dB)"
                rows[name] = montage(self.images(arm, "reconstruction")[:_SHOWN], _SHOWN)
            for axis, (name, image) in zip(axes[:, 0], rows.items(), strict=True):
                show(axis, image)
                axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)

    def places(self) -> None:
        caption = (
            "How many bits each of a token's dimensions costs, in the order in which the arm predicts them; test "
            "images given their class, mean over positions and seeds. In parallel no dimension helps the others. The "
            "dotted line is the mean over dimensions of histograms that see nothing. Right: share of a dimension's "
            "energy at low spatial frequencies, by which the first order is sorted."
        )
        arms = [arm for arm in _PLACES if self.has(arm)]
        with self.figure("dimensions", caption, 1, 2, (8.2, 3.4)) as (figure, axes):
            for colour, arm in zip(PALETTE, arms, strict=False):
                bits = self._by_place(arm)
                axes[0][0].plot(np.arange(1, bits.shape[1] + 1), bits.mean(0), "o-", color=colour, markersize=3,
                                label=self.label(arm))  # fmt: skip
            axes[0][0].axhline(self.mean("unigram", "bits_per_dimension"), color="#222222", linestyle=":", linewidth=1)
            axes[0][0].set_ylabel("bits of a dimension")
            for colour, arm in zip(PALETTE, arms, strict=False):
                shares = self._by_place(arm, "low_frequency_share")
                if arm in ("dim_ar", "dim_ar_natural", "dim_ar_reversed") and shares.size:
                    axes[0][1].plot(np.arange(1, shares.shape[1] + 1), shares.mean(0), "o-", color=colour, markersize=3)
            axes[0][1].set_ylabel("low-frequency share")
            axes[0][1].set_ylim(bottom=0)
            for axis in axes[0]:
                axis.set_xlabel("place in the order of dimensions")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    def _by_place(self, arm: str, metric: str = "dimension_bits") -> np.ndarray:
        """Return a metric by place, one row for each seed: (seeds, places)."""
        rows = []
        for _, frame in self.values(arm, metric):
            place = pl.col("at").str.extract(r"place=(\d+)").cast(pl.Int64)
            rows.append(frame.sort(place)["value"].to_numpy())
        return np.stack(rows)
