"""The convolutional grid tokenizer whose codes serve as proxy targets: one code per cell of 2**(levels - 1) pixels.

    image -- convolutions, mean pooling -- nearest code per cell -- convolutions, nearest upsampling -- image

With its defaults it has the shape of MaskGIT's VQGAN: 16 x 16 cells of a 256-pixel image, 1,024 codes of width 256.

Letters: `B` images, `H W` pixels, `P` cells, `K` codebook size, `C` width of a code.

Source: Chang et al. 2022 (MaskGIT), section 4.1 and appendix A; Esser et al. 2021 (VQGAN), appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from components.data.pixels import to_unit
from components.nn.conv_autoencoder import ResidualBlock, group_norm, to_maps, to_vectors
from components.nn.vit import embedding
from components.quantizers.vq import nearest_codes

_GROUPS = 32


def _encoder(channels: int, multipliers: Sequence[int], blocks: int, code_dim: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    inputs = channels
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            layers.append(ResidualBlock(inputs, channels * multiplier, _GROUPS))
            inputs = channels * multiplier
        if level + 1 < len(multipliers):
            layers.append(nn.AvgPool2d(2))
    layers += [ResidualBlock(inputs, inputs, _GROUPS) for _ in range(blocks)]
    return nn.Sequential(*layers, group_norm(inputs, min(_GROUPS, inputs)), nn.SiLU(), nn.Conv2d(inputs, code_dim, 1))


def _decoder(channels: int, multipliers: Sequence[int], blocks: int, code_dim: int) -> nn.Sequential:
    inputs = channels * multipliers[-1]
    layers: list[nn.Module] = [nn.Conv2d(code_dim, inputs, 3, padding=1)]
    layers += [ResidualBlock(inputs, inputs, _GROUPS) for _ in range(blocks)]
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks):
            layers.append(ResidualBlock(inputs, channels * multiplier, _GROUPS))
            inputs = channels * multiplier
        if level:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, inputs, 3, padding=1)]
    return nn.Sequential(
        *layers, group_norm(inputs, min(_GROUPS, inputs)), nn.SiLU(), nn.Conv2d(inputs, 3, 3, padding=1)
    )


class MaskGITVQGAN(nn.Module):
    """Encoder, codebook and pixel decoder; see the module.

    Args:
        image_side: H = W in pixels.
        channels: Channels of the finest level.
        multipliers: Channels of each level over those of the finest; each further level halves the resolution.
        blocks: Residual blocks of a level.
        codebook_size: K.
        code_dim: C.
    """

    def __init__(
        self,
        *,
        image_side: int = 256,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 2, 4),
        blocks: int = 2,
        codebook_size: int = 1024,
        code_dim: int = 256,
    ) -> None:
        super().__init__()
        self.rows = image_side // 2 ** (len(multipliers) - 1)
        self.cells = self.rows**2
        self.codebook_size = codebook_size
        self.encoder = _encoder(channels, multipliers, blocks, code_dim)
        self.codebook = embedding(codebook_size, code_dim)
        self.decoder = _decoder(channels, multipliers, blocks, code_dim)

    def encode(self, images: Tensor) -> Tensor:
        """Return code indices (B, P), row by row, of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return nearest_codes(to_vectors(self.encoder(to_unit(images))), self.codebook)

    def decode_values(self, values: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of code vectors (B, P, C), mixtures included."""
        return self.decoder(to_maps(values, self.rows))

    def decode(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of code indices (B, P)."""
        return self.decode_values(F.embedding(indices, self.codebook))


build = MaskGITVQGAN
