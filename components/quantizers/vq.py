"""Vector quantization with unit-norm codes.

Letters: `...` any leading axes (batch, tokens), `M` vectors, `D` width of a vector, `K` codebook size.

Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE: straight-through estimator, commitment, moving-average codes,
appendix A.1); Yu et al. 2022 (ViT-VQGAN, section 3.2: l2-normalised codes); Dhariwal et al. 2020 (Jukebox, appendix
B: restart of unused codes).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.quantizers.nearest import nearest_codes
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule


class CodebookError(QuantizerError):
    """A codebook was given a shape or value it cannot work with."""


def directional_kmeans(vectors: Tensor, count: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """Cluster unit vectors by direction (k-means on the sphere, Lloyd's iterations).

    Args:
        vectors: Unit vectors (M, D).
        count: Number of centres K. With fewer vectors than centres, vectors are repeated with a little noise, so that
            no two centres coincide.
        generator: Source of the starting centres, on any device.
        iterations: Lloyd's iterations.

    Returns:
        Unit centres (K, D).
    """
    available = vectors.shape[0]
    order = torch.randperm(available, generator=generator, device=generator.device)
    repeats = -(-count // available)
    picks = order.repeat(repeats)[:count].to(vectors.device)
    noise = torch.randn(count, vectors.shape[1], generator=generator, device=generator.device).to(vectors)
    repeated = (torch.arange(count, device=vectors.device) >= available).unsqueeze(1)
    centres = F.normalize(vectors[picks] + 0.05 * noise * repeated, dim=-1)
    for _ in range(iterations):
        assigned = nearest_codes(vectors, centres)
        sums = torch.zeros_like(centres).index_add_(0, assigned, vectors)
        # A centre without vectors, or whose vectors cancel out, has no direction: it stays where it was.
        centres = torch.where(sums.norm(dim=-1, keepdim=True) > 1e-6, F.normalize(sums, dim=-1), centres)
    return centres


class VectorQuantizer(QuantizerModule):
    """Nearest of K unit-norm codes, with straight-through gradient.

    With v the l2-normalised input and q the nearest code (also of norm one):

        values = q + (v - sg(v))                                  value of q, gradient of v
        loss   = ||sg(v) - q||^2 + commitment_weight * ||v - sg(q)||^2        mean over vectors

    The first term moves the codes. With `code_ema_decay` they follow a moving average of their vectors instead, and
    only the commitment term is left in the loss:

        m_k <- decay * m_k + (1 - decay) * sum of the vectors of code k,      e_k = m_k / ||m_k||

    Moving averages and restarts happen in `after_step`, never in `forward`, so a forward pass changes no
    code.

    Args:
        codebook_size: K.
        code_dim: D.
        commitment_weight: Weight of the commitment term.
        code_ema_decay: Decay of the moving average of the codes; None trains the codes by gradient.
        restart_every: Every this many steps, codes that no vector chose since the last time are put onto random
            vectors of the current batch; 0 never restarts.
    """

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        commitment_weight: float = 0.25,
        code_ema_decay: float | None = None,
        restart_every: int = 0,
    ) -> None:
        if codebook_size < 2 or code_dim < 2:
            raise CodebookError(
                f"VectorQuantizer(codebook_size={codebook_size}, code_dim={code_dim}): both must be at least 2 "
                "(a unit vector of width 1 is only a sign)."
            )
        super().__init__(code_dim, (codebook_size,))
        self.commitment_weight = commitment_weight
        self.code_ema_decay = code_ema_decay
        self.restart_every = restart_every
        start = F.normalize(torch.randn(codebook_size, code_dim), dim=-1)
        if code_ema_decay is None:
            self.weight = nn.Parameter(start)
        else:
            self.register_buffer("weight", start)
            self.register_buffer("moving_sums", start.clone())
        self.register_buffer("uses", torch.zeros(codebook_size))
        self._sums: Tensor | None = None
        self._recent: Tensor | None = None

    @property
    def codebook(self) -> Tensor:
        """The codes (K, D), each of norm one."""
        return self.weight if self.code_ema_decay is not None else F.normalize(self.weight, dim=-1)

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D); they are l2-normalised first."""
        self.check_vectors(vectors)
        unit = F.normalize(vectors, dim=-1)
        codes = self.codebook
        indices = nearest_codes(unit.detach(), codes.detach())
        chosen = F.embedding(indices, codes)
        error = (unit - chosen.detach()).square().sum(-1).mean()
        loss = self.commitment_weight * error
        if self.code_ema_decay is None:
            loss = loss + (unit.detach() - chosen).square().sum(-1).mean()
        if self.training:
            self._remember(unit.detach().reshape(-1, self.code_dim), indices.reshape(-1))
        # Adding an exact zero keeps the value of the code bit for bit; z + (q - z) would only round to it.
        values = chosen.detach() + (unit - unit.detach())
        return Quantized(values, indices, loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return F.embedding(indices, self.codebook)

    @torch.no_grad()
    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Put the codes onto the k-means centres of `vectors` (..., D), so that none starts far from the data."""
        self.check_vectors(vectors)
        unit = F.normalize(vectors.detach().reshape(-1, self.code_dim), dim=-1)
        centres = directional_kmeans(unit, self.codebook_size, generator)
        self.weight.copy_(centres)
        if self.code_ema_decay is not None:
            self.moving_sums.copy_(centres)
        self.uses.zero_()

    @torch.no_grad()
    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Move the averaged codes and restart unused ones; call once after every optimiser step.

        Args:
            step: Number of this step, from 0.
            generator: Source of the restarts; seeded from (seed, step), it makes a resumed training exact.
        """
        if self._recent is None:
            return
        if self.code_ema_decay is not None:
            sums = self.moving_sums.lerp(self._sums, 1 - self.code_ema_decay)
            # A code that nobody chooses keeps its direction: without a floor its sum would decay to zero.
            length = sums.norm(dim=-1, keepdim=True)
            self.moving_sums.copy_(torch.where(length > 1e-8, sums, self.weight * 1e-8))
            self.weight.copy_(F.normalize(self.moving_sums, dim=-1))
        if self.restart_every and (step + 1) % self.restart_every == 0:
            # One draw per code, used or not: the count of draws, and no wait for the device, depends on the data.
            shape, source = (self.codebook_size,), generator.device
            picks = torch.randint(self._recent.shape[0], shape, generator=generator, device=source)
            candidates = self._recent[picks.to(self._recent.device)]
            unused = (self.uses == 0).unsqueeze(1)
            self.weight.copy_(torch.where(unused, candidates, self.weight))
            if self.code_ema_decay is not None:
                self.moving_sums.copy_(torch.where(unused, candidates, self.moving_sums))
            self.uses.zero_()
        self._sums = self._recent = None

    def _remember(self, unit: Tensor, indices: Tensor) -> None:
        """Add a batch to what `after_step` will use; several forward passes of one step add up."""
        if self.code_ema_decay is not None:
            if self._sums is None:
                self._sums = torch.zeros_like(self.weight)
            self._sums.index_add_(0, indices, unit.to(self._sums.dtype))
        if self.restart_every:
            self.uses.index_add_(0, indices, torch.ones_like(indices, dtype=self.uses.dtype))
        self._recent = unit.to(self.weight.dtype)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = VectorQuantizer
