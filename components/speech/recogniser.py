"""A recogniser of characters: log-mel frames, two convolutions that halve the rate, recurrent layers, CTC.

    waveform -- log-mel 100 Hz -- conv /2 -- conv /2 -- 2 x BiGRU -- linear -- ln p(blank or character), 25 Hz

What lies behind an utterance's end never reaches it: frames there are zeroed before every layer that looks sideways.

Letters: `B` utterances, `S` samples, `F` frames of 10 ms, `T` = ceil(ceil(F / 2) / 2) frames of 40 ms, `M` mel bands,
`K` labels with the blank as label 0.

Sources: Graves et al. 2006 (CTC); Amodei et al. 2016 (Deep Speech 2: convolutions below recurrent layers).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.spectra import LogMelFrames
from components.errors import TesseraError
from components.nn.bidirectional_gru import BidirectionalGRU
from components.quantizers.precision import without_autocast
from components.speech.ctc import ctc_loss
from components.speech.spec_augment import SpecAugment

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
_KERNEL = 5


class RecogniserError(TesseraError):
    """A text that the recogniser cannot spell."""


class CTCRecogniser(nn.Module):
    """See the module.

    Args:
        alphabet: Characters; label i + 1 is character i.
        sample_rate: Hz.
        bands: M.
        window: Samples of a frame.
        hop: Samples between frames.
        channels: Of the convolutions.
        hidden: Channels of one direction of a recurrent layer.
        layers: Recurrent layers.
        dropout: Share of channels dropped before the second recurrent layer and the last linear one.

    Attributes:
        labels: Label of each character.
    """

    def __init__(
        self,
        *,
        alphabet: str = ALPHABET,
        sample_rate: int = 8_000,
        bands: int = 40,
        window: int = 200,
        hop: int = 80,
        channels: int = 128,
        hidden: int = 160,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.alphabet = alphabet
        self.labels = {character: place + 1 for place, character in enumerate(alphabet)}
        self.mel = LogMelFrames(sample_rate=sample_rate, bands=bands, window=window, hop=hop)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, channels, _KERNEL, stride=2, padding=_KERNEL // 2) for width in (bands, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in self.convolutions)
        self.recurrent = BidirectionalGRU(channels, hidden, layers, dropout)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * hidden, len(alphabet) + 1)

    def spell(self, text: str) -> list[int]:
        """Return the labels of a text.

        Raises:
            RecogniserError: A character is outside the alphabet.
        """
        if foreign := sorted(set(text) - set(self.labels)):
            raise RecogniserError(f"{text!r} has {foreign[0]!r}, which is none of {self.alphabet!r}; spell it out.")
        return [self.labels[character] for character in text]

    def text(self, labels: Sequence[int]) -> str:
        """Return the text of labels without blanks."""
        return "".join(self.alphabet[label - 1] for label in labels)

    @torch.no_grad()
    def fit_scale(self, waveform: Tensor, samples: Tensor) -> None:
        """Take mean and deviation of every band from utterances (B, S) of the training set with their samples (B,)."""
        spectra, frames = self.mel(waveform), self._frames(samples)
        kept = spectra[torch.arange(spectra.shape[1], device=frames.device) < frames[:, None]]
        self.mean.copy_(kept.mean(0))
        self.deviation.copy_(kept.std(0).clamp(min=1e-3))

    def spectra(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised log-mel frames (B, F, M), 0 behind the end, and their number (B,)."""
        frames = self._frames(samples)
        with without_autocast(waveform.device):
            spectra = (self.mel(waveform) - self.mean) / self.deviation
        return _cut(spectra, frames), frames

    def forward(self, spectra: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln p (B, T, K), and the number of its frames (B,), of normalised spectra.

        Args:
            spectra: (B, F, M), 0 behind the end.
            frames: int64 (B,), on the device of the spectra.
        """
        hidden = spectra
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.gelu(norm(convolution(hidden.transpose(1, 2)).transpose(1, 2)))
            frames = (frames + 1) // 2
            hidden = _cut(hidden, frames)
        states = self.recurrent(hidden, frames)
        return self.output(self.dropout(states)).float().log_softmax(-1), frames

    def log_probabilities(self, waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln p (B, T, K), and its frames (B,), of waveforms (B, S) with their samples (B,)."""
        return self(*self.spectra(waveform, samples))

    def loss(
        self,
        waveform: Tensor,
        samples: Tensor,
        labels: Tensor,
        lengths: Tensor,
        generator: torch.Generator,
        augment: SpecAugment,
    ) -> Tensor:
        """Return the mean CTC loss a character, nats, of utterances under masks.

        Args:
            waveform: (B, S).
            samples: int64 (B,).
            labels: (B, L), padded.
            lengths: int64 (B,).
            generator: Draws the masks, on the device of the waveform.
            augment: How much is masked.
        """
        spectra, frames = self.spectra(waveform, samples)
        log_p, frames = self(augment(spectra, frames, generator), frames)
        return ctc_loss(log_p, frames, labels, lengths).sum() / lengths.sum()

    def frames_of(self, samples: int) -> int:
        """Return T for an utterance of so many samples."""
        frames = -(-samples // self.mel.hop)
        for _ in self.convolutions:
            frames = (frames + 1) // 2
        return frames

    def _frames(self, samples: Tensor) -> Tensor:
        return (samples + self.mel.hop - 1) // self.mel.hop


def _cut(hidden: Tensor, frames: Tensor) -> Tensor:
    places = torch.arange(hidden.shape[1], device=hidden.device)
    return hidden.masked_fill((places >= frames[:, None])[..., None], 0.0)


# A base describes its model by this module.
build = CTCRecogniser
