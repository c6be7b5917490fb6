"""Residual vector quantization: each codebook quantizes what the ones before it left over.

    r_0 = z,     e_j = nearest code of book j to r_{j-1},     r_j = r_{j-1} - e_j,     values = sum_j e_j

so z = values + r_M, and the first m indices are a coarser code of z for every m <= M.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size, `M` codebooks, `m` used.

Sources: Juang and Gray 1982 (multiple-stage quantization); Zeghidour et al. 2021 (SoundStream, section III-C: residual
quantizer, k-means start, quantizer dropout); Defossez et al. 2022 (EnCodec, section 3.2 and 3.4: sum of commitments).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.quantizers.codebook import Codebook
from components.quantizers.euclidean_vq import squared_error
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule, straight_through


class ResidualQuantizer(QuantizerModule):
    """M codebooks of K codes, applied to successive residuals.

        loss = sum_j ||sg(r_{j-1}) - e_j||^2 + commitment_weight * ||r_{j-1} - sg(e_j)||^2       mean over vectors

    with the first term only for codes that learn by gradient. Gradients pass straight through the sum; residuals treat
    earlier codes as constants. Quantizer dropout is the caller's draw of m, one per step, because it decides shapes:
    `components.compression.tail_drop.draw_kept(M, law, generator)`.

    Args:
        codebook_size: K, of every codebook.
        code_dim: D.
        codebooks: M.
        commitment_weight: Weight of the commitment terms.
        code_ema_decay: Decay of the moving average of the codes; None trains the codes by gradient.
        restart_every: Steps between restarts of rarely used codes; 0 never restarts.
        restart_below: A code is restarted that fewer vectors than this chose since the last time.
    """

    indices_have_an_axis = True

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        codebooks: int,
        commitment_weight: float = 0.25,
        code_ema_decay: float | None = None,
        restart_every: int = 0,
        restart_below: int = 1,
    ) -> None:
        super().__init__(code_dim, (codebook_size,) * codebooks)
        self.commitment_weight = commitment_weight
        self.codebooks = nn.ModuleList(
            Codebook(
                codebook_size,
                code_dim,
                ema_decay=code_ema_decay,
                restart_every=restart_every,
                restart_below=restart_below,
            )
            for _ in range(codebooks)
        )

    def forward(self, vectors: Tensor, used: int | None = None) -> Quantized:
        """Quantize `vectors` (..., D) with the first `used` codebooks (all by default): indices (..., m)."""
        self.check_vectors(vectors)
        used = len(self.codebooks) if used is None else used
        if not 1 <= used <= len(self.codebooks):
            raise QuantizerError(
                f"ResidualQuantizer was asked to use {used} of its {len(self.codebooks)} codebooks; expected 1 to "
                f"{len(self.codebooks)}."
            )
        residual, total, loss, indices = vectors, None, 0.0, []
        for codebook in self.codebooks[:used]:
            index = codebook.nearest(residual)
            chosen = codebook.lookup(index)
            codes = chosen.detach()
            if codebook.learns_by_gradient:
                loss = loss + squared_error(residual.detach(), chosen)
            if self.training:
                codebook.remember(residual, index)
            residual = residual - codes
            loss = loss + self.commitment_weight * residual.square().sum(-1).mean()
            total = codes if total is None else total + codes
            indices.append(index)
        return Quantized(straight_through(total, vectors), torch.stack(indices, -1), loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the sums (..., D) of the codes named by `indices` (..., m), the first m of M for any m."""
        self.check_indices(indices, at_most=True)
        total = self.codebooks[0].lookup(indices[..., 0])
        for place in range(1, indices.shape[-1]):
            total = total + self.codebooks[place].lookup(indices[..., place])
        return total

    @torch.no_grad()
    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Put every codebook onto the k-means centres of what the ones before it leave of `vectors` (..., D)."""
        self.check_vectors(vectors)
        residual = vectors.detach()
        for codebook in self.codebooks:
            codebook.start_from(residual, generator)
            residual = residual - codebook.lookup(codebook.nearest(residual))

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Move the averaged codes and restart rarely used ones; call once after every optimiser step."""
        for codebook in self.codebooks:
            codebook.after_step(step, generator)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = ResidualQuantizer
