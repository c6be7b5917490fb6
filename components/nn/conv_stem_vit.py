"""A vision transformer of small images: a convolutional stem makes its tokens, the class token is classified.

    image -- conv -- conv, half the side -- conv, half the side -- 1 x 1 conv -- tokens, + 2D positions --+
                                                                                                          +-- L blocks
                                                                                 CLS, + its position -----+      |
                                                                      classes -- linear -- CLS -- norm ----------+

Convolutions instead of one linear map of patches: a transformer of few steps and little data learns faster behind them.

Letters: `B` images, `H W` pixels, `P` tokens of an image without the class token, `D` width, `L` blocks, `K` classes.

Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better", section 4; Dosovitskiy et al. 2021 (ViT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from components.data.pixels import to_unit
from components.nn.transformer import Transformer, TransformerConfig
from components.nn.vit import PatchError, embedding, patches_per_image


class ConvStemViT(nn.Module):
    """The classifier; like a `PatchViT` open at every stage: `embed`, `blocks`, `norm`, and `logits` of tokens.

    Args:
        image_side: H = W in pixels.
        channels: Channels of the stem's 3 x 3 convolutions; each but the first halves the side.
        width: D.
        layers: L.
        heads: Attention heads.
        classes: K.
        mlp_ratio: Hidden channels of the MLP over D.
    """

    def __init__(
        self,
        *,
        image_side: int,
        channels: Sequence[int],
        width: int,
        layers: int,
        heads: int,
        classes: int,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.image_side, self.patch_size = image_side, 2 ** (len(channels) - 1)
        self.patches = patches_per_image(image_side, self.patch_size)
        stem: list[nn.Module] = []
        inputs = 3
        for place, outputs in enumerate(channels):
            stride = 1 if place == 0 else 2
            stem += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()]
            inputs = outputs
        self.stem = nn.Sequential(*stem, nn.Conv2d(inputs, width, 1))
        self.positions = embedding(1 + self.patches, width)
        self.class_token = embedding(1, width)
        self.transformer = Transformer(TransformerConfig(width=width, layers=layers, heads=heads, mlp_ratio=mlp_ratio))
        self.classifier = nn.Linear(width, classes)

    @property
    def rows(self) -> int:
        """Rows, and columns, of the grid of tokens."""
        return self.image_side // self.patch_size

    @property
    def width(self) -> int:
        """D."""
        return self.transformer.config.width

    @property
    def layers(self) -> int:
        """L."""
        return self.transformer.config.layers

    @property
    def blocks(self) -> nn.ModuleList:
        """The L blocks, in order."""
        return self.transformer.blocks

    @property
    def norm(self) -> nn.Module:
        """The norm behind the last block."""
        return self.transformer.norm

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, 1 + P, D) that the first block reads, of images (B, 3, H, W), uint8 or in [0, 1].

        Raises:
            PatchError: The images have another side.
        """
        if images.shape[-2:] != (self.image_side, self.image_side):
            raise PatchError(
                f"images are {images.shape[-1]} x {images.shape[-2]} pixels; this network reads {self.image_side} x "
                f"{self.image_side}. Resize them."
            )
        grid = self.stem(to_unit(images) * 4 - 2)
        tokens = grid.flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(images), 1, -1).to(tokens.dtype), tokens], 1) + self.positions

    def tokens(self, images: Tensor) -> Tensor:
        """Return the normalised tokens (B, 1 + P, D) of images (B, 3, H, W), uint8 or in [0, 1]."""
        return self.transformer(self.embed(images))

    def logits(self, tokens: Tensor) -> Tensor:
        """Return class logits (B, K) of normalised tokens, the class token first."""
        return self.classifier(tokens[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits (B, K) of images (B, 3, H, W), uint8 or in [0, 1]."""
        return self.logits(self.tokens(images))


def build(**settings: Any) -> ConvStemViT:
    """Build a network from the arguments of ConvStemViT."""
    return ConvStemViT(**settings)
