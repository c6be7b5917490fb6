"""What the study shows: quality against bit rate with a table, spectrograms, and a page to listen to."""

from __future__ import annotations

import html
import shutil
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from matplotlib.axes import Axes

from components.audio.spectra import LogMelFrames
from components.data.speech import SAMPLE_RATE
from components.metrics.tables import condition
from flows.declarations.resolve import resolve
from flows.studies.context import JudgeContext
from flows.studies.figures import RunFigures

_COLOURS = {"mel_bins": "#1b6ca8", "codec": "#c8553d", "units": "#4f8a5b"}
_LABELS = {"mel_bins": "levels of mel channels", "codec": "neural codec", "units": "clusters of a speech encoder"}
_PANELS = (
    ("mel_distance", "mel distance (dB)", "digits"),
    ("wer", "word error rate, digits (%)", "digits"),
    ("wer", "word error rate, out of domain (%)", "ood"),
    ("speaker_similarity", "speaker similarity (cosine)", "digits"),
    ("speaker_accuracy", "speaker of six recognised (%)", "digits"),
)
_CLOSE_DECADES, _CLOSE_SHARE = 0.45, 0.06  # of the rates, of the values: points whose names would meet
_SHORT = ("kbit/s", "coded", "mel dB", "WER", "WER ood", "similarity", "speaker")


class _Arm(NamedTuple):
    """One arm's means over seeds, by metric and condition, and what kind it is."""

    name: str
    kind: str
    values: dict[tuple[str, str], float]

    def value(self, metric: str, at: str = "") -> float:
        return self.values.get((metric, at), float("nan"))


def derive(stage: JudgeContext) -> None:
    """Draw the figures that the variant's arms allow, and lay out the examples to be heard."""
    figures = RateFigures(stage)
    figures.rates()
    figures.spectrograms()
    listening(stage)


