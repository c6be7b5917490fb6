"""A speech encoder for learning without labels: stacked log-mel frames, a transformer that reads both ways.

    waveform -- log-mel 100 Hz -- pairs of frames, 50 Hz -- linear -- (hidden frames) -- + conv position -- blocks

Letters: `B` utterances, `S` samples, `T` frames of 20 ms, `M` mel bands, `D` width, `L` layers.

Source: Hsu et al. 2021, "HuBERT", section II; convolution as position: Baevski et al. 2020, "wav2vec 2.0", section 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.spectra import LogMelFrames
from components.errors import TesseraError
from components.nn.transformer import Transformer, TransformerConfig
from components.quantizers.precision import without_autocast

STACK = 2


class SSLEncoderError(TesseraError):
    """Layers were asked for that an encoder does not have."""


class SSLEncoder(nn.Module):
    """See the module.

    Args:
        sample_rate: Hz.
        bands: M.
        window: Samples of a frame.
        hop: Samples between frames.
        width: D.
        layers: L.
        heads: Attention heads.
        feed_forward: Hidden channels of the MLPs.
        position_kernel: Frames that the convolution for positions sees, odd.
        position_groups: Groups of channels of this convolution.
        dropout: Share of attention weights and of residual updates dropped in training.

    Attributes:
        frame_rate: Frames a second.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 8_000,
        bands: int = 40,
        window: int = 256,
        hop: int = 80,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        feed_forward: int = 512,
        position_kernel: int = 31,
        position_groups: int = 8,
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.samples_per_frame = hop * STACK
        self.frame_rate = sample_rate / self.samples_per_frame
        self.mel = LogMelFrames(sample_rate=sample_rate, bands=bands, window=window, hop=hop)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.input = nn.Linear(STACK * bands, width)
        self.hidden_frame = nn.Parameter(torch.randn(width) * width**-0.5)
        self.position = nn.Conv1d(width, width, position_kernel, padding=position_kernel // 2, groups=position_groups)
        self.input_norm = nn.LayerNorm(width)
        self.transformer = Transformer(TransformerConfig(width, layers, heads, feed_forward / width, dropout=dropout))

    def frames(self, samples: Tensor) -> Tensor:
        """Return T of utterances with so many samples, ceil(S / samples of a frame)."""
        return (samples + self.samples_per_frame - 1) // self.samples_per_frame

    @torch.no_grad()
    def fit_scale(self, waveform: Tensor, samples: Tensor) -> None:
        """Take mean and deviation of every band from utterances (B, S) of the training set with their samples (B,)."""
        spectra = self.mel(waveform)
        kept = spectra[_inside(spectra.shape[1], (samples + self.mel.hop - 1) // self.mel.hop)]
        self.mean.copy_(kept.mean(0))
        self.deviation.copy_(kept.std(0).clamp(min=1e-3))

    def stacked(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return pairs of normalised log-mel frames (B, T, 2 M), 0 behind the end, and their number (B,)."""
        with without_autocast(waveform.device):
            spectra = (self.mel(waveform) - self.mean) / self.deviation
        inside = _inside(spectra.shape[1], (samples + self.mel.hop - 1) // self.mel.hop)
        spectra = spectra.masked_fill(~inside[..., None], 0.0)
        spectra = F.pad(spectra, (0, 0, 0, -spectra.shape[1] % STACK))
        return spectra.unflatten(1, (-1, STACK)).flatten(2), self.frames(samples)

    def forward(self, stacked: Tensor, frames: Tensor, masked: Tensor | None = None) -> list[Tensor]:
        """Return the states (B, T, D) before the first block and after each, L + 1 of them.

        Args:
            stacked: (B, T, 2 M), from `stacked`.
            frames: int64 (B,).
            masked: Frames that are hidden from the encoder, bool (B, T).
        """
        inside = _inside(stacked.shape[1], frames)
        tokens = self.input(stacked)
        if masked is not None:
            tokens = torch.where(masked[..., None], self.hidden_frame.to(tokens.dtype), tokens)
        tokens = tokens.masked_fill(~inside[..., None], 0.0)
        tokens = tokens + F.gelu(self.position(tokens.transpose(1, 2)).transpose(1, 2))
        tokens = self.input_norm(tokens)
        states, mask = [tokens], inside[:, None, None]
        for block in self.transformer.blocks:
            tokens = block(tokens, mask, False, None, None, None, None)
            states.append(tokens)
        return states

    def predicted_from(self, states: list[Tensor]) -> Tensor:
        """Return what a head predicts units from, the normalised last states (B, T, D)."""
        return self.transformer.norm(states[-1])

    def features(self, waveform: Tensor, samples: Tensor, layers: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
        """Return features (B, T, D) of layers, and the number of frames (B,), of waveforms (B, S).

        Layer 0 is what the first block reads, layer l what block l writes. A residual stream grows from block to
        block and has a few large channels, so that every frame is brought to mean 0 and variance 1.

        Raises:
            SSLEncoderError: There is no such layer.
        """
        if wrong := [layer for layer in layers if not 0 <= layer <= self.layers]:
            raise SSLEncoderError(f"layer {wrong[0]} was asked for; expected 0 to {self.layers}.")
        stacked, frames = self.stacked(waveform, samples)
        states = self(stacked, frames)
        return [F.layer_norm(states[layer].float(), (self.width,)) for layer in layers], frames


def _inside(size: int, frames: Tensor) -> Tensor:
    return torch.arange(size, device=frames.device) < frames[:, None]


# A base describes its model by this module.
build = SSLEncoder
