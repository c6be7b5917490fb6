"""Product quantization: a vector is split into parts, and each part has a quantizer of its own.

    z = [z^1 | ... | z^M],     values = [Q_1(z^1) | ... | Q_M(z^M)]

The squared error is the sum of the parts' errors, and K^M codes need only M K D/M stored numbers.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size of a part, `M` parts.

Source: Jegou, Douze, Schmid 2011 (product quantization), section II-B. With unit-norm codes:
components.quantizers.multi_codebook; with any other quantizer in each part: components.quantizers.channel_split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.quantizers.euclidean_vq import EuclideanQuantizer
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule


class ProductQuantizer(QuantizerModule):
    """Quantizers side by side, each on its share of the vector's dimensions.

    `values` and `indices` are the parts' put together in order; the loss is their mean, so its weight does not depend
    on M.

    Args:
        parts: One quantizer per part, for the dimensions in order; D is the sum of their widths.
    """

    indices_have_an_axis = True

    def __init__(self, parts: Sequence[QuantizerModule]) -> None:
        super().__init__(sum(part.code_dim for part in parts), [size for part in parts for size in part.codebook_sizes])
        self.parts = nn.ModuleList(parts)
        self._widths = [part.code_dim for part in parts]
        self._columns = [len(part.codebook_sizes) for part in parts]

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D); indices (..., M)."""
        self.check_vectors(vectors)
        results = [part(piece) for part, piece in self._shares(vectors)]
        indices = [
            result.indices if part.indices_have_an_axis else result.indices.unsqueeze(-1)
            for part, result in zip(self.parts, results, strict=True)
        ]
        return Quantized(
            torch.cat([result.values for result in results], -1),
            torch.cat(indices, -1),
            torch.stack([result.loss for result in results]).mean(),
        )

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (..., M)."""
        self.check_indices(indices)
        pieces = zip(self.parts, indices.split(self._columns, -1), strict=True)
        return torch.cat(
            [part.decode(piece if part.indices_have_an_axis else piece.squeeze(-1)) for part, piece in pieces], -1
        )

    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Start every part from its share of `vectors` (..., D)."""
        self.check_vectors(vectors)
        for part, piece in self._shares(vectors):
            part.start_from(piece, generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Let every part change its codes; call once after every optimiser step."""
        for part in self.parts:
            part.after_step(step, generator)

    def _shares(self, vectors: Tensor):
        return zip(self.parts, vectors.split(self._widths, -1), strict=True)


def part_width(code_dim: int, parts: int) -> int:
    """Return the width of each of `parts` equal parts of `code_dim` dimensions.

    Raises:
        QuantizerError: They do not divide evenly.
    """
    if parts < 1 or code_dim % parts:
        raise QuantizerError(
            f"{code_dim} dimensions cannot be split into {parts} equal parts; choose a code_dim that is a multiple of "
            "the number of codebooks."
        )
    return code_dim // parts


def build(
    codebook_size: int,
    code_dim: int,
    *,
    codebooks: int,
    commitment_weight: float = 0.25,
    code_ema_decay: float | None = None,
    restart_every: int = 0,
    restart_below: int = 1,
) -> ProductQuantizer:
    """Return a product of `codebooks` equal parts, each an EuclideanQuantizer of K codes and these options."""
    width = part_width(code_dim, codebooks)
    return ProductQuantizer(
        [
            EuclideanQuantizer(
                codebook_size,
                width,
                commitment_weight=commitment_weight,
                code_ema_decay=code_ema_decay,
                restart_every=restart_every,
                restart_below=restart_below,
            )
            for _ in range(codebooks)
        ]
    )
