"""Classifier-free guidance: away from what the model says without the condition.

    guided = u + s (c - u)

of logits or velocities c with and u without the condition; s = 1 is the conditional model itself.

Source: Ho and Salimans 2022, equation 6 (with s = 1 + w).
"""

from __future__ import annotations

import torch
from torch import Tensor


def paired(condition: Tensor, unguided: Tensor | None) -> Tensor:
    """Return the rows of a condition and, behind them, those without it: one batch for both halves."""
    return condition if unguided is None else torch.cat([condition, unguided])


def guided(output: Tensor, scale: float, *, pairs: bool) -> Tensor:
    """Combine the halves of an output that was computed for `paired` rows.

    Args:
        output: (2 B, ...) of conditional rows and, behind them, unconditional ones; (B, ...) without pairs.
        scale: s.
        pairs: Whether there are unconditional rows.
    """
    if not pairs:
        return output
    conditional, unconditional = output.chunk(2)
    return unconditional + scale * (conditional - unconditional)
