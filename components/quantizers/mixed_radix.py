"""One index for several small ones: digits of a number whose places have different bases.

Letters: `...` any leading axes, `M` digits, `L` values of a digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.quantizers.quantized import QuantizerError

_LARGEST_EXPONENT = 63
_EXACT_IN_DOUBLE = 1 << 53


class MixedRadix(nn.Module):
    """Index d_1 + L_1 d_2 + L_1 L_2 d_3 + ... of digits d_i in [0, L_i): the first digit varies fastest.

    Args:
        sizes: L_1, ..., L_M.

    Raises:
        QuantizerError: The largest index would not fit int64.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        count = math.prod(sizes)
        if count > 1 << _LARGEST_EXPONENT:
            raise QuantizerError(
                f"{len(sizes)} dimensions of {list(sizes)} levels have more than 2^{_LARGEST_EXPONENT} codes, too many "
                "for one integer index. Split the channels: components.quantizers.channel_split."
            )
        worth = [1]
        for size in sizes[:-1]:
            worth.append(worth[-1] * size)
        self._exact_in_double = count <= _EXACT_IN_DOUBLE
        self.register_buffer("worth", torch.tensor(worth), persistent=False)
        self.register_buffer("sizes", torch.tensor(list(sizes)), persistent=False)

    def join(self, digits: Tensor) -> Tensor:
        """Return the index, int64 (...), of digits (..., M) of any type that holds them exactly."""
        if self._exact_in_double:
            # A product with a vector instead of a sum over a short axis: several times faster, and as exact.
            return (digits.double() @ self.worth.double()).long()
        return (digits.long() * self.worth).sum(-1)

    def split(self, indices: Tensor) -> Tensor:
        """Return the digits, int64 (..., M), of indices (...)."""
        return indices.unsqueeze(-1).div(self.worth, rounding_mode="floor").remainder_(self.sizes)
