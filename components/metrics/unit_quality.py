"""How much units say about phones, from the frames that carry both.

    I(Y; Z) = sum_{y, z} p(y, z) log2 p(y, z) / (p(y) p(z)),    normalised: I(Y; Z) / H(Y)

Letters: `N` frames, `Y` phones, `Z` units.

Source: Hsu et al. 2021, "HuBERT", section IV-D (phone purity, cluster purity, phone-normalised mutual information).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.errors import TesseraError


class UnitQuality(NamedTuple):
    """What units tell about phones.

    Attributes:
        mutual_information: I(Y; Z), bits.
        normalised_information: Share of the phones' entropy that units explain.
        phone_purity: Share of frames whose phone is the commonest one of their unit.
        cluster_purity: Share of frames whose unit is the commonest one of their phone.
    """

    mutual_information: float
    normalised_information: float
    phone_purity: float
    cluster_purity: float


def unit_quality(phones: Tensor, units: Tensor) -> UnitQuality:
    """Measure units against phones.

    Args:
        phones: int64 (N,), from 0.
        units: int64 (N,), from 0.

    Raises:
        TesseraError: There are no frames, or not one unit for each phone.
    """
    if phones.shape != units.shape or not phones.numel():
        raise TesseraError(f"phones {list(phones.shape)}, units {list(units.shape)}; expected one of each a frame.")
    rows, columns = int(phones.max()) + 1, int(units.max()) + 1
    joint = torch.bincount(phones * columns + units, minlength=rows * columns).view(rows, columns).double()
    joint /= joint.sum()
    phone, unit = joint.sum(1), joint.sum(0)
    information = float(_entropy(phone) + _entropy(unit) - _entropy(joint))
    entropy = float(_entropy(phone))
    return UnitQuality(
        information,
        information / entropy if entropy else 0.0,
        float(joint.amax(0).sum()),
        float(joint.amax(1).sum()),
    )


def _entropy(law: Tensor) -> Tensor:
    return -torch.special.xlogy(law, law).sum() / torch.log(torch.tensor(2.0, dtype=torch.float64))
