"""The stage-3 score of a whole vocabulary, block by block: what is done survives an interruption.

Blocks of tokens are measured each on its own and written as files; a scan that goes on reads those that are there.
The result does not depend on where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from components.analysis.sticky_scoring import Edits, distance_curves
from components.encoders.sentence import SentenceEncoder
from components.training.weights import read_tensors, write_tensors

BLOCK = 256  # tokens of a file


def scan(
    encoder: SentenceEncoder,
    tokens: Sequence[str],
    edits: Edits,
    checkpoint: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Measure every token on every pair.

    Args:
        encoder: Encoder.
        tokens: Texts of T tokens.
        edits: From `components.analysis.sticky_scoring.prepare`.
        checkpoint: Existing directory for finished blocks; the caller empties it when tokens or pairs change.
        progress: Called with the tokens done and their number.

    Returns:
        Distances (T, P, M, K) and ids that one copy became (T, P), as `distance_curves` returns them.
    """
    parts = []
    for begin in range(0, len(tokens), BLOCK):
        path = checkpoint / f"tokens-{begin:06d}.safetensors"
        if not path.is_file():
            block = tokens[begin : begin + BLOCK]
            distances, realised = distance_curves(encoder, block, edits)
            write_tensors({"distances": torch.from_numpy(distances), "realised": torch.from_numpy(realised)}, path)
        parts.append(read_tensors(path))
        if progress is not None:
            progress(min(begin + BLOCK, len(tokens)), len(tokens))
    distances, realised = (torch.cat([part[name] for part in parts]).numpy() for name in ("distances", "realised"))
    return distances, realised
