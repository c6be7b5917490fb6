"""Figures of One-D-Piece: prefixes, quality by length, contribution by position, first tokens, equal bytes."""

from __future__ import annotations

import io
import math

import numpy as np
import polars as pl
from PIL import Image

from flows.declarations.resolve import resolve
from flows.studies.context import JudgeContext
from flows.studies.image_tokenizer.judge import Figures, show

_LABELS = {
    "tail_drop": "tail drop",
    "no_drop": "no drop",
    "drop_pow2": "drop to powers of two",
    "fixed_k_4": "4 tokens only",
    "fixed_k_8": "8 tokens only",
    "fixed_k_16": "16 tokens only",
    "jpeg": "JPEG",
    "webp": "WebP",
}
_SHOWN_IMAGES = 4
_CROP = 96  # pixels of a photograph that are shown, so that the file stays small


def derive(stage: JudgeContext) -> None:
    """Draw the figures that the variant's arms allow."""
    figures = _Figures(stage, _LABELS)
    tokenizers = [arm for arm in _LABELS if arm not in ("jpeg", "webp") and figures.has(arm)]
    params = resolve(stage.paper, stage.variant, tokenizers[0], stage.profile, "evaluate")
    figures.quality(tokenizers, math.log2(params.codebook_size))
    pair = [arm for arm in ("tail_drop", "no_drop") if figures.has(arm)]
    figures.prefixes(pair)
    figures.positions(pair)
    figures.first_tokens(pair[0])
    coders = [arm for arm in ("tail_drop", "jpeg", "webp") if figures.has(arm)]
    if len(coders) == 3:
        figures.equal_bytes(coders)
        figures.photographs(coders)


class _Figures(Figures):
    def prefixes(self, arms: list[str]) -> None:
        caption = (
            "Test images decoded from the first 1, 2, 4, ... of their tokens, beside the original, by the tokenizer "
            "trained with tail drop and by the one trained without. The paper's point: with tail drop any prefix is a "
            "picture that sharpens with its length; without it no position was taught to stand alone."
        )
        frames = {arm: self.samples(arm, "image") for arm in arms}
        lengths = sorted(set(frames[arms[0]]["at"]) - {0})
        columns, rows = [*lengths, 0], _SHOWN_IMAGES * len(arms)
        with self.figure("prefixes", caption, rows, len(columns), (len(columns) * 0.85, rows * 0.85)) as (_, axes):
            for block, arm in enumerate(arms):
                files = {(row["item"], row["at"]): row["image"] for row in frames[arm].iter_rows(named=True)}
                for image in range(_SHOWN_IMAGES):
                    row = axes[block * _SHOWN_IMAGES + image]
                    for axis, length in zip(row, columns, strict=True):
                        show(axis, files.get((str(image), length)))
                    row[0].set_ylabel(self.label(arm), fontsize=7)
            for axis, length in zip(axes[0], columns, strict=True):
                axis.set_title(f"{length} token{'s' * (length > 1)}" if length else "original", fontsize=8)

    def positions(self, arms: list[str]) -> None:
        caption = (
            "What each token position carries. Left: how far the decoded image moves, in grey levels of 255, when the "
            "token at a position is replaced by a random code. Right: how much the code at a position says about the "
            "class of the image, in bits above chance. The paper's point: with tail drop the contribution falls along "
            "the sequence, without it no position is special. Lines are means over seeds, thin lines single seeds."
        )
        with self.figure("positions", caption, 1, 2, (8.2, 3.2)) as (figure, axes):
            for axis, metric, unit in zip(
                axes[0],
                ("token_contribution", "class_information"),
                ("mean pixel change (grey levels)", "class information (bits)"),
                strict=True,
            ):
                self.lines(axis, arms, metric, "position", markers=".")
                axis.set_xlabel("position in the token sequence")
                axis.set_ylabel(unit)
            axes[0][0].set_yscale("log")
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms))

    def first_tokens(self, arm: str) -> None:
        caption = (
            "Test images that share their first token, one row for each of the most frequent first tokens of the "
            "tail-drop tokenizer. What the images of a row have in common is what the first token says."
        )
        frame = self.samples(arm, "first token")
        ranks = sorted(set(frame["at"]))
        columns = int(frame.group_by("at").len()["len"].max())
        with self.figure("first-tokens", caption, len(ranks), columns, (columns * 0.7, len(ranks) * 0.75)) as (_, axes):
            for row, rank in zip(axes, ranks, strict=True):
                files = frame.filter(pl.col("at") == rank)["image"].to_list()
                for axis, file in zip(row, [*files, *[None] * (columns - len(files))], strict=True):
                    show(axis, file)
                row[0].set_ylabel(f"code {rank}", fontsize=7)

    def equal_bytes(self, coders: list[str]) -> None:
        caption = (
            "Whole 256-pixel photographs that no training saw, at equal bytes: the tail-drop tokenizer on 64 tiles of "
            "32 pixels against JPEG and WebP on the whole image, whose headers and tables are not counted. Left: peak "
            "signal-to-noise ratio. Middle: multi-scale structural similarity. Right: Frechet distance between "
            "features of the tiles (lower is better). Means over photographs."
        )
        panels = {
            "psnr_photographs": "PSNR (dB)",
            "ms_ssim_photographs": "MS-SSIM",
            "fd_tiles": "fd-tiles",
        }
        with self.figure("equal-bytes", caption, 1, 3, (9.2, 3.1)) as (figure, axes):
            for axis, (metric, unit) in zip(axes[0], panels.items(), strict=True):
                self.lines(axis, coders, metric, "bytes")
                axis.set_xlabel("bytes per photograph")
                axis.set_ylabel(unit)
            figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(coders))

    def photographs(self, coders: list[str]) -> None:
        caption = (
            f"The central {_CROP} x {_CROP} pixels of a photograph at equal bytes for the whole 256-pixel photograph. "
            "The tokenizer's seams between 32-pixel tiles are left as they are; JPEG and WebP may scale the photograph "
            "down before coding and use that where it is better."
        )
        frames = {arm: self.samples(arm, "photograph") for arm in coders}
        first = frames[coders[0]]["item"][0]
        budgets = sorted(set(frames[coders[0]]["at"]) - {0})
        columns = len(coders) + 1
        size = (columns * 1.7, len(budgets) * 1.75)
        with self.figure("photographs", caption, len(budgets), columns, size) as (_, axes):
            for row, budget in zip(axes, budgets, strict=True):
                for axis, arm in zip(row, coders, strict=False):
                    show(axis, _crop(_file(frames[arm], first, budget)))
                    axis.set_title(f"{self.label(arm)}, {budget:,} bytes", fontsize=8)
                show(row[-1], None)
            show(axes[0][-1], _crop(_file(frames[coders[0]], first, 0)))
            axes[0][-1].set_title("original", fontsize=8)


def _file(frame: pl.DataFrame, item: str, at: int) -> bytes:
    return frame.filter((pl.col("item") == item) & (pl.col("at") == at))["image"].item()


def _crop(file: bytes) -> bytes:
    image = np.asarray(Image.open(io.BytesIO(file)))
    top, left = (image.shape[0] - _CROP) // 2, (image.shape[1] - _CROP) // 2
    buffer = io.BytesIO()
    Image.fromarray(image[top : top + _CROP, left : left + _CROP]).save(buffer, "PNG")
    return buffer.getvalue()
