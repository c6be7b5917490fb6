"""The rotation trick: a gradient that passes a quantizer by the rotation that leads from the vector to its code.

    values = lambda R z,     R z / ||z|| = q / ||q||,     lambda = ||q|| / ||z||

with R the rotation in the plane of z and q. lambda and R are held constant, so that the gradient is turned and scaled
as the vector was: lambda R^T g instead of the straight-through g. Gradients keep their angle to the code.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size.

Source: Fifty et al. 2024 (Restructuring Vector Quantization with the Rotation Trick), section 4.2: R by reflections.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, straight_through

_LEAST = 1e-6


def rotate_onto(codes: Tensor, vectors: Tensor) -> Tensor:
    """Return `codes`, bit for bit, with the gradient of lambda R `vectors`.

        R = I - 2 r r^T + 2 q^ z^^T,     r = (z^ + q^) / ||z^ + q^||,     z^ and q^ of length one

    R has determinant 1 and moves nothing outside the plane of z and q. Where they point in opposite directions there is
    no one such plane, and r is left out.

    Args:
        codes: q (..., D), taken as constants.
        vectors: z (..., D).
    """
    with without_autocast(vectors.device):
        vectors, codes = vectors.float(), codes.detach().float()
        start = vectors.detach()
        length = start.norm(dim=-1, keepdim=True).clamp(min=_LEAST)
        start, end = start / length, F.normalize(codes, dim=-1, eps=_LEAST)
        between = F.normalize(start + end, dim=-1, eps=_LEAST)
        turned = (
            vectors
            - 2 * (vectors * between).sum(-1, keepdim=True) * between
            + 2 * (vectors * start).sum(-1, keepdim=True) * end
        )
        return straight_through(codes, turned * (codes.norm(dim=-1, keepdim=True) / length))


class RotationTrickQuantizer(EuclideanQuantizer):
    """Nearest of K codes in squared distance, with the gradient of the rotation trick; see EuclideanQuantizer."""

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        _, indices, loss = super().forward(vectors)
        return Quantized(rotate_onto(self.codebook.lookup(indices), vectors), indices, loss)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = RotationTrickQuantizer
