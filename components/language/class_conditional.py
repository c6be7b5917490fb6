"""A causal transformer over the token positions of an image of a given class, with any head that predicts one token.

    p(x_1 .. x_P | y) = prod_p p(x_p | c_p),      c_p = transformer(y, x_1, ..., x_{p-1})

    class, x_1 .. x_{P-1} -- embed + position -- transformer (causal) -- c_1 .. c_P -- head -- each x_p given its c_p

Tokens may be one index each, vectors of indices or vectors of numbers: embedding and head decide, the transformer does
not know. In training the class is replaced by an empty class now and then; sampling with and without it gives
classifier-free guidance.

A head has `loss(tokens (N, C), condition (N, D), generator) -> mean`, `sample(condition, generator, unguided=,
guidance=, temperature=) -> tokens (N, C)` and, where likelihoods exist, `nll(tokens, condition) -> nats (N, C)`.

Letters: `B` images, `P` positions, `C` numbers of a token, `D` width, `Y` classes.

Sources: Esser, Rombach, Ommer 2021 (VQGAN, section 3.2: raster order over image tokens); Li et al. 2024 (MAR, section
3.3: a causal transformer with a head for continuous tokens); Ho and Salimans 2022 (class dropout).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig

GuidanceSchedule = Literal["constant", "linear"]


class GeneratorError(TesseraError):
    """A generator of image tokens was given tokens, classes or settings that do not fit."""


class ClassConditionalAR(nn.Module):
    """Raster autoregression over positions; see the module.

    Args:
        embedding: Tokens (..., C) to vectors (..., D).
        head: Predicts one token from its condition.
        classes: Y.
        positions: P.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
        class_dropout: Probability with which the class of a training image is left out.
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
        heads: int,
        class_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.classes, self.positions, self.class_dropout = classes, positions, class_dropout
        self.embedding = embedding
        self.head = head
        self.class_embedding = nn.Embedding(classes + 1, width)  # the last one: no class
        self.position_embedding = nn.Embedding(positions, width)
        self.transformer = Transformer(TransformerConfig(width, layers, heads, causal=True))
        for table in (self.class_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def conditions(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return the condition c_p of every position, which depends on the class and the tokens before p.

        Args:
            tokens: (B, P, C).
            labels: int64 (B,), 0 to Y - 1, or Y for no class.

        Returns:
            (B, P, D).
        """
        if tokens.dim() != 3 or tokens.shape[1] != self.positions or len(labels) != len(tokens):
            raise GeneratorError(
                f"tokens {list(tokens.shape)} and labels {list(labels.shape)}; expected (B, {self.positions}, C) and "
                "(B,)."
            )
        start = self.class_embedding(labels).unsqueeze(1)
        hidden = torch.cat([start, self.embedding(tokens[:, :-1])], dim=1) + self.position_embedding.weight
        return self.transformer(hidden)

    def loss(self, tokens: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the head's loss of a training batch: mean over images and positions.

        Args:
            tokens: (B, P, C).
            labels: int64 (B,).
            generator: Source of the class dropout and of what the head draws, on the tokens' device.
        """
        labels = without_some_classes(labels, self.classes, self.class_dropout, generator)
        return self.head.loss(tokens.flatten(0, 1), self.conditions(tokens, labels).flatten(0, 1), generator)

    @torch.no_grad()
    def nll(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return -ln p of every number of every token given its class, nats (B, P, C); for heads with likelihoods."""
        conditions = self.conditions(tokens, labels).flatten(0, 1)
        return self.head.nll(tokens.flatten(0, 1), conditions).unflatten(0, tokens.shape[:2])

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        generator: torch.Generator,
        *,
        guidance: float = 1.0,
        schedule: GuidanceSchedule = "constant",
        temperature: float = 1.0,
    ) -> Tensor:
        """Draw the tokens of images of given classes, one position after another, with a key and value cache.

        Args:
            labels: int64 (B,).
            generator: Source of randomness, on the model's device.
            guidance: Scale of classifier-free guidance; 1 for none.
            schedule: The scale at every position, or rising linearly from near 1 to it at the last one.
            temperature: Of the head.

        Returns:
            Tokens (B, P, C).
        """
        check_schedule(schedule)
        images, pairs = len(labels), guidance != 1.0
        if pairs:
            labels = torch.cat([labels, torch.full_like(labels, self.classes)])
        cache = KeyValueCache(self.positions)
        hidden = self.class_embedding(labels)
        tokens: list[Tensor] = []
        for position in range(self.positions):
            given = (hidden + self.position_embedding.weight[position]).unsqueeze(1)
            condition = self.transformer(given, cache=cache).squeeze(1)
            token = self.head.sample(
                condition[:images],
                generator,
                unguided=condition[images:] if pairs else None,
                guidance=guidance_at(guidance, (position + 1) / self.positions, schedule),
                temperature=temperature,
            )
            tokens.append(token)
            embedded = self.embedding(token)
            hidden = torch.cat([embedded, embedded]) if pairs else embedded
        return torch.stack(tokens, dim=1)


def without_some_classes(labels: Tensor, empty: int, probability: float, generator: torch.Generator) -> Tensor:
    """Replace each label (B,) by the class `empty` with the given probability."""
    drawn = torch.rand(labels.shape, generator=generator, device=labels.device)
    return torch.where(drawn < probability, empty, labels)


def guidance_at(scale: float, share: float, schedule: GuidanceSchedule) -> float:
    """Return the guidance scale once a share (0 to 1) of the positions is drawn: `1 + (scale - 1) share` if linear."""
    return scale if schedule == "constant" else 1 + (scale - 1) * share


def check_schedule(schedule: str) -> None:
    """Refuse a schedule of guidance that does not exist."""
    if schedule not in get_args(GuidanceSchedule):
        raise GeneratorError(f"guidance schedule {schedule!r}; expected {' or '.join(get_args(GuidanceSchedule))}.")


# A description (components.bases) names this module and gives the arguments of its `build`.
build = ClassConditionalAR