class RateFigures(RunFigures):
    """Figures of arms that resynthesise speech."""

    def resynthesised(self) -> list[_Arm]:
        """Return every arm that resynthesised the digits, in the order of the paper."""
        found = []
        for arm in self.stage.paper.arms_of(self.stage.variant):
            if not self.has(arm):
                continue
            frames = [pl.read_parquet(run / "metrics.parquet") for run in self.runs(arm).values()]
            means = pl.concat(frames).group_by("metric", "at").agg(pl.col("value").mean())
            values = {(metric, at): value for metric, at, value in means.iter_rows()}
            if ("mel_distance", condition({"set": "digits"})) in values:
                params = resolve(self.stage.paper, self.stage.variant, arm, self.stage.profile, "evaluate")
                found.append(_Arm(arm, params.tokenizer, values))
        return found

    def rates(self) -> None:
        """Draw quality against bit rate, and the same as a table."""
        arms = self.resynthesised()
        rated = [arm for arm in arms if arm.kind in _COLOURS]
        if not rated:
            return
        caption = (
            "What is heard after the tokens against the bits that they take, means over seeds: filled at the nominal "
            "rate, hollow at the rate of an adaptive range coder (levels of mel channels coded against the frame "
            "before), a thin line between the two. Dashed: continuous mel frames through the same vocoder, the best "
            "that levels can reach; dotted: natural speech under the same judges. The table has the numbers; out of "
            "domain are voices never heard and digits in noise at 10 dB."
        )
        with self.figure("rates", caption, 2, 3, (11.5, 9.4)) as (figure, axes):
            for axis, (metric, label, part) in zip(axes.flat, _PANELS, strict=False):
                self._panel(axis, arms, metric, label, condition({"set": part}))
            axes[1][2].axis("off")
            axes[1][2].legend(*axes[0][0].get_legend_handles_labels(), loc="center", fontsize=8)
            rows = [self._row(arm) for arm in arms]
            below = figure.add_axes((0.0, -0.02, 1.0, 0.34))
            figure.get_layout_engine().set(rect=(0, 0.36, 1, 0.64))
            below.axis("off")
            table = below.table(rows, rowLabels=[arm.name for arm in arms], colLabels=_SHORT, loc="center")
            table.auto_set_font_size(False)
            table.set_fontsize(7.5)
            table.scale(0.72, 1.05)

    def _panel(self, axis: Axes, arms: list[_Arm], metric: str, label: str, at: str) -> None:
        for kind, colour in _COLOURS.items():
            own = [arm for arm in arms if arm.kind == kind and np.isfinite(arm.value(metric, at))]
            nominal = np.array([arm.value("bit_rate") for arm in own]) / 1000
            coded = np.array([arm.value("coded_rate") for arm in own]) / 1000
            values = np.array([arm.value(metric, at) for arm in own])
            axis.plot(nominal, values, "o", color=colour, label=_LABELS[kind])
            axis.plot(coded, values, "o", color=colour, markerfacecolor="none")
            for left, right, value in zip(coded, nominal, values, strict=True):
                axis.plot([left, right], [value, value], color=colour, linewidth=0.7)
        self._name_points(axis, [arm for arm in arms if arm.kind in _COLOURS], metric, at)
        for arm, style in (("mel", "--"), ("natural", ":")):
            for each in arms:
                if (
                    each.kind == arm
                    and np.isfinite(each.value(metric, at))
                    and not (arm == "natural" and metric == "mel_distance")
                ):
                    axis.axhline(each.value(metric, at), color="#222222", linestyle=style, linewidth=0.9)
        axis.set_xscale("log")
        axis.set_xlabel("kbit/s")
        axis.set_ylabel(label)

    def _name_points(self, axis: Axes, arms: list[_Arm], metric: str, at: str) -> None:
        """Write the arms' names beside their points, above each other where points are close."""
        points = [(np.log10(arm.value("bit_rate") / 1000), arm.value(metric, at), arm.name) for arm in arms]
        points = sorted(point for point in points if np.isfinite(point[0]) and np.isfinite(point[1]))
        if not points:
            return
        span = max(point[1] for point in points) - min(point[1] for point in points)
        for place, (rate, value, name) in enumerate(points):
            close = sum(
                abs(other - rate) < _CLOSE_DECADES and abs(height - value) <= _CLOSE_SHARE * span
                for other, height, _ in points[:place]
            )
            axis.annotate(name, (10**rate, value), fontsize=5.5, xytext=(3, 3 + 6 * close), textcoords="offset points")

    def _row(self, arm: _Arm) -> list[str]:
        def spelled(metric: str, part: str = "", scale: float = 1.0, digits: int = 1) -> str:
            value = arm.value(metric, condition({"set": part}) if part else "") * scale
            return f"{value:.{digits}f}" if np.isfinite(value) else "-"

        return [
            spelled("bit_rate", scale=1e-3, digits=2),
            spelled("coded_rate", scale=1e-3, digits=2),
            spelled("mel_distance", "digits", digits=2),
            spelled("wer", "digits"),
            spelled("wer", "ood"),
            spelled("speaker_similarity", "digits", digits=3),
            spelled("speaker_accuracy", "digits"),
        ]

    def spectrograms(self) -> None:
        """Draw the log-mel frames of one string of digits after the tokens of every arm."""
        files = {arm: run / "examples" / "digits.wav" for arm, run in _first_runs(self.stage).items()}
        files = {arm: file for arm, file in files.items() if file.is_file()}
        if not files:
            return
        columns = 3
        rows = -(-len(files) // columns)
        caption = (
            "The first test string of connected digits after the tokens of every arm, of the arm's first seed: log-mel "
            "frames in dB of full scale, the same colours everywhere."
        )
        spectra = LogMelFrames()
        with self.figure("spectrograms", caption, rows, columns, (11, 1.5 * rows + 0.5)) as (figure, axes):
            for axis, (arm, file) in zip(axes.flat, files.items(), strict=False):
                sound = read_wav(file)
                picture = 20 / np.log(10) * spectra(sound[None])[0].t().numpy()
                extent = (0, len(sound) / SAMPLE_RATE, 0, len(picture))
                image = axis.imshow(picture, origin="lower", aspect="auto", vmin=-80, vmax=0, extent=extent)
                axis.set_title(arm, fontsize=8)
                axis.tick_params(labelsize=6)
            for axis in axes.flat[len(files) :]:
                axis.axis("off")
            for axis in axes[:, 0]:
                axis.set_ylabel("mel channel", fontsize=7)
            for axis in axes[-1]:
                axis.set_xlabel("time (s)", fontsize=7)
            figure.colorbar(image, ax=axes, label="dB of full scale", shrink=0.7)


def read_wav(file: Path) -> torch.Tensor:
    """Return the waveform (S,) of a 16-bit WAV file."""
    with wave.open(str(file), "rb") as opened:
        samples = np.frombuffer(opened.readframes(opened.getnframes()), "<i2")
    return torch.from_numpy(samples.astype(np.float32) / (1 << 15))


def _first_runs(stage: JudgeContext) -> dict[str, Path]:
    """Return the evaluation of each arm's first seed, in the order of the paper."""
    runs = {}
    for arm in stage.paper.arms_of(stage.variant):
        seeds = sorted(seed for name, seed in stage.evaluations if name == arm)
        if seeds:
            runs[arm] = stage.evaluations[arm, seeds[0]]
    return runs


def listening(stage: JudgeContext) -> None:
    """Copy every arm's examples into `listening/`, with a page that plays them side by side."""
    folder = stage.output / "listening"
    rows: dict[str, list[tuple[str, str]]] = {}
    for arm, run in _first_runs(stage).items():
        for file in sorted((run / "examples").glob("*.wav")) if (run / "examples").is_dir() else []:
            folder.mkdir(exist_ok=True)
            name = f"{file.stem}-{arm}.wav"
            shutil.copyfile(file, folder / name)
            rows.setdefault(file.stem, []).append((arm, name))
    if not rows:
        return
    arms = stage.paper.arms
    parts = []
    for example, files in rows.items():
        lines = "\n".join(
            f"<tr><td>{html.escape(arm)}</td><td>{html.escape(arms[arm].says)}</td>"
            f'<td><audio controls preload="none" src="{name}"></audio></td></tr>'
            for arm, name in files
        )
        parts.append(f"<h2>{html.escape(example)}</h2>\n<table>\n{lines}\n</table>")
    title = html.escape(f"{stage.paper.title}: examples")
    page = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<h1>{title}</h1>\n'
    (folder / "index.html").write_text(page + "\n".join(parts) + "\n</html>\n", encoding="utf-8")
