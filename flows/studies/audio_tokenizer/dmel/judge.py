"""Figures of dMel: quality against the number of levels, and what one network reads and speaks."""

from __future__ import annotations

import numpy as np

from components.metrics.tables import condition
from flows.declarations.resolve import resolve
from flows.studies.audio_tokenizer.judge import RateFigures
from flows.studies.audio_tokenizer.judge import derive as study_figures
from flows.studies.context import JudgeContext

_BINS = ("dmel4", "dmel8", "dmel16", "dmel64")
_READ = {"richasr_dmel": "levels", "richasr_codec": "codec", "richasr_kmeans": "units"}
_SPOKEN = {
    "richtts_dmel": "levels, in parallel",
    "richtts_dmel_ar_channels": "levels, group after group",
    "richtts_dmel_nomask": "levels, history not hidden",
    "richtts_kmeans": "units",
}
_COLOUR, _BLIND = "#1b6ca8", "#8a8a8a"


def derive(stage: JudgeContext) -> None:
    """Draw the study's figures and those of this paper."""
    study_figures(stage)
    figures = _Figures(stage)
    if figures.has(*_BINS, "mel_continuous"):
        figures.levels()
    figures.networks()


class _Figures(RateFigures):
    def _means(self, arm: str, metric: str, at: str) -> list[float]:
        return [float(frame.filter(frame["at"] == at)["value"].mean()) for _, frame in self.values(arm, metric)]

    def levels(self) -> None:
        caption = (
            "Word error rate and mel distance of connected digits after rounding every mel channel to so many levels "
            "and rendering by the same vocoder; points are seeds of the vocoder, the dashed line its continuous "
            "frames."
        )
        at = condition({"set": "digits"})
        with self.figure("levels", caption, 1, 2, (8, 3.2)) as (_, axes):
            for axis, metric, label in (
                (axes[0][0], "wer", "word error rate (%)"),
                (axes[0][1], "mel_distance", "mel distance (dB)"),
            ):
                sizes = [2 ** self._bits(arm) for arm in _BINS]
                found = [self._means(arm, metric, at) for arm in _BINS]
                for size, values in zip(sizes, found, strict=True):
                    axis.plot([size] * len(values), values, "o", color=_COLOUR, alpha=0.4, markersize=4)
                axis.plot(sizes, [np.mean(values) for values in found], color=_COLOUR)
                floor = np.mean(self._means("mel_continuous", metric, at))
                axis.axhline(floor, color="#222222", linestyle="--", linewidth=0.9)
                axis.set_xscale("log", base=2)
                axis.set_xticks(sizes, [str(size) for size in sizes])
                axis.set_xlabel("levels of a mel channel")
                axis.set_ylabel(label)

    def _bits(self, arm: str) -> int:
        return resolve(self.stage.paper, self.stage.variant, arm, self.stage.profile, "evaluate").bits

    def networks(self) -> None:
        """Draw word error rates of networks beside those of the same networks without what they should use."""
        read, spoken = ({arm: label for arm, label in each.items() if self.has(arm)} for each in (_READ, _SPOKEN))
        if not read or not spoken:
            return
        caption = (
            "Left: words that a decoder-only network reads wrongly in strings of digits, by the tokens it hears; "
            "grey, when it hears another string. Right: words that the judge reads wrongly in what such a network "
            "speaks; grey, when its text is removed; the black line is natural tokens rendered in the same way. "
            "Points are seeds."
        )
        with self.figure("networks", caption, 1, 2, (10, 3.6)) as (_, axes):
            self._bars(axes[0][0], read, "asr_wer", {"speech": "own"}, {"speech": "other"})
            self._bars(axes[0][1], spoken, "tts_wer", {"text": "given"}, {"text": "removed"})
            for place, arm in enumerate(spoken):
                level = np.mean(self._means(arm, "ceiling_wer", ""))
                axes[0][1].plot([place - 0.4, place + 0.4], [level, level], color="#222222")
            axes[0][0].set_title("reading", fontsize=9)
            axes[0][1].set_title("speaking", fontsize=9)

    def _bars(self, axis, arms: dict[str, str], metric: str, own: dict, blind: dict) -> None:
        for shift, at, colour in ((-0.2, own, _COLOUR), (0.2, blind, _BLIND)):
            for place, arm in enumerate(arms):
                values = self._means(arm, metric, condition(at))
                axis.bar(place + shift, np.mean(values), 0.38, color=colour, alpha=0.6)
                axis.plot([place + shift] * len(values), values, ".", color="#222222", markersize=4)
        axis.set_xticks(range(len(arms)), [label.replace(", ", ",\n") for label in arms.values()], fontsize=7)
        axis.set_ylabel("word error rate (%)")
