"""What a conditional denoiser is trained for, as the training loop asks for it.

    reparameterized   weighted cross entropy on noisy tokens, single draws or coupled pairs
    divergence        the variational bound of the posterior with the prediction plugged in (multinomial diffusion)
    mask_predict      cross entropy on masked tokens, their number uniform (the strong iterative baseline)
    causal            cross entropy of the next token (the autoregressive reference)

Letters: B items, S source tokens, N target tokens, T steps of the grid.

Sources: Zheng et al. 2023, "A Reparameterized Discrete Diffusion Model for Text Generation", sections 4.2 and 4.3;
Hoogeboom et al. 2021, "Argmax Flows and Multinomial Diffusion", section 4; Ghazvininejad et al. 2019, "Mask-Predict",
section 3.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from components.diffusion.losses import (
    Weighting,
    draw_coupled,
    draw_noised,
    noisy_cross_entropy,
    posterior_divergence,
    step_weights,
)
from components.diffusion.noise import AbsorbingNoise, Noise, UniformNoise, choose
from components.diffusion.schedules import DiffusionError, Grid
from components.diffusion.sequence_denoiser import SequenceDenoiser

LENGTH_WEIGHT = 0.1
Series = dict[str, Tensor]


class Items(NamedTuple):
    """Sources and targets, padded.

    Attributes:
        source: int64 (B, S).
        target: int64 (B, N).
    """

    source: Tensor
    target: Tensor


def noise_of(name: Literal["absorbing", "uniform"], model: SequenceDenoiser) -> Noise:
    """Return the noise of a denoiser's vocabulary: its mask, or any of its words."""
    if name == "absorbing":
        return AbsorbingNoise(model.vocabulary_size, model.mask)
    if name == "uniform":
        return UniformNoise(model.vocabulary_size, range(model.words, model.vocabulary_size))
    raise DiffusionError(f"noise is {name!r}; expected 'absorbing' or 'uniform'.")


def _with_lengths(model: SequenceDenoiser, memory: Tensor | None, items: Items, loss: Tensor) -> tuple[Tensor, Series]:
    if model.lengths is None:
        return loss, {"token_loss": loss}
    lengths = model.present(items.target).sum(1)
    length_loss = model.lengths.loss(memory, model.present(items.source), lengths)
    return loss + LENGTH_WEIGHT * length_loss, {"token_loss": loss, "length_loss": length_loss}


class ReparameterizedObjective:
    """Weighted cross entropy on noisy tokens.

    Args:
        noise: q_n.
        grid: Schedule in T steps.
        weighting: Weight of a step.
        coupled: Draw two times of each item, the earlier one from the later one, and average their losses.
        label_smoothing: On noisy tokens.
    """

    def __init__(self, noise: Noise, grid: Grid, weighting: Weighting, coupled: bool, label_smoothing: float) -> None:
        self.noise, self.grid, self.coupled, self.label_smoothing = noise, grid, coupled, label_smoothing
        self.weights = step_weights(weighting, grid)

    def __call__(self, model: SequenceDenoiser, items: Items, generator: torch.Generator) -> tuple[Tensor, Series]:
        """Return the loss and its parts, in nats per token."""
        present = model.present(items.target)
        draw = draw_coupled if self.coupled else draw_noised
        drawn = draw(items.target, self.grid, self.noise, generator, noisable=present)
        views = drawn if self.coupled else (drawn,)
        memory = model.memory(items.source)
        source, target, states, present = (
            torch.cat([each] * len(views)) for each in (items.source, items.target, memory, present)
        )
        tokens, steps = torch.cat([view.tokens for view in views]), torch.cat([view.steps for view in views])
        loss = noisy_cross_entropy(
            model(source, tokens, states),
            target,
            tokens,
            self.weights.to(steps.device)[steps],
            counted=present,
            label_smoothing=self.label_smoothing,
        )
        return _with_lengths(model, memory, items, loss)


class DivergenceObjective:
    """The KL of a step's posterior from the one with the prediction plugged in, steps uniform.

    Args:
        noise: q_n.
        grid: Schedule in T steps.
    """

    def __init__(self, noise: Noise, grid: Grid) -> None:
        self.noise, self.grid = noise, grid

    def __call__(self, model: SequenceDenoiser, items: Items, generator: torch.Generator) -> tuple[Tensor, Series]:
        """Return the loss and its parts, in nats per token and step."""
        present = model.present(items.target)
        noised = draw_noised(items.target, self.grid, self.noise, generator, noisable=present)
        memory = model.memory(items.source)
        alpha_s, alpha_t = (self.grid.alpha(noised.steps - back)[:, None] for back in (1, 0))
        # Padding is read as some word by both sides, and left out of the mean.
        true, now = (torch.where(present, each, 0) for each in (items.target, noised.tokens))
        logits = model(items.source, noised.tokens, memory)
        terms = posterior_divergence(logits, true, now, alpha_s, alpha_t, self.noise)
        return _with_lengths(model, memory, items, (terms * present).sum() / present.sum())


class MaskPredictObjective:
    """Cross entropy on j masked tokens of each item, j ~ U{1..N}.

    Args:
        label_smoothing: On masked tokens.
    """

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: SequenceDenoiser, items: Items, generator: torch.Generator) -> tuple[Tensor, Series]:
        """Return the loss and its parts, in nats per masked token."""
        present = model.present(items.target)
        length = present.sum(1, keepdim=True)
        place = torch.rand(length.shape, generator=generator, device=length.device)
        masked = choose((place * length).long().clamp(max=length - 1) + 1, present, generator)
        memory = model.memory(items.source)
        logits = model(items.source, items.target.masked_fill(masked, model.mask), memory)
        labels = items.target.masked_fill(~masked, -100)
        loss = F.cross_entropy(logits.float().transpose(1, 2), labels, label_smoothing=self.label_smoothing)
        return _with_lengths(model, memory, items, loss)


class CausalObjective:
    """Cross entropy of every token, and of the end, given those before; the network must be causal and end.

    Args:
        label_smoothing: On all tokens.
    """

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, model: SequenceDenoiser, items: Items, generator: torch.Generator) -> tuple[Tensor, Series]:
        """Return the loss and its parts, in nats per token, the end counted as one."""
        start = torch.full_like(items.target[:, :1], model.start)
        before = torch.cat([start, items.target], dim=1)
        logits = model.continued(items.source, before)
        ended = F.pad(model.present(items.target), (0, 1))
        labels = F.pad(items.target, (0, 1), value=model.words).where(ended, model.words)
        labels = labels.masked_fill(~model.present(before), -100)
        loss = F.cross_entropy(logits.float().transpose(1, 2), labels, label_smoothing=self.label_smoothing)
        return _with_lengths(model, model.memory(items.source) if model.lengths else None, items, loss)


Objective = ReparameterizedObjective | DivergenceObjective | MaskPredictObjective | CausalObjective
