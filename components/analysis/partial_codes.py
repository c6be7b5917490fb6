"""What a part of a multi-index code is worth: the first of a vector's indices, the rest unknown.

A residual code is a sum that gets finer, so its first m terms are a code by themselves. A product code names parts of
the vector; what was not named is best replaced by its mean.

Letters: `...` any leading axes, `D` width of a vector, `M` indices per vector, `m` of them known.

Sources: Zeghidour et al. 2021 (SoundStream, section III-C: fewer codebooks at test time); Jegou, Douze, Schmid 2011
(product quantization: the mean of an unknown part has the least squared error).
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError
from components.quantizers.additive import AdditiveQuantizer
from components.quantizers.pq import ProductQuantizer
from components.quantizers.quantized import QuantizerModule
from components.quantizers.rvq import ResidualQuantizer


class PartialCodeError(TesseraError):
    """A part of a code that has no meaning was asked for."""


def has_partial_codes(quantizer: QuantizerModule) -> bool:
    """Tell whether the first indices of a vector can be decoded: residual codes, and products of single codebooks."""
    if isinstance(quantizer, ProductQuantizer):
        return len(quantizer.parts) == len(quantizer.codebook_sizes)
    return isinstance(quantizer, ResidualQuantizer) and not isinstance(quantizer, AdditiveQuantizer)


@torch.no_grad()
def decode_first(quantizer: QuantizerModule, indices: Tensor, known: int, mean: Tensor) -> Tensor:
    """Decode the first `known` indices of every vector.

    Args:
        quantizer: Residual or product quantizer.
        indices: All indices, (..., M).
        known: m, 1 to M.
        mean: Mean of the quantized vectors, (D,): what stands for the unknown parts of a product.

    Returns:
        (..., D).

    Raises:
        PartialCodeError: The quantizer has no partial codes, or m is not in 1 to M.
    """
    if not has_partial_codes(quantizer):
        raise PartialCodeError(
            f"{type(quantizer).__name__} has no code in its first indices; expected a residual or a product quantizer "
            "whose parts have one index each."
        )
    if not 1 <= known <= len(quantizer.codebook_sizes):
        raise PartialCodeError(f"cannot keep {known} of {len(quantizer.codebook_sizes)} indices.")
    if isinstance(quantizer, ResidualQuantizer):
        return quantizer.decode(indices[..., :known])
    width = sum(part.code_dim for part in quantizer.parts[:known])
    values = quantizer.decode(indices)
    return torch.cat([values[..., :width], mean[width:].to(values).expand(*values.shape[:-1], -1)], -1)
