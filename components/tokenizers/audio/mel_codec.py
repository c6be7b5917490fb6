"""The mel codec: log-mel frames to a few codes every 20 ms, and back; a vocoder renders what it decodes.

    log-mel frames -- stride 2 -- ConvNeXt -- P vectors -- quantizer -- ConvNeXt -- x 2 -- log-mel frames

No Fourier transform and no waveform stand in its training, which therefore takes minutes: papers that train a codec per
arm and seed train this one.

Letters: `B` utterances, `S` samples, `T` frames, `M` mel bands, `P` vectors (two frames each), `C` width of a vector.

Sources: van den Oord, Vinyals, Kavukcuoglu 2017 (VQ-VAE); Zeghidour et al. 2021 (SoundStream: quantizer dropout); Liu
et al. 2022 (ConvNeXt).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.convnext import ConvNextStack, Double, Halve
from components.audio.spectra import LogMelFrames
from components.compression.tail_drop import DropLaw
from components.quantizers.quantized import Quantizer
from components.tokenizers.audio.codec import SAMPLE_RATE, CodecError, QuantizedSpeech

_FRAMES = 2  # frames of a vector


class MelCodec(QuantizedSpeech):
    """Encoder, quantizer and decoder of log-mel frames; see the module.

    Frames are brought to mean 0 and deviation 1 in every band by `fit_scale` before they are encoded.

    Args:
        quantizer: Its width is that of the latent vectors.
        bands: M.
        width: Channels of the ConvNeXt blocks.
        blocks: Blocks of the encoder, and of the decoder.
        drop: Law of the number of codebooks used in a training step.

    Attributes:
        spectra: Log-mel frames (B, T, M) of waveforms (B, S), those that the shared vocoder takes.
    """

    def __init__(
        self, *, quantizer: Quantizer, bands: int = 40, width: int = 96, blocks: int = 3, drop: DropLaw = "none"
    ) -> None:
        spectra = LogMelFrames(sample_rate=SAMPLE_RATE, bands=bands)
        super().__init__(quantizer, drop, SAMPLE_RATE / (_FRAMES * spectra.hop))
        self.bands, self.spectra = bands, spectra
        self.downsample = Halve(bands, width)
        self.encoder = ConvNextStack(width, width, blocks)
        self.leave = nn.Linear(width, quantizer.code_dim)
        self.decoder = ConvNextStack(quantizer.code_dim, width, blocks)
        self.upsample = Double(width, bands)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))

    @torch.no_grad()
    def fit_scale(self, frames: Tensor) -> None:
        """Take mean and deviation of every band from training frames (B, T, M)."""
        flat = frames.flatten(0, -2)
        self.mean.copy_(flat.mean(0))
        self.deviation.copy_(flat.std(0).clamp(min=1e-3))

    def scaled(self, frames: Tensor) -> Tensor:
        """Return frames (B, T, M) in units of each band's deviation from its mean."""
        return (frames - self.mean) / self.deviation

    def latents(self, signals: Tensor) -> Tensor:
        """Return the vectors (B, P, C) before quantization of frames (B, T, M), P = ceil(T / 2).

        Raises:
            CodecError: These are no frames of M bands.
        """
        if signals.dim() != 3 or signals.shape[-1] != self.bands or not signals.shape[1]:
            raise CodecError(f"frames {list(signals.shape)}; expected (B, T, {self.bands}), as `spectra` gives them.")
        frames = self.scaled(signals)
        # An odd last frame is repeated: silence would be another value in every band.
        frames = torch.cat([frames, frames[:, -1:]], 1) if frames.shape[1] % _FRAMES else frames
        return self.leave(self.encoder(self.downsample(frames)))

    def decode_values(self, values: Tensor) -> Tensor:
        """Return frames (B, 2 P, M) of vectors (B, P, C)."""
        return self.upsample(self.decoder(values)) * self.deviation + self.mean

    def errors(self, decoded: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean absolute and mean squared error of decoded frames (B, T, M) in units of each band's deviation."""
        difference = (decoded[:, : frames.shape[1]] - frames) / self.deviation
        return F.l1_loss(difference, torch.zeros_like(difference)), difference.square().mean()


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = MelCodec
