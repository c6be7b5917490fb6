"""A trained continuous codec whose latents are coded afterwards, each dimension by itself.

Letters: `B` images, `P` cells, `C` width of a latent vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.bases import construct
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import EvaluateParams
from flows.studies.image_tokenizer.models import described


class StandardisedCodec(nn.Module):
    """Latents to mean 0 and standard deviation 1 per dimension, the quantizer, and back.

    Args:
        codec: A trained grid tokenizer without a quantizer.
        latents: Its latents of training images, (B, P, C), from which mean and deviation are taken.
        params: Parameters; they name the quantizer and its arguments.
    """

    def __init__(self, codec: nn.Module, latents: Tensor, params: EvaluateParams) -> None:
        super().__init__()
        self.codec = codec
        self.register_buffer("mean", latents.flatten(0, 1).mean(0))
        self.register_buffer("deviation", latents.flatten(0, 1).std(0).clamp(min=1e-6))
        parts = {"code_dim": params.latent_dim}
        self.quantizer = construct(described(f"components.quantizers.{params.post_quantizer}", params, parts))
        self.codebook_sizes = self.quantizer.codebook_sizes

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return indices (B, P, C) of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.quantizer((self.codec.latents(images) - self.mean) / self.deviation).indices

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of indices (B, P, C)."""
        return self.codec.decode_values(self.quantizer.decode(indices) * self.deviation + self.mean)
