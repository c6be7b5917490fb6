"""A head that draws one continuous token by flow matching: an MLP that turns noise into the token.

    z_t = (1 - t) z + t e,     e ~ N(0, I), t ~ U(0, 1),      velocity v = e - z
    loss = mean ||v_theta(z_t, t, c) - v||^2                  sampling: dz/dt = v_theta from t = 1 (noise) to 0

The MLP has residual blocks x + gate * W2 silu(W1 (adaptive norm of x)), with the adaptive norm on condition plus time.

Letters: `N` tokens, `C` channels of a token, `E` width of the condition, `W` width of the head.

Sources: Li et al. 2024 (MAR, section 3.2 and appendix: a diffusion head on a token's condition, several noise draws for
each token); Lipman et al. 2023 (flow matching); Liu, Gong, Liu 2023 (rectified flow: the straight path).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.adaptive_norm import AdaptiveNorm, Modulation, modulate
from components.nn.guidance import guided, paired

_FREQUENCIES = 64
_LONGEST_PERIOD = 10_000.0


class FlowHeadError(TesseraError):
    """A flow-matching head was given tokens or steps that do not fit."""


class TimeEmbedding(nn.Module):
    """Times in [0, 1] as vectors: sines and cosines of 1000 t at geometric frequencies, then a two-layer MLP.

    Args:
        width: Of the vectors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        rates = torch.exp(-math.log(_LONGEST_PERIOD) * torch.arange(_FREQUENCIES) / _FREQUENCIES)
        self.register_buffer("rates", 1000 * rates, persistent=False)

    def forward(self, times: Tensor) -> Tensor:
        """Return vectors (..., width) of times (...)."""
        angles = times.unsqueeze(-1) * self.rates
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


class FlowHead(nn.Module):
    """Flow matching of one token given its condition; see the module.

    Args:
        condition_width: E.
        channels: C.
        width: W.
        layers: Residual blocks.
        steps: Euler steps of sampling.
        draws: Noise draws for each token of a training step.
    """

    def __init__(
        self, condition_width: int, channels: int, *, width: int, layers: int, steps: int, draws: int = 1
    ) -> None:
        super().__init__()
        if steps < 1 or draws < 1:
            raise FlowHeadError(f"FlowHead(steps={steps}, draws={draws}): expected at least 1 of each.")
        self.channels, self.steps, self.draws = channels, steps, draws
        self.input = nn.Linear(channels, width)
        self.time = TimeEmbedding(width)
        self.project = nn.Linear(condition_width, width)
        self.blocks = nn.ModuleList(_ResidualMLP(width) for _ in range(layers))
        self.norm = AdaptiveNorm(width, width)
        self.output = nn.Linear(width, channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def velocity(self, noisy: Tensor, times: Tensor, condition: Tensor) -> Tensor:
        """Return the predicted velocity (N, C).

        Args:
            noisy: z_t, (N, C).
            times: t, (N,) or one for all, ().
            condition: (N, W), already projected.
        """
        condition = condition + self.time(times)
        hidden = self.input(noisy)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.output(self.norm(hidden, condition))

    def loss(self, tokens: Tensor, condition: Tensor, generator: torch.Generator) -> Tensor:
        """Return the mean squared error of the velocity over tokens, draws and channels.

        Args:
            tokens: z, float (N, C).
            condition: (N, E).
            generator: Source of noise and times, on the tokens' device.
        """
        if tokens.dim() != 2 or tokens.shape[1] != self.channels or not tokens.is_floating_point():
            raise FlowHeadError(
                f"tokens are {tokens.dtype} of shape {list(tokens.shape)}; expected floats (N, {self.channels})."
            )
        tokens = tokens.repeat(self.draws, 1)
        condition = self.project(condition).repeat(self.draws, 1)
        noise = torch.randn(tokens.shape, generator=generator, device=tokens.device)
        times = torch.rand(len(tokens), generator=generator, device=tokens.device)
        noisy = torch.lerp(tokens, noise, times.unsqueeze(1))
        return F.mse_loss(self.velocity(noisy, times, condition).float(), noise - tokens)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        generator: torch.Generator,
        *,
        unguided: Tensor | None = None,
        guidance: float = 1.0,
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw tokens (N, C) by Euler steps of equal length from t = 1 to 0.

        Args:
            condition: (N, E).
            generator: Source of the noise, on the condition's device.
            unguided: Conditions (N, E) of the same tokens without the class, for guidance of the velocity.
            guidance: Scale s of components.nn.guidance.
            temperature: Deviation of the noise at t = 1.
        """
        rows, pairs = len(condition), unguided is not None
        condition = self.project(paired(condition, unguided))
        tokens = temperature * torch.randn((rows, self.channels), generator=generator, device=condition.device)
        for step in range(self.steps):
            time = torch.full((), 1 - step / self.steps, device=condition.device)
            noisy = torch.cat([tokens, tokens]) if pairs else tokens
            tokens = tokens - guided(self.velocity(noisy, time, condition), guidance, pairs=pairs) / self.steps
        return tokens


class _ResidualMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = Modulation(width, width, 3)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition)
        return hidden + gate * self.layers(modulate(self.norm(hidden), shift, scale))


# A study names this module in its parameters and calls `build`.
build = FlowHead
