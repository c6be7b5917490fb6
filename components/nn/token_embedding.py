"""What a generator of tokens reads: the vectors that tokens stand for, or a vector for each index.

Letters: `...` any leading axes (images, positions), `C` numbers of a token, `D` width of the generator.
"""

from __future__ import annotations

from torch import Tensor, nn


class VectorEmbedding(nn.Module):
    """A linear layer on the token's vector: the token itself, or what a quantizer decodes its indices to.

    A generator that samples quantized tokens must also learn from quantized ones: it reads the decoded indices.

    Args:
        channels: C of the vector.
        width: D.
        quantizer: Decodes tokens of indices; None where tokens are vectors.
    """

    def __init__(self, channels: int, width: int, quantizer: nn.Module | None = None) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.linear = nn.Linear(channels, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., D) of tokens: float (..., C), or indices (..., M)."""
        return self.linear(tokens if self.quantizer is None else self.quantizer.decode(tokens))


class IndexEmbedding(nn.Module):
    """A table with one vector per index, for tokens of one index.

    Args:
        codebook_size: Number of indices.
        width: D.
    """

    def __init__(self, codebook_size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(codebook_size, width)
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., D) of tokens int64 (..., 1)."""
        return self.table(tokens.squeeze(-1))


def build(
    width: int, *, channels: int | None = None, quantizer: nn.Module | None = None, codebook_size: int | None = None
) -> nn.Module:
    """Build a table where a `codebook_size` is given, a linear layer on vectors of `channels` numbers otherwise."""
    if codebook_size is not None:
        return IndexEmbedding(codebook_size, width)
    return VectorEmbedding(channels, width, quantizer)
