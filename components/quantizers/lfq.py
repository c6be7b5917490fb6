"""Lookup-free quantization: the signs of a vector are its code.

Letters: `...` any leading axes (batch, tokens), `D` bits.

Source: Yu et al. 2023 (MAGVIT-v2), section 3.1.
"""

from __future__ import annotations

from torch import Tensor

from components.quantizers.bit_entropy import code_entropies
from components.quantizers.mixed_radix import MixedRadix
from components.quantizers.precision import without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule, straight_through


class LookupFreeQuantizer(QuantizerModule):
    """Codes {-1, 1}^D: 2^D of them, and no search.

        values = sign(z), -1 at 0, with the gradient of z
        loss   = entropy_weight * (E[H(p(. | z))] - H(E[p(. | z)])) + commitment_weight * E||z - sg(sign(z))||^2
        p(c | z) proportional to exp(-||z - c||^2 / entropy_temperature),  so p(bit i is 1) = sigma(4 z_i / temperature)

    The first entropy makes vectors decide, the second spreads them over the codes. The first is exact; the second is
    taken of the product of bit frequencies, an upper bound that ignores dependence between bits
    (components.quantizers.bit_entropy). Index: bit i is worth 2^i.

    Args:
        code_dim: D, at most 62.
        entropy_weight: Weight of the entropy term; 0 leaves it out.
        commitment_weight: Weight of the commitment term.
        entropy_temperature: Temperature of the soft assignment, in squared distance.
    """

    def __init__(
        self,
        code_dim: int,
        *,
        entropy_weight: float = 0.1,
        commitment_weight: float = 0.25,
        entropy_temperature: float = 0.01,
    ) -> None:
        places = sign_places(code_dim)
        super().__init__(code_dim, (1 << code_dim,))
        if entropy_temperature <= 0:
            raise QuantizerError(f"LookupFreeQuantizer(entropy_temperature={entropy_temperature}): expected above 0.")
        self.entropy_weight = entropy_weight
        self.commitment_weight = commitment_weight
        self.entropy_temperature = entropy_temperature
        self.places = places

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        self.check_vectors(vectors)
        vectors = vectors.float()
        bits = vectors.detach() > 0
        codes = bits.float().mul_(2).sub_(1)
        with without_autocast(vectors.device):
            loss = self.commitment_weight * (vectors - codes).square().sum(-1).mean()
            if self.entropy_weight:
                per_vector, of_batch = code_entropies(vectors * (4 / self.entropy_temperature))
                loss = loss + self.entropy_weight * (per_vector - of_batch)
        return Quantized(straight_through(codes, vectors), self.places.join(bits), loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return self.digits(indices).float().mul_(2).sub_(1)

    def digits(self, indices: Tensor) -> Tensor:
        """Return the bits, int64 (..., D), of `indices` (...)."""
        return self.places.split(indices)


def sign_places(code_dim: int) -> MixedRadix:
    """Return how D bits make an index.

    Raises:
        QuantizerError: The index would not fit int64.
    """
    if not 1 <= code_dim <= 62:
        raise QuantizerError(
            f"a code of {code_dim} bits does not fit an int64 index; expected 1 to 62 bits. Split wider vectors: "
            "components.quantizers.channel_split."
        )
    return MixedRadix([2] * code_dim)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = LookupFreeQuantizer
