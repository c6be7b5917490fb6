"""Vector quantization: the nearest of K codes in squared distance.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size.

Source: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE), section 3 and appendix A.1. With unit-norm codes:
components.quantizers.vq.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.quantizers.codebook import Codebook
from components.quantizers.quantized import Quantized, QuantizerModule, straight_through


class EuclideanQuantizer(QuantizerModule):
    """Nearest of K codes, with straight-through gradient.

    With q = e_k, k = argmin_k ||z - e_k||^2:

        values = q + (z - sg(z))                                  value of q, gradient of z
        loss   = ||sg(z) - q||^2 + commitment_weight * ||z - sg(q)||^2        mean over vectors

    The first term moves the codes; codes that follow a moving average do without it.

    Args:
        codebook_size: K.
        code_dim: D.
        commitment_weight: Weight of the commitment term.
        code_ema_decay: Decay of the moving average of the codes; None trains the codes by gradient.
        restart_every: Steps between restarts of rarely used codes; 0 never restarts.
        restart_below: A code is restarted that fewer vectors than this chose since the last time.
    """

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        commitment_weight: float = 0.25,
        code_ema_decay: float | None = None,
        restart_every: int = 0,
        restart_below: int = 1,
    ) -> None:
        super().__init__(code_dim, (codebook_size,))
        self.commitment_weight = commitment_weight
        self.codebook = Codebook(
            codebook_size,
            code_dim,
            ema_decay=code_ema_decay,
            restart_every=restart_every,
            restart_below=restart_below,
        )

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        self.check_vectors(vectors)
        indices = self.codebook.nearest(vectors)
        chosen = self.codebook.lookup(indices)
        codes = chosen.detach()
        loss = self.commitment_weight * squared_error(vectors, codes)
        if self.codebook.learns_by_gradient:
            loss = loss + squared_error(vectors.detach(), chosen)
        if self.training:
            self.codebook.remember(vectors, indices)
        return Quantized(straight_through(codes, vectors), indices, loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return self.codebook.lookup(indices)

    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Put the codes onto the k-means centres of `vectors` (..., D)."""
        self.check_vectors(vectors)
        self.codebook.start_from(vectors, generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Move the averaged codes and restart rarely used ones; call once after every optimiser step."""
        self.codebook.after_step(step, generator)


def squared_error(vectors: Tensor, codes: Tensor) -> Tensor:
    """Return ||v - e||^2, the sum over D of `vectors` (..., D) and `codes` (..., D), mean over vectors."""
    return (vectors - codes).square().sum(-1).mean()


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = EuclideanQuantizer
