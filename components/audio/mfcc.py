"""Mel cepstra with their slopes: the first targets of a speech encoder that learns without labels.

    c[t, k] = sqrt(2 / M) sum_m y[t, m] cos(pi k (m + 1/2) / M)     (k = 0 divided by sqrt 2)
    delta[t] = sum_{n=1..2} n (c[t+n] - c[t-n]) / 10                and delta of delta

Letters: `B` utterances, `T` frames, `M` mel bands, `C` cepstra.

Sources: Davis and Mermelstein 1980 (cepstra of mel bands); Furui 1986 (slopes by regression); Young et al. 2006 (HTK
book, section 5.9).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_REACH = 2


def cepstra(log_mel: Tensor, count: int = 13) -> Tensor:
    """Return the first C cosine coefficients (B, T, C) of log-mel frames (B, T, M)."""
    bands = log_mel.shape[-1]
    places = torch.arange(bands, dtype=torch.float64, device=log_mel.device) + 0.5
    orders = torch.arange(count, dtype=torch.float64, device=log_mel.device)
    basis = (math.pi / bands * orders[:, None] * places).cos() * math.sqrt(2 / bands)
    basis[0] /= math.sqrt(2)
    return log_mel @ basis.t().to(log_mel)


def slopes(frames: Tensor) -> Tensor:
    """Return the slope of every channel by regression over five frames, (B, T, C); ends repeat the last frame."""
    steps = torch.arange(-_REACH, _REACH + 1, dtype=frames.dtype, device=frames.device)
    kernel = (steps / steps.square().sum()).expand(frames.shape[-1], 1, -1)
    padded = F.pad(frames.transpose(1, 2), (_REACH, _REACH), mode="replicate")
    return F.conv1d(padded, kernel, groups=frames.shape[-1]).transpose(1, 2)


def with_slopes(log_mel: Tensor, lengths: Tensor, count: int = 13) -> Tensor:
    """Return cepstra, their slopes and the slopes of these, (B, T, 3 C).

    Args:
        log_mel: Log-mel frames (B, T, M).
        lengths: Frames of each utterance, int64 (B,); behind its end the last frame is repeated, so that an utterance
            gets what it would get alone.
        count: C.
    """
    static = _held(cepstra(log_mel, count), lengths)
    first = _held(slopes(static), lengths)
    return torch.cat([static, first, _held(slopes(first), lengths)], -1)


def _held(frames: Tensor, lengths: Tensor) -> Tensor:
    places = torch.arange(frames.shape[1], device=frames.device)
    places = torch.minimum(places, (lengths[:, None] - 1).clamp(min=0))
    return frames.gather(1, places[..., None].expand_as(frames))
