"""Masked generation: all tokens start masked and are committed a few at a time, the surest first.

Letters: `B` sequences, `N` tokens, `K` codebook size, `L` classes, `D` width.

Source: Chang et al. 2022 (MaskGIT), sections 3.1 (training), 3.2 (decoding) and 3.3 (cosine schedule); guidance as in
Chang et al. 2023 (Muse), section 2.7; its power-cosine growth as in Gao et al. 2023 (MDTv2), section 4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.diffusion.noise import AbsorbingNoise
from components.diffusion.samplers import sample_committing
from components.diffusion.schedules import remaining_share
from components.errors import TesseraError
from components.nn.transformer import Transformer, TransformerConfig
from components.nn.vit import embedding


class MaskedGenerationError(TesseraError):
    """A masked generator was configured or called in a way that has no meaning."""


class MaskedGenerator(nn.Module):
    """A bidirectional transformer over N discrete tokens, conditioned on a class.

        class, then tokens (or masks) + positions -- transformer -- logits over K codes per token

    Args:
        codebook_size: K.
        tokens: N.
        classes: L.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
        dropout: In attention and residual branches.
        class_dropout: Share of training sequences whose class is hidden, so that guidance has a class-free model.
        label_smoothing: Of the cross entropy.
        unmasked_weight: Loss weight of tokens that were not masked.
    """

    def __init__(
        self,
        *,
        codebook_size: int,
        tokens: int,
        classes: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.1,
        class_dropout: float = 0.1,
        label_smoothing: float = 0.1,
        unmasked_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.tokens = tokens
        self.classes = classes
        self.class_dropout = class_dropout
        self.label_smoothing = label_smoothing
        self.unmasked_weight = unmasked_weight
        self.token_embedding = embedding(codebook_size + 1, width)  # the last one is the mask
        self.class_embedding = embedding(classes + 1, width)  # the last one is "no class"
        self.positions = embedding(tokens + 1, width)
        self.transformer = Transformer(TransformerConfig(width=width, layers=layers, heads=heads, dropout=dropout))
        self.to_logits = nn.Linear(width, codebook_size)

    @property
    def mask_token_id(self) -> int:
        """Index of the mask, one past the codebook."""
        return self.codebook_size

    def forward(self, indices: Tensor, classes: Tensor) -> Tensor:
        """Return logits (B, N, K).

        Args:
            indices: (B, N), `mask_token_id` where a token is unknown.
            classes: (B,), L where the class is hidden.
        """
        sequence = torch.cat(
            [F.embedding(classes, self.class_embedding).unsqueeze(1), F.embedding(indices, self.token_embedding)], dim=1
        )
        return self.to_logits(self.transformer(sequence + self.positions)[:, 1:])

    def loss(self, indices: Tensor, classes: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the masked prediction loss of full sequences.

        Per sequence u ~ U(0, 1); ceil(N cos(pi u / 2)) random tokens are masked. Cross entropy of all tokens, with
        weight 1 where masked and `unmasked_weight` elsewhere, divided by the sum of weights.

        Args:
            indices: (B, N), no masks.
            classes: (B,).
            generator: Source of the masks, on the device of `indices`.
        """
        batch, tokens = indices.shape
        ratio = remaining_share(torch.rand(batch, 1, generator=generator, device=indices.device), "cosine")
        count = (ratio * tokens).ceil().clamp(min=1)
        order = torch.rand(batch, tokens, generator=generator, device=indices.device).argsort(1).argsort(1)
        masked = order < count
        hidden = torch.rand(batch, generator=generator, device=indices.device) < self.class_dropout
        logits = self(indices.masked_fill(masked, self.mask_token_id), classes.masked_fill(hidden, self.classes))
        losses = F.cross_entropy(
            logits.flatten(0, 1), indices.flatten(), label_smoothing=self.label_smoothing, reduction="none"
        )
        weights = torch.where(masked, 1.0, self.unmasked_weight).flatten()
        return (losses * weights).sum() / weights.sum()

    @torch.no_grad()
    def generate(
        self,
        classes: Tensor,
        *,
        steps: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        randomness: float = 3.0,
        guidance: float = 0.0,
        guidance_power: float | None = None,
    ) -> Tensor:
        """Generate sequences for classes.

        In every step each masked token is sampled from its predicted distribution; then all but the surest are masked
        again. Sureness is the log-probability of the sample plus Gumbel noise, whose scale falls linearly to zero.
        With guidance w the logits are  l_free + (1 + w) (l_class - l_free).

        Args:
            classes: (B,).
            steps: Network evaluations T (twice as many with guidance).
            generator: Source of samples and noise, on the device of `classes`.
            temperature: Of the categorical samples.
            randomness: Scale of the noise on sureness at the start.
            guidance: Strength w of classifier-free guidance; 0 uses the class-conditional model alone.
            guidance_power: Grow w over the steps as (1 - cos(pi * progress**power)) / 2; None keeps it constant.

        Returns:
            int64 (B, N), no masks.

        Raises:
            MaskedGenerationError: `steps` is not positive.
        """
        if steps < 1:
            raise MaskedGenerationError(f"steps is {steps}; expected at least 1.")
        was_training = self.training
        self.eval()
        device = classes.device
        free = torch.full_like(classes, self.classes)
        step = 0

        def denoiser(indices: Tensor, _times: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
            # Every sequence has masks until the last step, so that each call is one step.
            nonlocal step
            strength = guidance
            if guidance_power is not None:
                strength *= (1 - math.cos(math.pi * (step / max(1, steps - 1)) ** guidance_power)) / 2
            step += 1
            logits = self(indices, classes[rows])
            if guidance:
                without = self(indices, free[rows])
                logits = without + (1 + strength) * (logits - without)
            return logits.flatten(0, 1)[wanted] / temperature

        blank = torch.full((len(classes), self.tokens), self.mask_token_id, device=device)
        sampled = sample_committing(
            denoiser,
            blank,
            torch.ones_like(blank, dtype=torch.bool),
            AbsorbingNoise(self.codebook_size + 1, self.mask_token_id),
            steps,
            generator,
            decay="cosine",
            temperature=1.0,
            randomness=randomness,
        )
        self.train(was_training)
        return sampled.tokens
