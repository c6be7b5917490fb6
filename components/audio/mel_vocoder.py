"""The mel vocoder: log-mel frames to a waveform through a predicted short-time spectrum.

    log-mel frames -- ConvNeXt at 100 Hz -- magnitudes, phases -- inverse STFT -- waveform

Letters: `B` utterances, `S` samples, `T` frames, `M` mel bands.

Source: Siuzdak 2023 (Vocos), without its discriminators.
"""

from __future__ import annotations

from torch import Tensor, nn

from components.audio.convnext import ConvNextStack
from components.audio.istft_head import IstftHead
from components.audio.spectra import LogMelFrames
from components.errors import TesseraError

SAMPLE_RATE = 8_000
# Log-mel frames of speech lie between ln 1e-4 = -9.2 and about 0.
_CENTRE, _SPREAD = -5.0, 2.5


class MelVocoderError(TesseraError):
    """A vocoder was given something else than log-mel frames."""


class MelVocoder(nn.Module):
    """Waveforms of log-mel frames at 8 kHz; see the module.

    Args:
        bands: M.
        width: Channels of the ConvNeXt blocks.
        blocks: Number of blocks.
        window: Samples of a frame of the inverse transform.

    Attributes:
        spectra: Log-mel frames (B, T, M) of waveforms (B, S): what this vocoder takes.
        samples_per_frame: Samples that a frame stands for.
        reach: Frames on either side that a sample depends on.
    """

    def __init__(self, *, bands: int = 40, width: int = 128, blocks: int = 4, window: int = 320) -> None:
        super().__init__()
        self.spectra = LogMelFrames(sample_rate=SAMPLE_RATE, bands=bands)
        self.bands, self.samples_per_frame = bands, self.spectra.hop
        self.body = ConvNextStack(bands, width, blocks)
        self.head = IstftHead(width, window, self.spectra.hop)
        self.reach = self.body.reach + -(-self.head.stft.margin // self.samples_per_frame)

    def forward(self, frames: Tensor) -> Tensor:
        """Return waveforms (B, T samples_per_frame) of log-mel frames (B, T, M).

        Raises:
            MelVocoderError: These are no frames of M bands.
        """
        if frames.dim() != 3 or frames.shape[-1] != self.bands or not frames.shape[1]:
            raise MelVocoderError(
                f"frames {list(frames.shape)}; expected (B, T, {self.bands}), as this vocoder's `spectra` gives them."
            )
        return self.head(self.body((frames - _CENTRE) / _SPREAD))


# A base names this module, and `build` gives its network.
build = MelVocoder
