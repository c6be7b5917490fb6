"""The energy of a token: high inside a large cluster of similar tokens, low for one that stands alone.

    E_i = 1/N sum_j f_m(c_ij),      c_ij = cos(k_i, k_j)

    paper    f_m(c) = c                            where c >= m, and alpha (e^(c - m) - 1) below,     alpha = 1
    code     f_m(c) = ELU(c - m)                   the upper branch shifted by m as well
    kernel   f_m(c) = exp(-((1 - c) / sigma)^2/2)  sigma = 1 - m, the authors' choice for text

The margin m falls with depth, because tokens grow alike: m_l = m_0 - d l / L, with d = m_0 for images.

Letters: `B` sequences, `N` tokens, `C` width of the metric, `l` a block of `L`.

Source: Tran et al. 2024 (PiToMe), equation 4 and its appendix; the authors' released code for the other two.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.compression.merging.plan import Depth, MergeError

Energy = Literal["code", "paper", "kernel"]
_ENTRIES, _ENTRIES_ELSEWHERE = 1 << 20, 1 << 27


def directions(metric: Tensor) -> Tensor:
    """Return unit vectors, (B, N, C), of a metric (B, N, C); their products are cosines."""
    return F.normalize(metric, dim=-1)


def margin_at(margin: float, fall: float | None, depth: Depth) -> float:
    """Return m_l.

    Args:
        margin: m_0, of the first block.
        fall: d; m_0 where None.
        depth: l and L.
    """
    return margin - (margin if fall is None else fall) * depth.layer / depth.layers


def energies(unit: Tensor, margin: float, kind: Energy) -> Tensor:
    """Return E_i, (B, N), of unit vectors (B, N, C).

    Of the cosines (B, N, N) only some sequences' are held at once, as many as a processor's cache takes.

    Raises:
        MergeError: There is no energy of this name.
    """
    if kind not in ("code", "paper", "kernel"):
        raise MergeError(f"energy is {kind!r}; expected 'code', 'paper' or 'kernel'.")
    at_once = max(1, (_ENTRIES if unit.device.type == "cpu" else _ENTRIES_ELSEWHERE) // unit.shape[1] ** 2)
    parts = [_response(part @ part.transpose(1, 2), margin, kind).mean(-1) for part in unit.split(at_once)]
    return torch.cat(parts)


def _response(cosine: Tensor, margin: float, kind: Energy) -> Tensor:
    if kind == "code":
        return F.elu(cosine - margin)
    if kind == "paper":
        return torch.where(cosine >= margin, cosine, torch.expm1(cosine - margin))
    return torch.exp(-((1 - cosine) / (1 - margin)).square() / 2)
