"""Bits per byte: how well models of any tokens, or of none, predict the same text.

    bits per byte = -log2 P(text) / bytes of the text = sum of bits / sum of bytes,

a ratio of sums, not a mean of ratios: long texts count more.

Letters: I texts.
"""

from __future__ import annotations

import math

import numpy as np

from components.errors import TesseraError


class BitsPerByteError(TesseraError):
    """Texts without bytes, or not as many of them as of numbers."""


def bits(log_probabilities: np.ndarray | float) -> np.ndarray | float:
    """Turn ln P into -log2 P."""
    return log_probabilities / -math.log(2)


def bits_per_byte(text_bits: np.ndarray, text_bytes: np.ndarray) -> float:
    """Return the bits of some texts over their bytes, both (I,)."""
    return float(_checked(text_bits, text_bytes)[0])


def per_text(text_bits: np.ndarray, text_bytes: np.ndarray) -> np.ndarray:
    """Return one value per text whose mean is the ratio of the sums, for tables that average items.

        value_i = R + (bits_i - R bytes_i) / mean bytes,     R = sum of bits / sum of bytes

    Their sample variance over I is the ratio's variance to first order, and those of two models on the same texts pair.

    Args:
        text_bits: Bits of each text, (I,).
        text_bytes: Bytes of each text, (I,).

    Raises:
        BitsPerByteError: There is no byte, or the two differ in number.

    Source: Cochran 1977, Sampling Techniques, section 2.11 (the ratio estimator).
    """
    ratio, text_bits, text_bytes = _checked(text_bits, text_bytes)
    return ratio + (text_bits - ratio * text_bytes) / text_bytes.mean()


def _checked(text_bits: np.ndarray, text_bytes: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    text_bits, text_bytes = np.asarray(text_bits, np.float64), np.asarray(text_bytes, np.float64)
    if text_bits.shape != text_bytes.shape or not text_bytes.sum() > 0:
        raise BitsPerByteError(
            f"{text_bits.size} numbers of bits for {text_bytes.size} texts of {text_bytes.sum():g} bytes in all; "
            "expected one number per text, and at least one byte."
        )
    return text_bits.sum() / text_bytes.sum(), text_bits, text_bytes
