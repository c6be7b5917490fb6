"""Sound from magnitudes alone: phases by alternating projections, magnitudes from mel bands by nonnegative inversion.

    c <- STFT(ISTFT(A exp(i arg t))),   t <- c + momentum (c - c'),     c' the c before

A are the magnitudes wanted. Without momentum the misfit of |STFT(x)| to A never rises from one iteration to the next.

Letters: `B` waveforms, `S` samples, `T` frames, `N` bins, `M` mel bands.

Sources: Griffin and Lim 1984, "Signal Estimation from Modified Short-Time Fourier Transform"; momentum: Perraudin,
Balazs and Sondergaard 2013, "A fast Griffin-Lim algorithm"; mel inversion: Lee and Seung 2001 (multiplicative updates).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.audio.spectra import LogMelFrames, Stft
from components.errors import TesseraError

_TINY = 1e-9


class GriffinLimError(TesseraError):
    """Phases were asked for in a way that has no meaning."""


@torch.no_grad()
def griffin_lim(
    magnitudes: Tensor, stft: Stft, *, iterations: int, generator: torch.Generator, momentum: float = 0.9
) -> Tensor:
    """Return waveforms (B, T h) whose spectra have about the magnitudes (B, T, N).

    Args:
        magnitudes: |X|, (B, T, N).
        stft: Transform that they belong to, on their device.
        iterations: Projections.
        generator: Draws the first phases, on any device.
        momentum: Share of the last change that is added on; 0 for the plain algorithm.

    Raises:
        GriffinLimError: There is no iteration, or the momentum is not in [0, 1).
    """
    if iterations < 1 or not 0 <= momentum < 1:
        raise GriffinLimError(f"iterations is {iterations}, momentum {momentum}; expected >= 1 and in [0, 1).")
    turns = torch.rand(magnitudes.shape, generator=generator, device=generator.device).to(magnitudes.device)
    target = torch.polar(magnitudes, 2 * torch.pi * turns)
    before = torch.zeros_like(target)
    for _ in range(iterations):
        consistent = stft(stft.inverse(_with(magnitudes, target)))
        target = consistent + momentum * (consistent - before)
        before = consistent
    return stft.inverse(_with(magnitudes, target))


@torch.no_grad()
def magnitudes_of(log_mel: Tensor, frames: LogMelFrames, *, iterations: int = 30) -> Tensor:
    """Return nonnegative magnitudes (B, T, N) whose mel bands are about those of log-mel frames (B, T, M).

    Least squares under A >= 0 by A <- A (Y W^T) / (A W W^T), from a spread of every band over its bins.
    """
    mel, weights = log_mel.exp(), frames.triangles  # (N, M)
    magnitudes = (mel / weights.sum(0)) @ (weights / weights.sum(1, keepdim=True).clamp(min=_TINY)).t()
    wanted = mel @ weights.t()
    for _ in range(iterations):
        magnitudes = magnitudes * wanted / ((magnitudes @ weights) @ weights.t()).clamp(min=_TINY)
    return magnitudes


def resynthesised(waveform: Tensor, frames: LogMelFrames, *, iterations: int, generator: torch.Generator) -> Tensor:
    """Return waveforms (B, S) rendered from their own log-mel frames: what mel bands alone say about them."""
    with torch.no_grad():
        magnitudes = magnitudes_of(frames(waveform), frames)
    return griffin_lim(magnitudes, frames.stft, iterations=iterations, generator=generator)[:, : waveform.shape[1]]


def _with(magnitudes: Tensor, phases: Tensor) -> Tensor:
    return magnitudes * (phases / phases.abs().clamp(min=_TINY))
