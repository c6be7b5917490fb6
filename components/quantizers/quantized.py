"""What every quantizer returns and offers.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Quantized(NamedTuple):
    """The result of quantizing vectors.

    Attributes:
        values: Quantized vectors (..., D). Their value is the code itself, bit for bit what `decode(indices)` returns;
            their gradient goes to the encoder (straight-through where the quantizer is piecewise constant).
        indices: Code of every vector, int64 (...), each in [0, K).
        loss: Scalar to add to the training loss (codebook, commitment, entropy: whatever this quantizer needs).
    """

    values: Tensor
    indices: Tensor
    loss: Tensor


class Quantizer(Protocol):
    """The verbs of a quantizer module.

    Attributes:
        codebook_size: K, the number of codes that one index can name.
        code_dim: D, the width of the vectors it takes and returns.
    """

    codebook_size: int
    code_dim: int

    def __call__(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        ...

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        ...
