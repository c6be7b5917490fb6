"""Ways of speech through tokens and back, all with the same verbs, one utterance at a time.

One by one: convolutions of a padded batch would hear what lies behind an utterance's end.

Letters: `S` samples, `F` vectors of codes, `C` codes of a vector, `T` mel frames, `M` mel channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from components.audio import level_coding
from components.audio.frame_grid import at_hop, fewer_channels, more_channels
from components.audio.spectra import LogMelFrames
from components.bases import load_model
from components.compression import range_coding
from components.data.speech import SAMPLE_RATE
from components.tokenizers.audio.mel_bins import MelBins
from flows.studies.audio_tokenizer.params import CODEC, MEL_VOCODER, UNIT_VOCODER, UNITS, base_name
from flows.studies.context import StageContext


class Resynthesised(NamedTuple):
    """An utterance after its tokens: waveform (S,), and codes int64 (F, C), None where there are none."""

    waveform: Tensor
    codes: Tensor | None


class Coded(NamedTuple):
    """Bits of codes: in an adaptive range coder, and with the frame before known."""

    plain: float
    after_previous: float


class Resynthesis(Protocol):
    """What an arm is: tokens of a waveform, and a waveform of these tokens."""

    bit_rate: float

    def __call__(self, waveform: Tensor, speaker: str) -> Resynthesised:
        """Resynthesise one utterance (S,)."""

    def coded_bits(self, codes: Tensor) -> Coded:
        """Return the bits of codes (F, C) of many utterances in a row."""


def base(stage: StageContext, name: str, seed: int | None = None) -> nn.Module:
    """Return a base of the stage, frozen and on its device; with a seed, the one of that seed."""
    name = name if seed is None else base_name(name, seed)
    return load_model(stage.inputs[f"bases/{name}"]).to(stage.device).requires_grad_(False)


class Natural:
    """No tokens: what every other arm is compared with."""

    bit_rate = SAMPLE_RATE * 16.0

    def __call__(self, waveform: Tensor, speaker: str) -> Resynthesised:
        """Return the waveform itself."""
        return Resynthesised(waveform, None)

    def coded_bits(self, codes: Tensor) -> Coded:
        """Return nothing: there are no codes."""
        return Coded(math.nan, math.nan)


class MelGrid:
    """Mel frames of a waveform on a grid of their own, and the way to the vocoder's grid.

    Args:
        spectra: The vocoder's.
        hop: Samples between frames; those of the vocoder for its own frames.
        channels: Fewer than the vocoder's are means of neighbours.
    """

    def __init__(self, spectra: LogMelFrames, hop: int, channels: int) -> None:
        self._own = spectra
        self._hop, self._channels = hop, channels
        slower = LogMelFrames(bands=self._own.bands, hop=hop, floor=self._own.floor)
        self._spectra = self._own if hop == self._own.hop else slower.to(self._own.triangles.device)

    def frames(self, waveform: Tensor) -> Tensor:
        """Return frames (T, M) of a waveform (S,)."""
        frames = self._spectra(waveform[None])[0]
        return fewer_channels(frames, self._own.bands // self._channels) if self._channels < self._own.bands else frames

    def restored(self, frames: Tensor, samples: int | None = None) -> Tensor:
        """Return the vocoder's frames of frames (T, M), as many as so many samples have (default: as long)."""
        if self._channels < self._own.bands:
            frames = more_channels(frames, self._own.bands)
        if self._hop == self._own.hop:
            return frames
        samples = len(frames) * self._hop if samples is None else samples
        return at_hop(frames, self._hop, self._own.hop, -(-samples // self._own.hop))


class MelTokens:
    """Mel frames, binned or as they are, rendered by a vocoder.

    Args:
        vocoder: Frames to waveforms.
        grid: Frames that are binned.
        bins: None for continuous frames.
        frame_rate: Frames a second of the grid.
    """

    def __init__(self, vocoder: nn.Module, grid: MelGrid, bins: MelBins | None, frame_rate: float) -> None:
        self.vocoder, self.grid, self.bins = vocoder, grid, bins
        self.bit_rate = math.nan if bins is None else frame_rate * bins.bits_per_frame

    def __call__(self, waveform: Tensor, speaker: str) -> Resynthesised:
        """Resynthesise one utterance (S,); the speaker is in the frames."""
        frames, codes = self.grid.frames(waveform), None
        if self.bins is not None:
            codes = self.bins.encode(frames)
            frames = self.bins.decode(codes)
        return Resynthesised(self.rendered(frames, len(waveform)), codes)

    def rendered(self, frames: Tensor, samples: int | None = None) -> Tensor:
        """Return the waveform of the grid's frames, cut to so many samples."""
        return self.vocoder(self.grid.restored(frames, samples)[None])[0, :samples]

    def coded_bits(self, codes: Tensor) -> Coded:
        """Return the bits of levels (F, C), plain and against the frame before."""
        if self.bins is None:
            return Coded(math.nan, math.nan)
        size, levels = self.bins.codebook_size, codes.cpu().numpy()
        plain = range_coding.encode(levels, [size] * levels.shape[1])
        return Coded(8.0 * len(plain), 8.0 * len(level_coding.encode(levels, size)))


class CodecTokens:
    """The first codebooks of a neural codec, with its own decoder or through the mel vocoder.

    Args:
        codec: Waveform to waveform.
        codebooks: That are used.
        vocoder: Renders the mel frames of what the codec decodes; None for the codec's own sound.
    """

    def __init__(self, codec: nn.Module, codebooks: int, vocoder: nn.Module | None) -> None:
        self.codec, self.codebooks, self.vocoder = codec, codebooks, vocoder
        self.bit_rate = codec.bits_per_second(codebooks)

    def codes(self, waveform: Tensor) -> Tensor:
        """Return the codes (F, C) of a waveform (S,)."""
        return self.codec.encode(waveform[None])[0, :, : self.codebooks]

    def __call__(self, waveform: Tensor, speaker: str) -> Resynthesised:
        """Resynthesise one utterance (S,); the speaker is in the codes."""
        codes = self.codes(waveform)
        sound = self.codec.decode(codes[None])[0, : len(waveform)]
        if self.vocoder is not None:
            sound = self.vocoder(self.vocoder.spectra(sound[None]))[0, : len(waveform)]
        return Resynthesised(sound, codes)

    def coded_bits(self, codes: Tensor) -> Coded:
        """Return the bits of codes (F, C); codes have no order, so that the frame before is not subtracted."""
        plain = 8.0 * len(range_coding.encode(codes.cpu().numpy(), self.codec.codebook_sizes[: self.codebooks]))
        return Coded(plain, plain)


class UnitTokens:
    """Clusters of a speech encoder, rendered for a speaker by the unit vocoder and the mel vocoder.

    Args:
        tokenizer: Of one stream.
        unit_vocoder: Reads this stream as its first.
        vocoder: Frames to waveforms.
    """

    def __init__(self, tokenizer: nn.Module, unit_vocoder: nn.Module, vocoder: nn.Module) -> None:
        self.tokenizer, self.unit_vocoder, self.vocoder = tokenizer, unit_vocoder, vocoder
        self.bit_rate = tokenizer.bits_per_second

    def codes(self, waveform: Tensor) -> Tensor:
        """Return the units (F, 1) of a waveform (S,)."""
        samples = torch.tensor([len(waveform)], device=waveform.device)
        return self.tokenizer.encode(waveform[None], samples)[0]

    def __call__(self, waveform: Tensor, speaker: str) -> Resynthesised:
        """Resynthesise one utterance (S,); the vocoder is told the speaker, where it knows it."""
        codes = self.codes(waveform)
        return Resynthesised(self.rendered(codes, speaker)[: len(waveform)], codes)

    def rendered(self, units: Tensor, speaker: str) -> Tensor:
        """Return the waveform of units (F, 1)."""
        streams = units.new_full((1, len(units), len(self.unit_vocoder.codebook_sizes)), -1)
        streams[..., 0] = units[:, 0]
        told = self.unit_vocoder.speaker_ids([speaker]).to(units.device)
        return self.vocoder(self.unit_vocoder(streams, told))[0]

    def coded_bits(self, codes: Tensor) -> Coded:
        """Return the bits of units (F, 1)."""
        plain = 8.0 * len(range_coding.encode(codes.cpu().numpy(), self.tokenizer.codebook_sizes))
        return Coded(plain, plain)


def unit_tokens(stage: StageContext, stream: tuple[int, int]) -> UnitTokens:
    """Return the units of a stage's bases with the vocoders of its seed."""
    return UnitTokens(
        base(stage, UNITS).only([stream]).to(stage.device),
        base(stage, UNIT_VOCODER, stage.seed),
        base(stage, MEL_VOCODER, stage.seed),
    )


def codec_tokens(stage: StageContext, codebooks: int, *, through_vocoder: bool = False) -> CodecTokens:
    """Return the codec of the stage's seed."""
    vocoder = base(stage, MEL_VOCODER, stage.seed) if through_vocoder else None
    return CodecTokens(base(stage, CODEC, stage.seed), codebooks, vocoder)
