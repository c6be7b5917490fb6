"""A codec for blocks of log-mel frames: one vector per block, quantized by any quantizer.

    waveform -- log-mel frames -- blocks of R frames -- MLP -- vector -- quantizer -- MLP -- blocks of frames

Every R frames (40 ms at 10 ms hop and R = 4) become one code; there is no context between blocks, so that what differs
between two codecs is what their quantizers keep of single vectors.

Letters: `B` blocks, `R` frames of a block, `M` mel bands, `C` width of a latent vector, `J` indices per block, `j` of
them used.

Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE: the codec's form and losses); Zeghidour et al. 2021
(SoundStream: quantizer dropout).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.compression.tail_drop import DropLaw, draw_kept
from components.errors import TesseraError
from components.quantizers.quantized import Quantized, Quantizer
from components.quantizers.rvq import ResidualQuantizer


class MelBlocksError(TesseraError):
    """A codec of mel blocks was configured in a way, or given spectra, that it cannot work with."""


class BlockReconstruction(NamedTuple):
    """What a training step needs: blocks (B, R, M) in units of the codec's scale, codes, and codebooks used."""

    blocks: Tensor
    codes: Quantized
    kept: int


class MelBlockTokenizer(nn.Module):
    """Encoder, quantizer and decoder of blocks of R frames; see the module.

    Spectra are brought to mean 0 and standard deviation 1 in every band by `fit_scale` before they are encoded.

    Args:
        quantizer: Its width is that of the latent vectors.
        block_frames: R.
        bands: M.
        hidden_width: Width of the two hidden layers of encoder and decoder.
        drop: Law of the number of codebooks used in a training step; other than "none" for residual quantizers only.

    Attributes:
        codebook_sizes: How many codes each index of a block can name.
    """

    def __init__(
        self,
        *,
        quantizer: Quantizer,
        block_frames: int = 4,
        bands: int = 40,
        hidden_width: int = 128,
        drop: DropLaw = "none",
    ) -> None:
        super().__init__()
        if drop != "none" and not isinstance(quantizer, ResidualQuantizer):
            raise MelBlocksError(
                f"drop is {drop!r}, but {type(quantizer).__name__} has no coarser code in its first indices; use a "
                "residual quantizer, or drop 'none'."
            )
        size = block_frames * bands
        self.block_frames, self.bands, self.drop = block_frames, bands, drop
        self.codebook_sizes = quantizer.codebook_sizes
        self.encoder = _mlp(size, hidden_width, quantizer.code_dim)
        self.quantizer = quantizer
        self.decoder = _mlp(quantizer.code_dim, hidden_width, size)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))

    @property
    def codebook_size(self) -> int:
        """K, where one index names a block's code."""
        return self.quantizer.codebook_size

    @torch.no_grad()
    def fit_scale(self, blocks: Tensor) -> None:
        """Take mean and standard deviation of every band from training blocks (B, R, M), dB."""
        frames = self._checked(blocks).flatten(0, -2)
        self.mean.copy_(frames.mean(0))
        self.deviation.copy_(frames.std(0).clamp(min=1e-3))

    def draw_step(self, generator: torch.Generator) -> int:
        """Draw what is random in one training step: the number of codebooks used, one for the whole batch."""
        return draw_kept(len(self.codebook_sizes), self.drop, generator)

    def scaled(self, blocks: Tensor) -> Tensor:
        """Return blocks (..., R, M), dB, in units of each band's standard deviation from its mean."""
        return (self._checked(blocks) - self.mean) / self.deviation

    def forward(self, blocks: Tensor, kept: int | None = None) -> BlockReconstruction:
        """Encode, quantize and decode blocks (B, R, M), dB; `kept` codebooks of a residual quantizer, or all."""
        total = len(self.codebook_sizes)
        kept = total if kept is None else kept
        latents = self.latents(blocks)
        codes = self.quantizer(latents) if kept == total else self.quantizer(latents, kept)
        return BlockReconstruction(self._blocks(codes.values), codes, kept)

    def latents(self, blocks: Tensor) -> Tensor:
        """Return the vectors (..., C) before quantization of blocks (..., R, M), dB."""
        return self.encoder(self.scaled(blocks).flatten(-2))

    def encode(self, blocks: Tensor) -> Tensor:
        """Return indices (...), or (..., J), of blocks (..., R, M), dB."""
        return self.quantizer(self.latents(blocks)).indices

    def decode_values(self, values: Tensor) -> Tensor:
        """Return blocks (..., R, M), dB, of vectors (..., C)."""
        return self._blocks(values) * self.deviation + self.mean

    def decode(self, indices: Tensor) -> Tensor:
        """Return blocks (..., R, M), dB, of indices (...), or (..., J)."""
        return self.decode_values(self.quantizer.decode(indices))

    @torch.no_grad()
    def start_from(self, blocks: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks from the vectors of a first batch of blocks (B, R, M), dB."""
        self.quantizer.start_from(self.latents(blocks), generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Let the quantizer move and restart its codes; call once after every optimiser step."""
        self.quantizer.after_step(step, generator)

    def _blocks(self, values: Tensor) -> Tensor:
        return self.decoder(values).unflatten(-1, (self.block_frames, self.bands))

    def _checked(self, blocks: Tensor) -> Tensor:
        if blocks.dim() < 2 or blocks.shape[-2:] != (self.block_frames, self.bands):
            raise MelBlocksError(
                f"blocks {list(blocks.shape)}; expected (..., {self.block_frames}, {self.bands}): cut spectra with "
                "`cut_blocks` first."
            )
        return blocks


def cut_blocks(spectra: Tensor, block_frames: int) -> Tensor:
    """Cut spectra (F, M) into blocks (F // R, R, M) of R = `block_frames` frames; a rest at the end is left out."""
    whole = len(spectra) // block_frames
    return spectra[: whole * block_frames].unflatten(0, (whole, block_frames))


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, outputs)
    )


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = MelBlockTokenizer
