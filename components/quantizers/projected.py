"""A quantizer between two linear maps, so that codecs whose latents are equally wide can hold any family.

    vectors (..., W) -- W x D, bias -- quantizer of width D -- D x W, bias -- values (..., W)

Signs and levels have as many dimensions as their number of codes asks for, a codebook any; with this, what stands
before and behind the quantizer is the same network for all of them.

Letters: `...` any leading axes (batch, tokens), `W` width outside, `D` width of the quantizer, `M` indices per vector.

Source: Mentzer et al. 2023 (FSQ), section 3.1; Yu et al. 2023 (MAGVIT-v2), section 3.1 (linear maps around a quantizer
of few dimensions).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.quantizers.quantized import Quantized, QuantizerModule


class ProjectedQuantizer(QuantizerModule):
    """values = B q(A z + a) + b, indices and loss of q; the maps learn by the gradient that passes q.

    Args:
        base: The quantizer q.
        width: W.
    """

    def __init__(self, base: QuantizerModule, width: int) -> None:
        super().__init__(width, base.codebook_sizes)
        self.indices_have_an_axis = base.indices_have_an_axis
        self.inward = nn.Linear(width, base.code_dim)
        self.base = base
        self.outward = nn.Linear(base.code_dim, width)

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., W)."""
        self.check_vectors(vectors)
        values, indices, loss = self.base(self.inward(vectors))
        return Quantized(self.outward(values), indices, loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the values (..., W) of the codes named by `indices`, (...) or (..., M)."""
        return self.outward(self.base.decode(indices))

    @torch.no_grad()
    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Start the quantizer from the projections of `vectors` (..., W)."""
        self.check_vectors(vectors)
        self.base.start_from(self.inward(vectors), generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Let the quantizer change what is learnt outside the gradient; call once after every optimiser step."""
        self.base.after_step(step, generator)


def build(base: QuantizerModule, width: int) -> QuantizerModule:
    """Return `base` with linear maps to its width and back; `base` itself where that is `width` already.

    Two linear maps in a row are one: behind a linear layer of `width` outputs nothing is lost without the first map.
    """
    return base if base.code_dim == width else ProjectedQuantizer(base, width)


def unprojected(quantizer: QuantizerModule) -> QuantizerModule:
    """Return the quantizer between the maps; a quantizer without maps as it is."""
    return quantizer.base if isinstance(quantizer, ProjectedQuantizer) else quantizer
