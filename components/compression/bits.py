"""Token indices as real bits.

Letters: `K` codebook size, `T` tokens.
"""

from __future__ import annotations

import numpy as np

from components.errors import TesseraError


class BitstreamError(TesseraError):
    """Indices do not fit their codebook, or a stream is too short for the tokens asked of it."""


def bits_per_token(codebook_size: int) -> int:
    """Return the fixed width of one index in bits: log2 K, rounded up where K is no power of two."""
    if codebook_size < 2:
        raise BitstreamError(f"codebook_size is {codebook_size}; expected at least 2.")
    return (codebook_size - 1).bit_length()


def packed_bytes(tokens: int, codebook_size: int) -> int:
    """Return the length in bytes of `tokens` packed indices: ceil(T * log2 K / 8)."""
    return -(-tokens * bits_per_token(codebook_size) // 8)


def pack(indices: np.ndarray, codebook_size: int) -> bytes:
    """Serialise indices with a fixed number of bits each, most significant bit first, zero bits at the end.

    The stream is progressive: its first `packed_bytes(k, K)` bytes hold the first k tokens, so a file of a tokenizer
    that decodes any prefix can be cut anywhere.

    Args:
        indices: Integers (T,), each in [0, K).
        codebook_size: K.

    Raises:
        BitstreamError: An index is outside [0, K), or `indices` is not a vector.
    """
    values = np.asarray(indices)
    if values.ndim != 1:
        raise BitstreamError(f"indices have shape {values.shape}; expected one sequence (T,).")
    if values.size and (values.min() < 0 or values.max() >= codebook_size):
        raise BitstreamError(f"indices span [{values.min()}, {values.max()}]; expected [0, {codebook_size}).")
    width = bits_per_token(codebook_size)
    shifts = np.arange(width - 1, -1, -1, dtype=np.uint64)
    bits = (values.astype(np.uint64)[:, None] >> shifts) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def unpack(stream: bytes, tokens: int, codebook_size: int) -> np.ndarray:
    """Read the first `tokens` indices of a packed stream.

    Returns:
        int64 (T,).

    Raises:
        BitstreamError: The stream is shorter than that, or names a code outside the codebook.
    """
    needed = packed_bytes(tokens, codebook_size)
    if len(stream) < needed:
        raise BitstreamError(f"the stream has {len(stream)} bytes; {tokens} tokens of K={codebook_size} need {needed}.")
    width = bits_per_token(codebook_size)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8, count=needed))[: tokens * width].reshape(tokens, width)
    weights = np.int64(1) << np.arange(width - 1, -1, -1, dtype=np.int64)
    values = bits.astype(np.int64) @ weights
    if values.size and values.max() >= codebook_size:
        raise BitstreamError(f"the stream names code {values.max()} of a codebook of {codebook_size}; it is damaged.")
    return values
