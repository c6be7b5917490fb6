"""One index for several small ones: digits of a number whose places have different bases.

Letters: `...` any leading axes, `M` digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from components.quantizers.quantized import QuantizerError

_LARGEST_EXPONENT = 63


def place_values(sizes: Sequence[int]) -> Tensor:
    """Return the worth of each digit, int64 (M,): 1, L_1, L_1 L_2, ... for digits of L_1, L_2, ... values.

    Raises:
        QuantizerError: The largest index would not fit int64.
    """
    if math.prod(sizes) > 1 << _LARGEST_EXPONENT:
        raise QuantizerError(
            f"{len(sizes)} dimensions of {list(sizes)} levels have more than 2^{_LARGEST_EXPONENT} codes, too many for "
            "one integer index. Split the channels: components.quantizers.channel_split."
        )
    worth = [1]
    for size in sizes[:-1]:
        worth.append(worth[-1] * size)
    return torch.tensor(worth)


def join_digits(digits: Tensor, worth: Tensor) -> Tensor:
    """Return the index (...) of digits (..., M), the first varying fastest."""
    return (digits * worth).sum(-1)


def split_digits(indices: Tensor, worth: Tensor, sizes: Tensor) -> Tensor:
    """Return the digits (..., M) of indices (...)."""
    return indices.unsqueeze(-1).div(worth, rounding_mode="floor").remainder_(sizes)
