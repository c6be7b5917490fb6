"""Gumbel-softmax quantization: the code is a sample of a distribution over the codebook.

Letters: `...` any leading axes (batch, tokens), `D` width of a vector, `K` codebook size.

Sources: Jang, Gu, Poole 2017 (Gumbel-softmax, section 2.2: straight-through form); Ramesh et al. 2021 (DALL-E, section
2.1 and appendix A.2: as an image codec, with annealed temperature and a divergence from the uniform prior); the
published code of Baevski et al. 2020 (vq-wav2vec: weights of the logits start with deviation 1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.quantizers.precision import exact, without_autocast
from components.quantizers.quantized import Quantized, QuantizerError, QuantizerModule


class GumbelQuantizer(QuantizerModule):
    """A code drawn by Gumbel-max noise, with the gradient of the softmax relaxation.

        l = W z + b,   y = softmax((l + g) / tau),   k = argmax (l + g),   g_k = -log(-log u_k)
        values = e_k                       with the gradient of sum_j y_j sg(e_j) to l, and of e_k to the codes
        loss   = prior_weight * KL(softmax(l) || uniform)                  mean over vectors

    In evaluation k = argmax l and values = e_k, with the gradient of the mean code under softmax(l / tau). The noise
    comes from torch's global generator. Unlike a nearest-code search this holds (..., K) numbers: they are the
    distribution that the gradient needs.

    Args:
        codebook_size: K.
        code_dim: D.
        start_temperature: tau at the start.
        end_temperature: tau at the end; between them it falls geometrically.
        anneal_steps: Steps until the end temperature.
        prior_weight: Weight of the divergence from the uniform distribution.
    """

    def __init__(
        self,
        codebook_size: int,
        code_dim: int,
        *,
        start_temperature: float = 1.0,
        end_temperature: float = 0.1,
        anneal_steps: int = 1000,
        prior_weight: float = 5e-4,
    ) -> None:
        super().__init__(code_dim, (codebook_size,))
        if not 0 < end_temperature <= start_temperature or anneal_steps < 1:
            raise QuantizerError(
                f"GumbelQuantizer(start_temperature={start_temperature}, end_temperature={end_temperature}, "
                f"anneal_steps={anneal_steps}): expected 0 < end <= start and at least 1 step."
            )
        self.start_temperature = start_temperature
        self.end_temperature = end_temperature
        self.anneal_steps = anneal_steps
        self.prior_weight = prior_weight
        self.to_logits = nn.Linear(code_dim, codebook_size)
        # The usual small start leaves logits far below the noise: codes are drawn blindly, for all of a short training.
        nn.init.normal_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)
        self.codes = nn.Parameter(torch.randn(codebook_size, code_dim) * code_dim**-0.5)
        self.register_buffer("temperature", torch.tensor(float(start_temperature)))

    def forward(self, vectors: Tensor) -> Quantized:
        """Quantize `vectors` (..., D): sampled codes in training, the likeliest in evaluation."""
        self.check_vectors(vectors)
        with without_autocast(vectors.device):
            logits = self.to_logits(exact(vectors))
            noisy = logits - torch.empty_like(logits).exponential_().log() if self.training else logits
            indices = noisy.detach().argmax(-1)
            relaxed = F.softmax(noisy / self.temperature, -1) @ self.codes.detach()
            # The exact zero carries the relaxation's gradient and leaves the value of the code as it is.
            values = F.embedding(indices, self.codes) + (relaxed - relaxed.detach())
            log_probabilities = F.log_softmax(logits, -1)
            divergence = (log_probabilities.exp() * (log_probabilities + math.log(self.codebook_size))).sum(-1)
        return Quantized(values, indices, self.prior_weight * divergence.mean())

    def decode(self, indices: Tensor) -> Tensor:
        """Return the codes (..., D) named by `indices` (...)."""
        self.check_indices(indices)
        return F.embedding(indices, self.codes)

    @torch.no_grad()
    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Lower the temperature; call once after every optimiser step, `step` counted from 0."""
        progress = min(1.0, (step + 1) / self.anneal_steps)
        self.temperature.fill_(self.start_temperature * (self.end_temperature / self.start_temperature) ** progress)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = GumbelQuantizer
