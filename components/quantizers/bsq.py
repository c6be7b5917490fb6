"""Binary spherical quantization: the signs of a unit vector, on the sphere.

Letters: `...` any leading axes (batch, tokens), `D` bits.

Source: Zhao, Xiong, Kraehenbuehl 2024 (BSQ), section 4.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from components.quantizers.bit_entropy import code_entropies
from components.quantizers.lfq import sign_places
from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule, straight_through


class BinarySphericalQuantizer(QuantizerModule):
    """Codes {-1, 1}^D / sqrt(D): 2^D corners of a cube inside the unit sphere.

        u = z / ||z||,   values = sign(u) / sqrt(D), sign -1 at 0, with the gradient of u
        loss = entropy_weight * (E[H(p(. | u))] - H(E[p(. | u)]))
        p(c | u) proportional to exp(inverse_temperature * c . u),  so p(bit i is 1) = sigma(2 tau u_i / sqrt(D))

    The error ||u - q|| is at most sqrt(2 - 2 / sqrt(D)), reached on a coordinate axis, so no commitment is needed. The
    first entropy is exact; the second is taken of the product of bit frequencies, an upper bound that ignores
    dependence between bits (components.quantizers.bit_entropy). Index: bit i is worth 2^i.

    Args:
        code_dim: D, at most 62.
        entropy_weight: Weight of the entropy term; 0 leaves it out.
        inverse_temperature: tau.
    """

    def __init__(self, code_dim: int, *, entropy_weight: float = 0.1, inverse_temperature: float = 2.0) -> None:
        places = sign_places(code_dim)
        super().__init__(code_dim, (1 << code_dim,))
        if inverse_temperature <= 0:
            raise QuantizerError(
                f"BinarySphericalQuantizer(inverse_temperature={inverse_temperature}): expected above 0."
            )
        self.entropy_weight = entropy_weight
        self.inverse_temperature = inverse_temperature
        self.scale = code_dim**-0.5
        self.places = places

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D); they are l2-normalised first."""
        self.check_vectors(vectors)
        vectors = vectors.float()
        with without_autocast(vectors.device):
            unit = F.normalize(vectors, dim=-1)
            bits = unit.detach() > 0
            loss = unit.new_zeros(())
            if self.entropy_weight:
                per_vector, of_batch = code_entropies(unit * (2 * self.inverse_temperature * self.scale))
                loss = self.entropy_weight * (per_vector - of_batch)
            values = straight_through(self._corners(bits), unit)
        return Quantized(values, self.places.join(bits), loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return self._corners(self.digits(indices))

    def digits(self, indices: Tensor) -> Tensor:
        """Return the bits, int64 (..., D), of `indices` (...)."""
        return self.places.split(indices)

    def _corners(self, bits: Tensor) -> Tensor:
        return bits.float().mul_(2).sub_(1).mul_(self.scale)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = BinarySphericalQuantizer
