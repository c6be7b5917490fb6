"""The bits that intensity levels of speech really need: every level against that of the frame before, range coded.

    r_tn = (S_tn - S_t-1,n) mod 2^K,    S_-1,n = 0;      the residues go through the adaptive range coder

Neighbouring frames are alike, so most residues are 0 or next to it. The way back adds them up.

Letters: `T` frames, `N` channels, `K` bits of a channel.

Source: components.compression.range_coding; differences before entropy coding: Cutler 1952 (differential PCM).
"""

from __future__ import annotations

import numpy as np

from components.compression import range_coding


def encode(levels: np.ndarray, codebook_size: int) -> bytes:
    """Return the stream of levels, integers (T, N) from 0 to codebook_size - 1.

    Raises:
        RangeCodingError: A level is none.
    """
    values = np.asarray(levels)
    residues = np.diff(values, axis=0, prepend=np.zeros((1, values.shape[1]), values.dtype)) % codebook_size
    # Residues hide a level outside the alphabet; the coder would not see it.
    if values.size and (values.min() < 0 or values.max() >= codebook_size):
        raise range_coding.RangeCodingError(
            f"levels {values.min()} to {values.max()}; expected 0 to {codebook_size - 1}."
        )
    return range_coding.encode(residues, [codebook_size] * values.shape[1])


def decode(stream: bytes, frames: int, channels: int, codebook_size: int) -> np.ndarray:
    """Return the levels (T, N) of a stream."""
    residues = range_coding.decode(stream, frames, [codebook_size] * channels)
    return residues.cumsum(0) % codebook_size
