"""The convolutional grid tokenizer: one vector per cell of an image, quantized by any quantizer.

    image -- convolutions -- P vectors, row by row -- quantizer -- convolutions -- image

With one codebook it is a VQ-VAE; with several (residual, product, additive) every cell has M indices. With a residual
quantizer and a drop law the number of codebooks used is drawn in every training step, so that the first m of M are a
coarser code.

Letters: `B` images, `H W` pixels, `P` cells, `C` width of a latent vector, `M` indices per cell, `m` of them used.

Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE); Zeghidour et al. 2021 (SoundStream: quantizer dropout).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.compression.tail_drop import DropLaw, draw_kept
from components.data.pixels import to_unit
from components.errors import TesseraError
from components.nn.conv_autoencoder import ConvDecoder, ConvEncoder, cells_per_side, to_maps, to_vectors
from components.quantizers.quantized import Quantizer
from components.quantizers.rvq import ResidualQuantizer
from components.tokenizers.image.one_d import Reconstruction


class GridTokenizerError(TesseraError):
    """A grid tokenizer was configured in a way that has no meaning."""


class GridTokenizer(nn.Module):
    """Encoder, quantizer and decoder over P cells; see the module.

    Args:
        quantizer: Its width is that of the latent vectors.
        image_side: H = W in pixels.
        channels: Channels of every level of encoder and decoder, finest first; each level halves the resolution.
        blocks: Residual blocks of a level.
        drop: Law of the number of codebooks used in a training step; other than "none" for residual quantizers only.

    Attributes:
        rows: Cells along a side.
        cells: P.
        codebook_sizes: How many codes each index of a cell can name.
    """

    def __init__(
        self,
        *,
        quantizer: Quantizer,
        image_side: int,
        channels: Sequence[int],
        blocks: int = 1,
        drop: DropLaw = "none",
    ) -> None:
        super().__init__()
        if drop != "none" and not isinstance(quantizer, ResidualQuantizer):
            raise GridTokenizerError(
                f"drop is {drop!r}, but {type(quantizer).__name__} has no coarser code in its first indices; use a "
                "residual quantizer, or drop 'none'."
            )
        self.rows = cells_per_side(image_side, channels)
        self.cells = self.rows**2
        self.drop = drop
        self.codebook_sizes = quantizer.codebook_sizes
        self.encoder = ConvEncoder(channels, quantizer.code_dim, blocks)
        self.quantizer = quantizer
        self.decoder = ConvDecoder(channels, quantizer.code_dim, blocks)
        self.to(memory_format=torch.channels_last)

    @property
    def codebook_size(self) -> int:
        """K, where one index names a cell's code."""
        return self.quantizer.codebook_size

    def draw_step(self, generator: torch.Generator) -> int:
        """Draw what is random in one training step: m, one for the whole batch."""
        return draw_kept(len(self.codebook_sizes), self.drop, generator)

    def forward(self, images: Tensor, kept: int | None = None) -> Reconstruction:
        """Encode, quantize and decode.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1].
            kept: m of the M codebooks of a residual quantizer, all by default; other quantizers use all.
        """
        total = len(self.codebook_sizes)
        kept = total if kept is None else kept
        latents = self.latents(images)
        codes = self.quantizer(latents) if kept == total else self.quantizer(latents, kept)
        return Reconstruction(self.decode_values(codes.values), codes, kept)

    def latents(self, images: Tensor) -> Tensor:
        """Return the vectors (B, P, C) before quantization of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return to_vectors(self.encoder(to_unit(images)))

    def encode(self, images: Tensor) -> Tensor:
        """Return indices (B, P), or (B, P, M), of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.quantizer(self.latents(images)).indices

    def decode_values(self, values: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of vectors (B, P, C)."""
        return self.decoder(to_maps(values, self.rows))

    def decode(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of indices (B, P), or (B, P, M)."""
        return self.decode_values(self.quantizer.decode(indices))

    @torch.no_grad()
    def start_from(self, images: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks from the vectors of a first batch of images (B, 3, H, W)."""
        self.quantizer.start_from(self.latents(images), generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Let the quantizer move and restart its codes; call once after every optimiser step."""
        self.quantizer.after_step(step, generator)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = GridTokenizer
