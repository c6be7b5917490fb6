"""Which tokens an arm uses: ranges of mel channels from training speech, and a choice on dev where there is one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.data.speech import SAMPLE_RATE, Speech, read_speech
from components.speech.judge import CTCJudge
from components.tokenizers.audio.mel_bins import MelBins
from flows.studies.audio_tokenizer.params import MEL_VOCODER
from flows.studies.audio_tokenizer.speech_sets import DIGITS, SENTENCES, error_rows
from flows.studies.audio_tokenizer.tokenizers import (
    MelGrid,
    MelTokens,
    Natural,
    Resynthesis,
    base,
    codec_tokens,
    unit_tokens,
)
from flows.studies.context import StageContext


@dataclass(frozen=True)
class Chosen:
    """The tokens of an arm.

    Attributes:
        tokens: Speech through them and back.
        channels: Mel channels where there was a choice; 0 otherwise.
    """

    tokens: Resynthesis
    channels: int = 0


def chosen_tokens(stage: StageContext, judge: CTCJudge) -> Chosen:
    """Return the tokens that an arm's parameters name."""
    params = stage.params
    if params.tokenizer == "natural":
        return Chosen(Natural())
    if params.tokenizer == "codec":
        return Chosen(codec_tokens(stage, params.codebooks, through_vocoder=params.through_vocoder))
    if params.tokenizer == "units":
        return Chosen(unit_tokens(stage, params.stream))
    vocoder = base(stage, MEL_VOCODER, stage.seed)
    own_rate = SAMPLE_RATE / vocoder.samples_per_frame
    if params.tokenizer == "mel":
        return Chosen(
            MelTokens(vocoder, MelGrid(vocoder.spectra, vocoder.samples_per_frame, vocoder.bands), None, own_rate)
        )
    heard = _range_speech(stage)
    if not params.coarse:
        grid = MelGrid(vocoder.spectra, vocoder.samples_per_frame, vocoder.bands)
        return Chosen(MelTokens(vocoder, grid, _bins(stage, grid, heard, vocoder.bands, params.bits), own_rate))
    dev = read_speech(stage.inputs[f"data/{DIGITS}"], "dev", params.dev)
    found = []
    for channels, bits in params.coarse:
        grid = MelGrid(vocoder.spectra, params.coarse_hop, channels)
        bins = _bins(stage, grid, heard, channels, bits)
        tokens = MelTokens(vocoder, grid, bins, SAMPLE_RATE / params.coarse_hop)
        sounds = [tokens(wave.to(stage.device), "").waveform.cpu() for wave in dev.waveforms()]
        rows = error_rows(judge.transcribe(sounds), dev.texts)
        found.append((sum(rows) / len(rows), -channels, Chosen(tokens, channels)))
    # Of two equally good ones the finer channels.
    return min(found, key=lambda each: each[:2])[2]


def _range_speech(stage: StageContext) -> list[Speech]:
    return [
        read_speech(stage.inputs[f"data/{name}"], "train", stage.params.range_utterances)
        for name in (DIGITS, SENTENCES)
    ]


def _bins(stage: StageContext, grid: MelGrid, heard: list[Speech], channels: int, bits: int) -> MelBins:
    """Return levels whose range comes from training speech: nothing else is learned."""
    params = stage.params
    frames = torch.cat([grid.frames(wave.to(stage.device)) for part in heard for wave in part.waveforms()])
    outside = params.outside if params.mel_range == "percentile" else 0.0
    return fitted_bins(frames, channels, bits, outside=outside, per_channel=params.mel_range == "per_channel")


def fitted_bins(
    frames: Tensor, channels: int, bits: int, *, outside: float = 0.0, per_channel: bool = False
) -> MelBins:
    """Return levels of so many bits over the range of frames (T, M), on their device."""
    bins = MelBins(bands=channels, bits=bits).to(frames.device)
    bins.fit_range(frames, outside=outside, per_channel=per_channel)
    return bins
