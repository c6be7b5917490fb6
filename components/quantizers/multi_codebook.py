"""Multi-codebook quantization: product quantization whose parts are unit-norm codebooks.

The number of codes grows exponentially with the number of codebooks, while each stays small enough to be used fully.
With one codebook it is the unit-norm vector quantizer.

Source: Ma et al. 2025 (UniTok), section 3.
"""

from __future__ import annotations

from components.quantizers.pq import ProductQuantizer, part_width
from components.quantizers.vq import VectorQuantizer


def build(
    codebook_size: int,
    code_dim: int,
    *,
    codebooks: int,
    commitment_weight: float = 0.25,
    code_ema_decay: float | None = None,
    restart_every: int = 0,
) -> ProductQuantizer:
    """Return a product of equal parts, each l2-normalised and quantized by its own K unit-norm codes.

    Args:
        codebook_size: K, of every codebook; the total number of stored codes is `codebooks` times that.
        code_dim: D, over all parts.
        codebooks: Number of parts.
        commitment_weight: Weight of the commitment term inside each part's loss.
        code_ema_decay: Decay of the moving average of the codes; None trains the codes by gradient.
        restart_every: Steps between restarts of unused codes; 0 never restarts.
    """
    width = part_width(code_dim, codebooks)
    return ProductQuantizer(
        [
            VectorQuantizer(
                codebook_size,
                width,
                commitment_weight=commitment_weight,
                code_ema_decay=code_ema_decay,
                restart_every=restart_every,
            )
            for _ in range(codebooks)
        ]
    )
