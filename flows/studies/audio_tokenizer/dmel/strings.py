"""Strings of digits as tokens and texts: what the networks of dMel read and write, for training and for tests.

Letters: `B` strings, `T` frames, `N` channels, `Q` levels of a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from components.audio.parallel_channel_lm import Spoken
from components.audio.spectra import LogMelFrames
from components.bases import specification
from components.data.fsdd_connected import DIGITS
from components.data.speech import SAMPLE_RATE, Speech, read_speech
from components.errors import TesseraError
from flows.studies.audio_tokenizer.choices import fitted_bins
from flows.studies.audio_tokenizer.dmel.params import MODEL
from flows.studies.audio_tokenizer.params import MEL_VOCODER, UNITS
from flows.studies.audio_tokenizer.tokenizers import (
    MelGrid,
    MelTokens,
    base,
    codec_tokens,
    unit_tokens,
)
from flows.studies.context import StageContext


class StringError(TesseraError):
    """A string has a word that is no digit."""


class Tokens(NamedTuple):
    """Frames of tokens and what is known about them.

    Attributes:
        channels: N.
        levels: Q.
        frame_rate: Frames a second.
    """

    channels: int
    levels: int
    frame_rate: float


class Strings(NamedTuple):
    """Strings as the network sees them.

    Attributes:
        speech: Utterances.
        frames: Ids of each, int64 (T, N).
        texts: Digits of each.
        speakers: Speaker of each, int64 (B,).
        known: Names of the speakers.
    """

    speech: Speech
    frames: list[Tensor]
    texts: list[list[int]]
    speakers: Tensor
    known: list[str]

    def batch(self, rows: Sequence[int]) -> Spoken:
        """Return some strings as a batch."""
        frames = torch.nn.utils.rnn.pad_sequence([self.frames[row] for row in rows], batch_first=True)
        text = torch.nn.utils.rnn.pad_sequence([torch.tensor(self.texts[row]) for row in rows], batch_first=True)
        return Spoken(
            frames,
            torch.tensor([len(self.frames[row]) for row in rows]),
            text,
            torch.tensor([len(self.texts[row]) for row in rows]),
            torch.nn.functional.one_hot(self.speakers[list(rows)], len(self.known)).float(),
        )


def digits_of(text: str) -> list[int]:
    """Return the digits that a text names.

    Raises:
        StringError: A word names none.
    """
    places = {word: place for place, word in enumerate(DIGITS)}
    if strange := [word for word in text.split() if word not in places]:
        raise StringError(f"{text!r}: {strange[0]!r} is no digit; expected {', '.join(DIGITS)}.")
    return [places[word] for word in text.split()]


class Tokenization:
    """Tokens of waveforms as an arm's parameters name them.

    Levels of mel channels span what the training strings have; nothing else is learned.

    Args:
        stage: A stage that trains or tries a network.
        train: The training strings.
    """

    def __init__(self, stage: StageContext, train: Speech) -> None:
        params = stage.params
        self._device = stage.device
        if params.tokens == "mel_bins":
            spectra = LogMelFrames(bands=params.bands).to(stage.device)
            self.grid = MelGrid(spectra, params.lm_hop, params.bands)
            frames = torch.cat([self.grid.frames(wave.to(stage.device)) for wave in train.waveforms()])
            self.bins = fitted_bins(frames, params.bands, params.lm_bits)
            self.facts = Tokens(params.bands, self.bins.codebook_size, SAMPLE_RATE / params.lm_hop)
            self._codes = lambda wave: self.bins.encode(self.grid.frames(wave))
        elif params.tokens == "codec":
            codec = codec_tokens(stage, params.lm_codebooks)
            rate = codec.codec.vectors_per_second
            self.facts = Tokens(params.lm_codebooks, max(codec.codec.codebook_sizes[: params.lm_codebooks]), rate)
            self._codes = codec.codes
        else:
            tokenizer = base(stage, UNITS).only([params.lm_stream]).to(stage.device)
            self.facts = Tokens(1, tokenizer.codebook_sizes[0], tokenizer.encoder.frame_rate)
            self._codes = lambda wave: tokenizer.encode(wave[None], torch.tensor([len(wave)], device=wave.device))[0]

    @torch.no_grad()
    def strings(self, speech: Speech, known: Sequence[str]) -> Strings:
        """Return utterances of known speakers as strings, on the CPU."""
        names = list(known)
        return Strings(
            speech,
            [self._codes(wave.to(self._device)).cpu() for wave in speech.waveforms()],
            [digits_of(text) for text in speech.texts],
            torch.tensor([names.index(speaker) for speaker in speech.speakers]),
            names,
        )


def train_speech(stage: StageContext) -> Speech:
    """Return the training strings of a stage."""
    return read_speech(stage.inputs[f"data/{stage.params.strings}"], "train", stage.params.train_strings)


def description(params: Any, facts: Tokens, speakers: int) -> dict[str, Any]:
    """Describe the network of an arm."""
    return specification(
        MODEL,
        channels=facts.channels,
        levels=facts.levels,
        text_symbols=len(DIGITS),
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        channel_width=params.channel_width if params.tokens == "mel_bins" else 0,
        group_size=params.group_size,
        speaker_width=speakers if params.task == "synthesis" else 0,
        dropout=params.dropout,
    )


def renderer(stage: StageContext, tokenization: Tokenization):
    """Return what makes a waveform (S,) of frames (T, N) and a speaker's name."""
    if stage.params.tokens == "mel_bins":
        vocoder = base(stage, MEL_VOCODER, stage.seed)
        mel = MelTokens(vocoder, tokenization.grid, tokenization.bins, tokenization.facts.frame_rate)
        return lambda frames, speaker: mel.rendered(tokenization.bins.decode(frames))
    if stage.params.tokens == "codec":
        codec = codec_tokens(stage, stage.params.lm_codebooks).codec
        return lambda frames, speaker: codec.decode(frames[None])[0]
    units = unit_tokens(stage, stage.params.lm_stream)
    return units.rendered
