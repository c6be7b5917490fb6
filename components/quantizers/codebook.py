"""A table of codes that learns: by gradient or as a moving average, with restarts of codes that nothing uses.

Quantizers of Euclidean codes (one codebook, residual, additive) are made of these.

Letters: `...` any leading axes, `N` vectors of a batch, `D` width of a code, `K` number of codes.

Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE, appendix A.1: moving averages); Dhariwal et al. 2020 (Jukebox,
appendix B: restarts); Zeghidour et al. 2021 (SoundStream, section III-C: k-means start).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.quantizers.clustering import kmeans
from components.quantizers.nearest import nearest_codes
from components.quantizers.quantized import QuantizerError

# A code that nothing uses keeps this count instead of decaying to zero, where its position would be lost.
_LEAST_COUNT = 1e-6
_START_ITERATIONS = 10


class Codebook(nn.Module):
    """K codes of width D.

    With `ema_decay` g the codes are the moving average of the vectors that chose them,

        n_k <- g n_k + (1 - g) count_k,     m_k <- g m_k + (1 - g) sum of the vectors of code k,     e_k = m_k / n_k

    (n_k = 1 at the start), and no gradient reaches them; without it they are a parameter. Averages move and codes
    restart in `after_step`, never in a forward pass. All that outlives a step is a parameter or buffer.

    Args:
        size: K.
        width: D.
        ema_decay: g, in [0, 1); None trains the codes by gradient.
        restart_every: Every this many steps, rarely used codes are put onto random vectors of the current batch; 0
            never restarts.
        restart_below: A code is restarted that fewer vectors than this chose since the last time.
    """

    def __init__(
        self, size: int, width: int, *, ema_decay: float | None, restart_every: int, restart_below: int
    ) -> None:
        super().__init__()
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise QuantizerError(f"Codebook(ema_decay={ema_decay}): expected a value in [0, 1), or None for gradients.")
        if restart_every < 0 or restart_below < 1:
            raise QuantizerError(
                f"Codebook(restart_every={restart_every}, restart_below={restart_below}): expected at least 0 steps "
                "(0 never restarts) and at least 1 use."
            )
        self.size = size
        self.ema_decay = ema_decay
        self.restart_every = restart_every
        self.restart_below = restart_below
        start = torch.randn(size, width) * width**-0.5
        if ema_decay is None:
            self.weight = nn.Parameter(start)
        else:
            self.register_buffer("weight", start)
            self.register_buffer("moving_sums", start.clone())
            self.register_buffer("moving_counts", torch.ones(size))
        if restart_every:
            self.register_buffer("uses", torch.zeros(size))
        self._sums: Tensor | None = None
        self._counts: Tensor | None = None
        self._recent: Tensor | None = None

    @property
    def learns_by_gradient(self) -> bool:
        """Whether the codes are a parameter, which needs a loss."""
        return self.ema_decay is None

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index (...) of the code nearest to each of `vectors` (..., D)."""
        return nearest_codes(vectors, self.weight)

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        return F.embedding(indices, self.weight)

    @torch.no_grad()
    def remember(self, vectors: Tensor, indices: Tensor) -> None:
        """Add a batch to what `after_step` will use; several forward passes of one step add up.

        Args:
            vectors: What the codes shall follow (..., D).
            indices: The code that each of them chose (...).
        """
        vectors = vectors.detach().reshape(-1, self.weight.shape[1]).to(self.weight.dtype)
        indices = indices.reshape(-1)
        if self.ema_decay is None and not self.restart_every:
            return
        if self._counts is None:
            self._counts = torch.zeros_like(self.weight[:, 0])
        self._counts.index_add_(0, indices, torch.ones_like(vectors[:, 0]))
        if self.ema_decay is not None:
            if self._sums is None:
                self._sums = torch.zeros_like(self.weight)
            self._sums.index_add_(0, indices, vectors)
        self._recent = vectors

    @torch.no_grad()
    def start_from(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Put the codes onto the k-means centres of `vectors` (..., D), so that none starts far from the data."""
        flat = vectors.detach().reshape(-1, self.weight.shape[1])
        self._place(torch.ones_like(self.weight[:, :1], dtype=torch.bool), kmeans(
            flat, self.size, generator, iterations=_START_ITERATIONS
        ))  # fmt: skip
        if self.restart_every:
            self.uses.zero_()

    @torch.no_grad()
    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Move the averages and restart rarely used codes; call once after every optimiser step.

        Args:
            step: Number of this step, from 0.
            generator: Source of the restarts; seeded from (seed, step), it makes a resumed training exact.
        """
        if self._recent is None:
            return
        if self.ema_decay is not None:
            self._move_averages()
        if self.restart_every:
            self.uses.add_(self._counts)
            if (step + 1) % self.restart_every == 0:
                self._restart(generator)
        self._sums = self._counts = self._recent = None

    def _move_averages(self) -> None:
        weight = 1 - self.ema_decay
        counts = self.moving_counts.lerp(self._counts, weight).unsqueeze(1)
        sums = self.moving_sums.lerp(self._sums, weight)
        alive = counts >= _LEAST_COUNT
        self.weight.copy_(torch.where(alive, sums / counts, self.weight))
        self.moving_counts.copy_(counts.clamp(min=_LEAST_COUNT).squeeze(1))
        self.moving_sums.copy_(torch.where(alive, sums, self.weight * _LEAST_COUNT))

    def _restart(self, generator: torch.Generator) -> None:
        rare = self.uses < self.restart_below
        # The count of draws depends on shapes only, so nothing waits for the device. Rare codes take the shuffled
        # vectors in turn: two codes on one vector would leave the second unused.
        order = torch.randperm(self._recent.shape[0], generator=generator, device=generator.device)
        turn = (rare.cumsum(0) - 1).clamp(min=0) % self._recent.shape[0]
        self._place(rare.unsqueeze(1), self._recent[order.to(self._recent.device)[turn]])
        self.uses.zero_()

    def _place(self, chosen: Tensor, codes: Tensor) -> None:
        self.weight.copy_(torch.where(chosen, codes, self.weight))
        if self.ema_decay is not None:
            self.moving_sums.copy_(torch.where(chosen, codes, self.moving_sums))
            self.moving_counts.copy_(torch.where(chosen.squeeze(1), 1.0, self.moving_counts))
