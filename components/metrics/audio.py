"""Distortion of reconstructed sound, in spectra.

Letters: `F` frames, `M` bands.
"""

from __future__ import annotations

from torch import Tensor

from components.errors import TesseraError


class AudioMetricError(TesseraError):
    """Spectra cannot be compared."""


def log_spectral_distance(spectra: Tensor, references: Tensor) -> Tensor:
    """Return the log-spectral distance of every frame in dB, (..., F).

        d[f] = sqrt(mean_m (y[f, m] - x[f, m])^2),     x, y in dB

    Args:
        spectra: Reconstructed power spectra in dB (..., F, M).
        references: Originals in dB, of the same shape.

    Raises:
        AudioMetricError: Shapes differ.

    Source: Gray and Markel 1976 (distance measures for speech processing), the L2 norm of log spectra.
    """
    if spectra.shape != references.shape:
        raise AudioMetricError(
            f"spectra {list(spectra.shape)} and references {list(references.shape)} differ in shape; cut both to the "
            "same frames."
        )
    return (spectra - references).square().mean(-1).sqrt()
