"""Masked autoregression over image tokens: any set of positions is predicted from any other, in random order.

    class tokens, visible tokens -- encoder -- put back to their positions, mask tokens elsewhere -- decoder -- c_p
    each masked x_p is drawn given its c_p by a head, as in components.language.class_conditional

In training all but a few tokens are masked; their share is drawn from a normal of mean 1 and deviation 0.25, cut to
[least, 1]. Sampling visits the positions in a random order, a few at a time: after step k of K

    masked = floor(P cos(pi k / (2 K)))

positions are left.

Letters: `B` images, `P` positions, `V` of them visible, `N` of them predicted, `C` numbers of a token, `D` width, `S`
class tokens, `Y` classes.

Sources: Li et al. 2024 (MAR, sections 3.4 and 4); Chang et al. 2022 (MaskGIT: the cosine schedule); as the spatial
model of Wang et al. 2025 (TokenBridge).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from components.language.class_conditional import (
    GeneratorError,
    GuidanceSchedule,
    check_schedule,
    guidance_at,
    without_some_classes,
)
from components.nn.transformer import Transformer, TransformerConfig

_MASK_DEVIATION = 0.25


class MaskedAR(nn.Module):
    """Encoder over visible tokens, decoder over all positions; see the module.

    Args:
        embedding: Tokens (..., C) to vectors (..., D).
        head: Predicts one token from its condition.
        classes: Y.
        positions: P.
        width: D.
        layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        heads: Attention heads.
        class_dropout: Probability with which the class of a training image is left out.
        class_tokens: S, copies of the class with positions of their own.
        least_masked: Smallest share of masked positions in training.
    """

    def __init__(
        self,
        *,
        embedding: nn.Module,
        head: nn.Module,
        classes: int,
        positions: int,
        width: int,
        layers: int,
        decoder_layers: int,
        heads: int,
        class_dropout: float = 0.1,
        class_tokens: int = 64,
        least_masked: float = 0.7,
    ) -> None:
        super().__init__()
        self.classes, self.positions, self.class_dropout = classes, positions, class_dropout
        self.class_tokens, self.least_masked = class_tokens, least_masked
        self.embedding = embedding
        self.head = head
        self.class_embedding = nn.Embedding(classes + 1, width)  # the last one: no class
        self.encoder_positions = nn.Parameter(torch.randn(class_tokens + positions, width) * 0.02)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.encoder = Transformer(TransformerConfig(width, layers, heads))
        self.between = nn.Linear(width, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.decoder_positions = nn.Parameter(torch.randn(class_tokens + positions, width) * 0.02)
        self.decoder = Transformer(TransformerConfig(width, decoder_layers, heads))
        self.output_positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        nn.init.normal_(self.class_embedding.weight, std=0.02)

    def draw_step(self, generator: torch.Generator) -> int:
        """Draw how many positions are masked in one training step, one number for the whole batch.

        The share is a normal of mean 1 and deviation 0.25 cut to [least, 1], by inversion of its distribution.
        """
        low = torch.special.ndtr(torch.tensor((self.least_masked - 1) / _MASK_DEVIATION, dtype=torch.float64))
        uniform = low + (0.5 - low) * torch.rand((), generator=generator, dtype=torch.float64)
        share = 1 + _MASK_DEVIATION * float(torch.special.ndtri(uniform))
        return min(max(math.ceil(self.positions * share), 1), self.positions)

    def conditions(self, tokens: Tensor, visible: Tensor, labels: Tensor) -> Tensor:
        """Return the conditions of all positions, which depend on the class and the visible tokens only.

        Args:
            tokens: (B, P, C); those that are not visible are not read.
            visible: Visible positions of each image, int64 (B, V).
            labels: int64 (B,), 0 to Y - 1, or Y for no class.

        Returns:
            (B, P, D).
        """
        if tokens.dim() != 3 or tokens.shape[1] != self.positions or len(labels) != len(tokens):
            raise GeneratorError(
                f"tokens {list(tokens.shape)} and labels {list(labels.shape)}; expected (B, {self.positions}, C) and "
                "(B,)."
            )
        return self._decoded(self._embedded(tokens, visible), visible, labels)

    def loss(self, tokens: Tensor, labels: Tensor, generator: torch.Generator, masked: int) -> Tensor:
        """Return the head's loss over the masked positions of a training batch.

        Args:
            tokens: (B, P, C).
            labels: int64 (B,).
            generator: Source of masks, class dropout and of what the head draws, on the tokens' device.
            masked: How many positions are masked, from `draw_step`.
        """
        labels = without_some_classes(labels, self.classes, self.class_dropout, generator)
        order = torch.rand(tokens.shape[:2], generator=generator, device=tokens.device).argsort(1)
        hidden, visible = order[:, :masked], order[:, masked:]
        conditions = self.conditions(tokens, visible, labels)
        return self.head.loss(_at(tokens, hidden).flatten(0, 1), _at(conditions, hidden).flatten(0, 1), generator)

    @torch.no_grad()
    def nll(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return -ln p of every number of every token, nats (B, P, C), when tokens are revealed in raster order.

        One pass of the network for each position.
        """
        order = torch.arange(self.positions, device=tokens.device).expand(len(tokens), -1)
        found = [
            self.head.nll(tokens[:, place], self.conditions(tokens, order[:, :place], labels)[:, place])
            for place in range(self.positions)
        ]
        return torch.stack(found, dim=1)

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        generator: torch.Generator,
        *,
        guidance: float = 1.0,
        schedule: GuidanceSchedule = "constant",
        temperature: float = 1.0,
        steps: int,
    ) -> Tensor:
        """Draw the tokens of images of given classes.

        Args:
            labels: int64 (B,).
            generator: Source of randomness, on the model's device.
            guidance: Scale of classifier-free guidance; 1 for none.
            schedule: The scale in every step, or rising linearly with the share of positions drawn.
            temperature: Of the head.
            steps: K, at most P.

        Returns:
            Tokens (B, P, C).
        """
        check_schedule(schedule)
        images, pairs = len(labels), guidance != 1.0
        order = torch.rand((images, self.positions), generator=generator, device=labels.device).argsort(1)
        if pairs:
            labels = torch.cat([labels, torch.full_like(labels, self.classes)])
        tokens = None
        done = 0
        for end in revealed(self.positions, steps):
            visible, places = order[:, :done], order[:, done:end]
            if tokens is None:
                conditions = self._decoded(None, None, labels)
            else:
                seen = self._embedded(tokens, visible)
                seen, visible = (torch.cat([half, half]) if pairs else half for half in (seen, visible))
                conditions = self._decoded(seen, visible, labels)
            chosen = _at(conditions[:images], places).flatten(0, 1)
            unguided = _at(conditions[images:], places).flatten(0, 1) if pairs else None
            drawn = self.head.sample(
                chosen,
                generator,
                unguided=unguided,
                guidance=guidance_at(guidance, end / self.positions, schedule),
                temperature=temperature,
            ).unflatten(0, (images, end - done))
            if tokens is None:
                tokens = drawn.new_zeros((images, self.positions, drawn.shape[-1]))
            tokens = tokens.scatter(1, places.unsqueeze(-1).expand_as(drawn), drawn)
            done = end
        return tokens

    def _embedded(self, tokens: Tensor, visible: Tensor) -> Tensor:
        return self.embedding(_at(tokens, visible)) + self.encoder_positions[self.class_tokens + visible]

    def _decoded(self, seen: Tensor | None, visible: Tensor | None, labels: Tensor) -> Tensor:
        """Return the conditions given embedded visible tokens (B, V, D) and their positions; None where nothing is."""
        start = self.class_embedding(labels).unsqueeze(1) + self.encoder_positions[: self.class_tokens]
        given = start if seen is None else torch.cat([start, seen], dim=1)
        encoded = self.between(self.encoder(self.encoder_norm(given)))
        start, seen = encoded[:, : self.class_tokens], encoded[:, self.class_tokens :]
        image = self.mask_token.to(seen.dtype).expand(len(labels), self.positions, -1)
        if visible is not None:
            image = image.scatter(1, visible.unsqueeze(-1).expand_as(seen), seen)
        decoded = self.decoder(torch.cat([start, image], dim=1) + self.decoder_positions)
        return decoded[:, self.class_tokens :] + self.output_positions


def revealed(positions: int, steps: int) -> list[int]:
    """Return how many positions are known after each of K steps: P - floor(P cos(pi k / (2 K))), one more at least.

    Raises:
        GeneratorError: There are more steps than positions.
    """
    if not 1 <= steps <= positions:
        raise GeneratorError(f"{steps} sampling steps for {positions} positions; expected 1 to {positions}.")
    known = []
    for step in range(1, steps + 1):
        left = math.floor(positions * math.cos(math.pi * step / (2 * steps))) if step < steps else 0
        most = positions - (known[-1] if known else 0) - 1
        known.append(positions - min(max(left, steps - step), most))
    return known


def _at(rows: Tensor, places: Tensor) -> Tensor:
    """Return the rows (B, N, C) at places (B, N) of rows (B, P, C)."""
    return rows.gather(1, places.unsqueeze(-1).expand(-1, -1, rows.shape[2]))


# A description (components.bases) names this module and gives the arguments of its `build`.
build = MaskedAR
