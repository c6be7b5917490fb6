"""Tail Token Drop: how many tokens of a sequence are kept in one training step.

    k ~ law on {1..N}, one draw per batch; the decoder sees q_1..k and nothing of the rest.

The rest is removed, not zeroed: a zeroed token would still take part in attention and teach the decoder another task.

Source: Miwa et al. 2025 (One-D-Piece), section 3 (Tail Token Drop).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from components.errors import TesseraError

DropLaw = Literal["uniform", "powers_of_two", "none"]


class DropLawError(TesseraError):
    """A drop law or a prefix length that does not exist."""


def draw_kept(tokens: int, law: DropLaw, generator: torch.Generator | None) -> int:
    """Draw how many of `tokens` tokens a training step keeps.

    Args:
        tokens: N.
        law: "uniform" draws k from {1..N}, "powers_of_two" from {1, 2, 4, ..} up to N (N itself included), "none"
            returns N without touching the generator.
        generator: Source of the draw, on the CPU; None is torch's global one.

    Returns:
        k in {1..N}.
    """
    if law == "uniform":
        return int(torch.randint(1, tokens + 1, (), generator=generator))
    if law == "powers_of_two":
        lengths = sorted({min(1 << exponent, tokens) for exponent in range(tokens.bit_length() + 1)})
        return lengths[int(torch.randint(len(lengths), (), generator=generator))]
    if law == "none":
        return tokens
    raise DropLawError(f"drop law {law!r} does not exist; expected one of {', '.join(get_args(DropLaw))}.")


def keep_prefix(values: Tensor, kept: int) -> Tensor:
    """Remove all but the first `kept` tokens of `values` (B, N, D), giving (B, kept, D).

    Raises:
        DropLawError: `kept` is not in {1..N}.
    """
    if not 1 <= kept <= values.shape[1]:
        raise DropLawError(f"cannot keep {kept} of {values.shape[1]} tokens; expected 1 to {values.shape[1]}.")
    return values[:, :kept]
