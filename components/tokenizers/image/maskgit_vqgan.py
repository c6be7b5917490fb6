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
from components.nn.vit import embedding
from components.quantizers.vq import nearest_codes


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels), channels, eps=1e-6)


class _Residual(nn.Module):
    """x' + conv silu norm conv silu norm x, x' through a 1 x 1 convolution where the number of channels changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _norm(inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            _norm(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.body(x)


def _encoder(channels: int, multipliers: Sequence[int], blocks: int, code_dim: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
    inputs = channels
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            layers.append(_Residual(inputs, channels * multiplier))
            inputs = channels * multiplier
        if level + 1 < len(multipliers):
            layers.append(nn.AvgPool2d(2))
    layers += [_Residual(inputs, inputs) for _ in range(blocks)]
    return nn.Sequential(*layers, _norm(inputs), nn.SiLU(), nn.Conv2d(inputs, code_dim, 1))


def _decoder(channels: int, multipliers: Sequence[int], blocks: int, code_dim: int) -> nn.Sequential:
    inputs = channels * multipliers[-1]
    layers: list[nn.Module] = [nn.Conv2d(code_dim, inputs, 3, padding=1)]
    layers += [_Residual(inputs, inputs) for _ in range(blocks)]
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for _ in range(blocks):
            layers.append(_Residual(inputs, channels * multiplier))
            inputs = channels * multiplier
        if level:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, inputs, 3, padding=1)]
    return nn.Sequential(*layers, _norm(inputs), nn.SiLU(), nn.Conv2d(inputs, 3, 3, padding=1))


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
        return nearest_codes(self.encoder(to_unit(images)).flatten(2).transpose(1, 2), self.codebook)

    def decode_values(self, values: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of code vectors (B, P, C), mixtures included."""
        return self.decoder(values.transpose(1, 2).unflatten(2, (self.rows, self.rows)))

    def decode(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of code indices (B, P)."""
        return self.decode_values(F.embedding(indices, self.codebook))


build = MaskGITVQGAN
