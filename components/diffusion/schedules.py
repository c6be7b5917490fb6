"""How much of a sequence is still clean at a time, and how sampling divides the way back.

Time u runs from 0 (clean) to 1 (noise). alpha(u) is the probability that a token is still clean; a jump from s to t
keeps a token with probability alpha(t) / alpha(s). A `Grid` has T steps, u = t / T.

Sources: Austin et al. 2021, "Structured Denoising Diffusion Models in Discrete State-Spaces", section 3.1 (linear, so
that a mask falls at step t with probability 1 / (T - t + 1)); Nichol and Dhariwal 2021, "Improved Denoising Diffusion
Probabilistic Models", equation 17 (cosine).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from components.errors import TesseraError

Decay = Literal["linear", "cosine"]


class DiffusionError(TesseraError):
    """A diffusion process was configured or called in a way that has no meaning."""


@dataclass(frozen=True)
class LinearSchedule:
    """alpha(u) = 1 - u."""

    def alpha(self, time: Tensor) -> Tensor:
        """Return the probability that a token is clean at times u, same shape and float64."""
        return 1 - time.double()

    def rate(self, time: Tensor) -> Tensor:
        """Return -alpha'(u) / (1 - alpha(u)) = 1 / u: the weight of time u in the continuous likelihood bound."""
        return 1 / time.double()

    def time_of(self, alpha: Tensor) -> Tensor:
        """Return the time at which this share of tokens is clean."""
        return 1 - alpha.double()


@dataclass(frozen=True)
class CosineSchedule:
    """alpha(u) = cos^2(pi/2 (u + s) / (1 + s)) / cos^2(pi/2 s / (1 + s)).

    Attributes:
        offset: s, which keeps the first steps from being too small to matter.
    """

    offset: float = 0.008

    def _angle(self, time: Tensor) -> Tensor:
        return math.pi / 2 * (time.double() + self.offset) / (1 + self.offset)

    @property
    def _start(self) -> float:
        return math.cos(math.pi / 2 * self.offset / (1 + self.offset))

    def alpha(self, time: Tensor) -> Tensor:
        """Return the probability that a token is clean at times u, same shape and float64."""
        return (self._angle(time).cos() / self._start).square()

    def rate(self, time: Tensor) -> Tensor:
        """Return -alpha'(u) / (1 - alpha(u)): the weight of time u in the continuous likelihood bound."""
        slope = math.pi / 2 / (1 + self.offset) * (2 * self._angle(time)).sin() / self._start**2
        return slope / (1 - self.alpha(time))

    def time_of(self, alpha: Tensor) -> Tensor:
        """Return the time at which this share of tokens is clean."""
        angle = (alpha.double().sqrt() * self._start).acos()
        return angle * 2 / math.pi * (1 + self.offset) - self.offset


Schedule = LinearSchedule | CosineSchedule
_SCHEDULES = {"linear": LinearSchedule, "cosine": CosineSchedule}


def schedule_of(name: Decay) -> Schedule:
    """Return a schedule by name.

    Raises:
        DiffusionError: There is no such schedule.
    """
    if name not in _SCHEDULES:
        raise DiffusionError(f"schedule is {name!r}; expected one of {', '.join(_SCHEDULES)}.")
    return _SCHEDULES[name]()


class Grid:
    """A schedule in T steps: alpha_0 = 1 > alpha_1 > ... > alpha_T.

    Args:
        schedule: alpha as a function of time.
        steps: T.
    """

    def __init__(self, schedule: Schedule, steps: int) -> None:
        if steps < 1:
            raise DiffusionError(f"A grid of {steps} steps; expected at least 1.")
        self.schedule = schedule
        self.steps = steps
        self.alphas = schedule.alpha(torch.arange(steps + 1, dtype=torch.float64) / steps).clamp(0, 1)

    def alpha(self, step: Tensor) -> Tensor:
        """Return alpha_t of steps t, int64 of any shape, on their device; float64."""
        return self.alphas.to(step.device)[step]

    def kept(self, earlier: Tensor, later: Tensor) -> Tensor:
        """Return the probability alpha_t / alpha_s that a token survives the jump from s = earlier to t = later."""
        return self.alpha(later) / self.alpha(earlier)

    def stride(self, jumps: int) -> list[int]:
        """Return the steps that a walk from T to 0 in so many jumps visits, as even as whole steps allow, descending.

        Raises:
            DiffusionError: There are more jumps than steps, or none.
        """
        if not 1 <= jumps <= self.steps:
            raise DiffusionError(f"{jumps} jumps on a grid of {self.steps} steps; expected 1 to {self.steps}.")
        return [-(-self.steps * (jumps - done) // jumps) for done in range(jumps + 1)]


def remaining_share(progress: Tensor | float, decay: Decay) -> Tensor | float:
    """Return the share of tokens still noisy at a progress from 0 to 1: 1 - p, or cos(pi/2 p).

    Source: Chang et al. 2022 (MaskGIT), section 3.3; linear: Ghazvininejad et al. 2019 (Mask-Predict), section 4.2.
    """
    if decay == "linear":
        return 1 - progress
    return torch.cos(progress * math.pi / 2) if isinstance(progress, Tensor) else math.cos(progress * math.pi / 2)


def remaining_after(step: int, steps: int, lengths: Tensor, decay: Decay) -> Tensor:
    """Return how many of N tokens stay noisy after step i of M: floor(N r((i + 1) / M)), none after the last.

    Args:
        step: i.
        steps: M.
        lengths: N, int64 (B,).
        decay: Form of r.
    """
    if step + 1 >= steps:
        return torch.zeros_like(lengths)
    if decay == "linear":
        # In whole numbers: N (1 - (i + 1)/M) in floats falls short of whole values now and then.
        return lengths * (steps - step - 1) // steps
    return (lengths.double() * remaining_share((step + 1) / steps, decay)).floor().long()
