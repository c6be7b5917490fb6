"""Additive quantization: a sum of one code from each codebook, chosen jointly.

    values = sum_j e_j[i_j],      (i_1, ..., i_M) = argmin ||z - sum_j e_j[i_j]||^2

The joint choice is found by beam search. Residual quantization chooses one codebook after the other, which is the beam
of width 1; here the better of both paths is kept, so no vector is coded worse than by the same codebooks used one by
one.

Letters: `...` any leading axes (batch, tokens), `N` vectors, `D` width of a vector, `K` codebook size, `M` codebooks,
`W` beams kept.

Source: Babenko and Lempitsky 2014 (additive quantization), sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.quantizers.euclidean_vq import squared_error
from components.quantizers.nearest import nearest_codes
from components.quantizers.precision import exact, without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, straight_through
from components.quantizers.rvq import ResidualQuantizer

# Scores of the candidates of one chunk of vectors: 2**20 floats are 4 MiB.
_CANDIDATES_PER_CHUNK = 1 << 20


class AdditiveQuantizer(ResidualQuantizer):
    """M codebooks of K codes whose sum is nearest to the vector.

        loss = ||sg(z) - q||^2 + commitment_weight * ||z - sg(q)||^2,   q = sum_j e_j        mean over vectors

    the first term only for codes that learn by gradient. Codes that follow a moving average follow z minus the other
    codebooks' codes. They start as those of residual quantization; unlike there, the first m indices of M are no code.

    Args:
        codebook_size: K, of every codebook.
        code_dim: D.
        codebooks: M.
        beam_width: W.
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
        codebooks: int,
        beam_width: int = 8,
        commitment_weight: float = 0.25,
        code_ema_decay: float | None = None,
        restart_every: int = 0,
        restart_below: int = 1,
    ) -> None:
        super().__init__(
            codebook_size,
            code_dim,
            codebooks=codebooks,
            commitment_weight=commitment_weight,
            code_ema_decay=code_ema_decay,
            restart_every=restart_every,
            restart_below=restart_below,
        )
        if beam_width < 1:
            raise QuantizerError(f"AdditiveQuantizer(beam_width={beam_width}): expected at least 1.")
        self.beam_width = beam_width

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D): indices (..., M)."""
        self.check_vectors(vectors)
        indices = jointly_nearest(vectors, [codebook.weight for codebook in self.codebooks], self.beam_width)
        chosen = [codebook.lookup(indices[..., place]) for place, codebook in enumerate(self.codebooks)]
        total = _sum(chosen)
        codes = total.detach()
        loss = self.commitment_weight * squared_error(vectors, codes)
        if self.codebooks[0].learns_by_gradient:
            loss = loss + squared_error(vectors.detach(), total)
        if self.training:
            error = vectors.detach() - codes
            for place, codebook in enumerate(self.codebooks):
                codebook.remember(chosen[place].detach() + error, indices[..., place])
        return Quantized(straight_through(codes, vectors), indices, loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the sums (..., D) of the codes named by `indices` (..., M)."""
        self.check_indices(indices)
        return super().decode(indices)


@torch.no_grad()
def jointly_nearest(vectors: Tensor, codebooks: Sequence[Tensor], beam_width: int) -> Tensor:
    """Return the indices of one code per codebook whose sum is nearest to each vector, as far as beam search finds it.

    After j codebooks the W best partial sums are kept. The result is the better of the best beam and the greedy path;
    with W = K^(M-1) it is the best of all K^M sums.

    Args:
        vectors: (..., D).
        codebooks: M tensors (K_j, D).
        beam_width: W.

    Returns:
        int64 (..., M).
    """
    flat = exact(vectors).reshape(-1, vectors.shape[-1])
    books = [exact(book) for book in codebooks]
    rows = max(1, _CANDIDATES_PER_CHUNK // (beam_width * max(len(book) for book in books)))
    with without_autocast(flat.device):
        parts = [_better(chunk, _greedy(chunk, books), _beam(chunk, books, beam_width), books)
                 for chunk in flat.split(rows)]  # fmt: skip
    return torch.cat(parts).view(*vectors.shape[:-1], len(books))


def _greedy(vectors: Tensor, books: Sequence[Tensor]) -> Tensor:
    indices, residual = [], vectors
    for book in books:
        indices.append(nearest_codes(residual, book))
        residual = residual - book[indices[-1]]
    return torch.stack(indices, 1)


def _beam(vectors: Tensor, books: Sequence[Tensor], beam_width: int) -> Tensor:
    residuals = vectors.unsqueeze(1)
    indices = torch.empty(len(vectors), 1, 0, dtype=torch.int64, device=vectors.device)
    for book in books:
        kept, size = residuals.shape[1], len(book)
        # ||r - e||^2 without ||e||^2's and ||r||^2's cross terms: r is needed here, since beams compete.
        scores = torch.addmm(book.square().sum(1), residuals.flatten(0, 1), book.t(), alpha=-2)
        scores = scores.view(-1, kept, size) + residuals.square().sum(2, keepdim=True)
        best = scores.flatten(1).topk(min(beam_width, kept * size), largest=False).indices
        beam = best.div(size, rounding_mode="floor").unsqueeze(2)
        code = best.remainder(size)
        residuals = residuals.gather(1, beam.expand(-1, -1, vectors.shape[1])) - book[code]
        indices = torch.cat([indices.gather(1, beam.expand(-1, -1, indices.shape[2])), code.unsqueeze(2)], 2)
    return indices[:, 0]


def _better(vectors: Tensor, greedy: Tensor, beam: Tensor, books: Sequence[Tensor]) -> Tensor:
    def error(indices: Tensor) -> Tensor:
        return (vectors - _sum([book[indices[:, place]] for place, book in enumerate(books)])).square().sum(1)

    return torch.where((error(beam) < error(greedy)).unsqueeze(1), beam, greedy)


def _sum(codes: Sequence[Tensor]) -> Tensor:
    total = codes[0]
    for code in codes[1:]:
        total = total + code
    return total


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = AdditiveQuantizer
