"""What the codes of an arm carry: how their codebook is used, and the bits they take on paper and in a real stream.

Letters: `N` vectors (images times cells), `P` cells of an image, `M` indices or dimensions of a vector.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from components.compression import range_coding
from components.errors import TesseraError
from components.metrics.codebook import (
    entropy_bits,
    entropy_bits_per_index,
    joint_entropy_bits,
    usage,
    usage_per_index,
)
from components.metrics.tables import MetricTable
from components.quantizers.projected import unprojected
from components.quantizers.quantized import QuantizerModule

_MOST_JOINT = 1 << 12
"""Largest alphabet that is coded, and whose use is counted, as one: a table that thousands of vectors can fill."""


class LossyStream(TesseraError):
    """Codes read back from their bits are not the codes that were written."""


def index_columns(quantizer: QuantizerModule, indices: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Return indices (N, M) of all vectors and the number of values of each; an implicit codebook by dimension.

    Args:
        quantizer: The codec's quantizer, with or without linear maps around it.
        indices: Its indices, (B, P) or (B, P, M).
    """
    quantizer = unprojected(quantizer)
    if quantizer.indices_have_an_axis:
        return indices.flatten(0, -2), quantizer.codebook_sizes
    if hasattr(quantizer, "digits"):
        return quantizer.digits(indices.flatten()), tuple(quantizer.places.sizes.tolist())
    return indices.reshape(-1, 1), quantizer.codebook_sizes


def joint_symbols(columns: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, int] | None:
    """Return one symbol (N,) per vector and their number, None where there are too many to be counted."""
    if math.prod(sizes) > _MOST_JOINT:
        return None
    symbols, (size,) = range_coding.join(columns.numpy(), sizes, _MOST_JOINT)
    return torch.from_numpy(symbols[:, 0]), size


def code_metrics(table: MetricTable, quantizer: QuantizerModule, indices: Tensor) -> None:
    """Add use, perplexity, nominal and real bits of the codes of test images, indices (B, P) or (B, P, M) on the CPU.

    Raises:
        LossyStream: The coded stream does not give the codes back.
    """
    images = len(indices)
    columns, sizes = index_columns(quantizer, indices)
    shares = entropy_bits_per_index(columns).exp2() / torch.tensor(sizes, dtype=torch.float64)
    table.add("index_usage", float(usage_per_index(columns, sizes).mean()), unit="share", samples=images)
    table.add("index_perplexity", float(shares.mean()), unit="share", samples=images)
    if (joint := joint_symbols(columns, sizes)) is not None:
        use_of_codebook(table, *joint, images, None)
        table.add("codebook_perplexity", 2 ** entropy_bits(joint[0]), unit="codes", samples=images)
    table.add("nominal_bits", math.log2(math.prod(sizes)), unit="bits", samples=1)
    table.add("entropy_bits", joint_entropy_bits(columns), unit="bits", samples=images)
    table.add("real_bits", 8 * len(stream(columns, sizes, images)) / len(columns), unit="bits", samples=images)


def use_of_codebook(table: MetricTable, symbols: Tensor, size: int, images: int, at: dict[str, float] | None) -> None:
    """Add the share of the codebook in use, and its perplexity as a share of its size."""
    table.add("codebook_usage", usage(symbols, size), unit="share", at=at, samples=images)
    perplexity = 2 ** entropy_bits(symbols) / size
    table.add("normalised_perplexity", perplexity, unit="share", at=at, samples=images)


def stream(columns: Tensor, sizes: tuple[int, ...], images: int) -> bytes:
    """Return the codes (N, M) as an adaptively coded stream; probabilities move on after every image.

    Neighbouring indices are coded together as long as their combinations stay within 4,096, in every family alike.

    Raises:
        LossyStream: It does not give the codes back.
    """
    symbols, alphabets = range_coding.join(columns.numpy(), sizes, _MOST_JOINT)
    cells = len(symbols) // images
    coded = range_coding.encode(symbols, alphabets, cells)
    if not np.array_equal(range_coding.decode(coded, len(symbols), alphabets, cells), symbols):
        raise LossyStream(
            f"{len(symbols)} vectors of {list(sizes)} codes do not survive their stream; "
            "components.compression.range_coding is broken."
        )
    return coded
