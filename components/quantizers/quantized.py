"""What every quantizer returns and offers.

    vectors (..., D) -- quantizer --> values (..., D), indices (...) or (..., M), loss
    indices          -- decode    --> values, bit for bit

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size, `M` indices per vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from components.errors import TesseraError


class QuantizerError(TesseraError):
    """A quantizer was given a size, vectors or indices that it cannot work with."""


class Quantized(NamedTuple):
    """The result of quantizing vectors.

    Attributes:
        values: Quantized vectors (..., D). Their value is the code itself, bit for bit what `decode(indices)` returns;
            their gradient goes to the encoder (straight-through where the quantizer is piecewise constant).
        indices: Code of every vector, int64: (...), each in [0, K), or (..., M) from a quantizer of M codebooks.
        loss: Scalar to add to the training loss (codebook, commitment, entropy: whatever this quantizer needs).
    """

    values: Tensor
    indices: Tensor
    loss: Tensor


class Quantizer(Protocol):
    """The verbs of a quantizer module.

    Attributes:
        codebook_sizes: How many codes each index of a vector can name: (K,), or M numbers.
        codebook_size: K, where one index names a vector.
        code_dim: D, the width of the vectors it takes and returns.
        bits_per_vector: Nominal bits of a vector's code; what the codes really carry is in components.metrics.codebook.
    """

    codebook_sizes: tuple[int, ...]
    codebook_size: int
    code_dim: int
    bits_per_vector: float

    def __call__(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D)."""
        ...

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices`, (...) or (..., M)."""
        ...

    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Fit what is learnt outside the gradient to `vectors` (..., D) of a first batch."""
        ...

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Change what is learnt outside the gradient (averages, restarts, temperature) after an optimiser's step."""
        ...


class QuantizerModule(nn.Module):
    """The part of a quantizer that is the same in all: its sizes, its checks, and hooks that do nothing.

    Args:
        code_dim: D.
        codebook_sizes: How many codes each index of a vector can name; one number for a quantizer with one index.
    """

    indices_have_an_axis = False
    """Whether indices are (..., M), M = 1 included, rather than (...)."""

    def __init__(self, code_dim: int, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        name = type(self).__name__
        if code_dim < 1:
            raise QuantizerError(f"{name}(code_dim={code_dim}): a vector needs at least one dimension.")
        if not codebook_sizes or min(codebook_sizes) < 2:
            raise QuantizerError(
                f"{name}: codebook sizes {list(codebook_sizes)}; expected one or more, each at least 2 "
                "(an index that can only be 0 says nothing)."
            )
        self.code_dim = code_dim
        self.codebook_sizes = tuple(codebook_sizes)

    @property
    def codebook_size(self) -> int:
        """K, where one index names a vector."""
        if len(self.codebook_sizes) != 1:
            raise QuantizerError(
                f"{type(self).__name__} names a vector by {len(self.codebook_sizes)} indices; there is no one "
                "codebook_size. Use codebook_sizes."
            )
        return self.codebook_sizes[0]

    @property
    def bits_per_vector(self) -> float:
        """Nominal bits per vector: the base-2 logarithm of the number of index combinations."""
        return sum(math.log2(size) for size in self.codebook_sizes)

    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Nothing here is fitted to a first batch."""

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Nothing here changes outside the optimiser."""

    def check_vectors(self, vectors: Tensor) -> None:
        """Refuse vectors that are not floating point or not (..., D)."""
        if vectors.dim() < 1 or vectors.shape[-1] != self.code_dim or not vectors.is_floating_point():
            raise QuantizerError(
                f"{type(self).__name__} was given {_described(vectors)}; expected floating-point vectors "
                f"(..., {self.code_dim}): their last axis is code_dim. Project them to that width first."
            )

    def check_indices(self, indices: Tensor, at_most: bool = False) -> None:
        """Refuse indices that are no integers or not (..., M) where a vector has M; ranges are checked on the CPU.

        Args:
            indices: (...) for one index per vector, (..., M) for M of them.
            at_most: Also accept the first m of the M indices, 1 <= m <= M.

        Raises:
            QuantizerError: Type, last axis or a value does not fit.
        """
        name, sizes = type(self).__name__, self.codebook_sizes
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise QuantizerError(f"{name}.decode was given {_described(indices)}; expected integer indices.")
        if self.indices_have_an_axis:
            width = indices.shape[-1] if indices.dim() else 0
            if not (1 <= width <= len(sizes) if at_most else width == len(sizes)):
                raise QuantizerError(
                    f"{name}.decode was given {_described(indices)}; expected (..., {len(sizes)}): one index per "
                    f"codebook{', or the first of them' if at_most else ''}."
                )
            sizes = sizes[:width]
        # On a GPU the answer would have to be waited for.
        if indices.device.type != "cpu" or not indices.numel():
            return
        flat = indices.reshape(-1, len(sizes)) if self.indices_have_an_axis else indices.reshape(-1, 1)
        low, high = flat.amin(0).tolist(), flat.amax(0).tolist()
        for place, (least, most, size) in enumerate(zip(low, high, sizes, strict=True)):
            if least < 0 or most >= size:
                where = f" at place {place} of a vector" if self.indices_have_an_axis else ""
                raise QuantizerError(
                    f"{name}.decode was given an index of {least if least < 0 else most}{where}; expected 0 to "
                    f"{size - 1}."
                )


def straight_through(codes: Tensor, vectors: Tensor) -> Tensor:
    """Return `codes`, bit for bit, with the gradient of `vectors`.

        codes + (vectors - sg(vectors))

    Adding an exact zero keeps the value of the code; `vectors + sg(codes - vectors)` would only round to it.

    Args:
        codes: (..., D); a gradient that they carry themselves stays.
        vectors: (..., D).

    Source: Bengio, Leonard, Courville 2013 (straight-through estimator).
    """
    return codes + (vectors - vectors.detach())


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
