"""From images to the tokens that an arm generates, and back: a frozen autoencoder and a quantizer of its latents.

    images -- autoencoder --> latents (B, P, C) -- quantizer --> tokens (B, P, M) --> values (B, P, C) --> images

Tokens are indices, or the latents themselves where nothing is quantized. Quantizers that learn codes (k-means,
residual) learn them here, from latents of training images; the autoencoder is never touched.
"""

from __future__ import annotations

import importlib
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from components.bases import construct, load_model, specification
from components.data.pixels import to_bytes
from components.errors import TesseraError
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.image_generation.params import TrainParams

_BATCH = 64  # keeps activations in a core's cache
_FIT = 3  # stream of the codebooks' start; 0 to 2 seed the process (components.training.determinism.reset)


class CodesError(TesseraError):
    """An arm's autoencoder and quantizer do not fit together."""


class Codes:
    """The tokens of an arm.

    Args:
        stage: Gives the autoencoder (a base) and the parameters.

    Attributes:
        autoencoder: The base, frozen.
        quantizer: Of the latents; None where tokens are the latents or the autoencoder's own indices.
    """

    def __init__(self, stage: StageContext) -> None:
        params = stage.params
        key = f"bases/{params.autoencoder}"
        if key not in stage.inputs:
            raise CodesError(
                f"autoencoder is {params.autoencoder!r}, but the stage was given {', '.join(sorted(stage.inputs))}; "
                "add it to the variant's `bases`."
            )
        self._params, self._device = params, stage.device
        self.autoencoder = load_model(stage.inputs[key]).requires_grad_(False).to(stage.device)
        self.quantizer: nn.Module | None = None
        if params.quantizer not in ("own", "none"):
            self.quantizer = construct(self.quantizer_description()).requires_grad_(False).eval().to(stage.device)
        elif params.quantizer == "own" and not hasattr(self.autoencoder, "codebook_sizes"):
            raise CodesError(f"quantizer is 'own', but {params.autoencoder} is a continuous autoencoder; name another.")

    @property
    def positions(self) -> int:
        """P, token positions of an image."""
        return self.autoencoder.cells

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many values each number of a token can take; empty for continuous tokens."""
        if self._params.quantizer == "own":
            return tuple(self.autoencoder.codebook_sizes)
        return () if self.quantizer is None else tuple(self.quantizer.codebook_sizes)

    @property
    def bits_per_image(self) -> float:
        """Nominal bits of an image's tokens, 32 for each number of a continuous one."""
        if not self.codebook_sizes:
            return 32.0 * self.positions * self.autoencoder.latent_dim
        return self.positions * sum(math.log2(size) for size in self.codebook_sizes)

    def quantizer_description(self) -> dict[str, Any]:
        """Return the description (components.bases) of the quantizer; its parameters are read from the study's."""
        params: TrainParams = self._params
        module = f"components.quantizers.{params.quantizer}"
        names = inspect.signature(importlib.import_module(module).build).parameters
        given = {name: getattr(params, name) for name in names if name in type(params).model_fields}
        return specification(module, code_dim=self.autoencoder.latent_dim, **given)

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """Return the normalised latents (B, P, C), on the CPU, of images uint8 (B, 3, H, W)."""
        return torch.cat([self.autoencoder.latents(part.to(self._device)).cpu() for part in images.split(_BATCH)])

    @torch.no_grad()
    def fit(self, latents: Tensor, seed: int) -> None:
        """Let a quantizer that learns codes learn them from latents (B, P, C) of training images."""
        if self.quantizer is not None:
            vectors = latents[: self._params.fitted_images].to(self._device)
            self.quantizer.start_from(vectors, torch.Generator().manual_seed(derive_seed(seed, _FIT)))

    @torch.no_grad()
    def quantize(self, latents: Tensor) -> Tensor:
        """Return the tokens of latents (B, P, C), on the CPU: int64 (B, P, M), or the latents themselves."""
        if self.quantizer is None:
            return latents
        parts = latents.split(16 * _BATCH)
        indices = torch.cat([self.quantizer(part.to(self._device)).indices.cpu() for part in parts])
        return indices if self.quantizer.indices_have_an_axis else indices.unsqueeze(-1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the tokens, on the CPU, of images uint8 (B, 3, H, W)."""
        if self._params.quantizer == "own":
            parts = [self.autoencoder.encode(part.to(self._device)).cpu() for part in images.split(_BATCH)]
            return torch.cat(parts).view(len(images), self.positions, -1)
        return self.quantize(self.latents(images))

    def values(self, tokens: Tensor) -> Tensor:
        """Return the latents (B, P, C) that tokens (B, P, M) stand for."""
        if self.quantizer is None:
            return tokens
        return self.quantizer.decode(tokens if self.quantizer.indices_have_an_axis else tokens.squeeze(-1))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Return images, uint8 (B, 3, H, W) on the CPU as a decoder would write them, of tokens on any device."""
        if self._params.quantizer != "own":
            return torch.cat([self.decode_values(self.values(part.to(self._device))) for part in tokens.split(_BATCH)])
        if len(self.codebook_sizes) == 1:
            tokens = tokens.squeeze(-1)
        parts = [self.autoencoder.decode(part.to(self._device)) for part in tokens.split(_BATCH)]
        return torch.cat([to_bytes(part).cpu() for part in parts])

    @torch.no_grad()
    def decode_values(self, values: Tensor) -> Tensor:
        """Return images, uint8 (B, 3, H, W) on the CPU, of latents (B, P, C) on any device."""
        parts = [self.autoencoder.decode_values(part.to(self._device)) for part in values.split(_BATCH)]
        return torch.cat([to_bytes(part).cpu() for part in parts])
