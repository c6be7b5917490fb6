"""k-means quantization: codes made after training, from the vectors of a finished encoder.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size.

Source: Lloyd 1982; as units of speech: Hsu et al. 2021 (HuBERT), section II-A.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.quantizers.clustering import kmeans
from components.quantizers.nearest import nearest_codes
from components.quantizers.quantized import Quantized, QuantizerModule, straight_through


class KMeansQuantizer(QuantizerModule):
    """Nearest of K fixed centres, which `start_from` puts into the means of k clusters.

    Nothing is learnt afterwards and there is no loss; a gradient passes straight through.

    Args:
        codebook_size: K.
        code_dim: D.
        iterations: Lloyd's iterations after k-means++ seeding, fewer where they settle before.
    """

    def __init__(self, codebook_size: int, code_dim: int, *, iterations: int = 100) -> None:
        super().__init__(code_dim, (codebook_size,))
        self.iterations = iterations
        self.register_buffer("centres", torch.randn(codebook_size, code_dim) * code_dim**-0.5)

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        self.check_vectors(vectors)
        indices = nearest_codes(vectors, self.centres)
        values = straight_through(F.embedding(indices, self.centres), vectors)
        return Quantized(values, indices, self.centres.new_zeros(()))

    def decode(self, indices: Tensor) -> Tensor:
        """Return the centres (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return F.embedding(indices, self.centres)

    @torch.no_grad()
    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Cluster `vectors` (..., D), all that the codes shall be made from."""
        self.check_vectors(vectors)
        flat = vectors.reshape(-1, self.code_dim)
        self.centres.copy_(kmeans(flat, self.codebook_size, generator, iterations=self.iterations, seeding="plus_plus"))


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = KMeansQuantizer
