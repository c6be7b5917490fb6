"""Frames whose phoneme is known, and what units say about it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.data.speech import Speech, read_speech
from components.metrics.unit_quality import UnitQuality, unit_quality
from components.quantizers.nearest import nearest_codes
from components.speech.ssl_encoder import SSLEncoder
from flows.studies.bases.utterances import SENTENCES, speech_folder
from flows.studies.context import StageContext


class PhoneFrames(NamedTuple):
    """Test utterances of synthesised sentences, whose phonemes have known times.

    Attributes:
        speech: The utterances.
        places: Which frames of each utterance lie in a phoneme, int64 each.
        phones: Phoneme of each of these frames, utterance by utterance, int64 (N,).
    """

    speech: Speech
    places: list[Tensor]
    phones: Tensor


def phone_frames(stage: StageContext, encoder: SSLEncoder, count: int) -> PhoneFrames:
    """Return the frames of test sentences whose middle lies in a phoneme; pauses are left out."""
    speech = read_speech(speech_folder(stage, SENTENCES), "test", count)
    hop = encoder.samples_per_frame
    symbols = sorted({symbol for row in range(len(speech)) for symbol, _, _ in speech.phonemes(row)})
    ids = {symbol: place for place, symbol in enumerate(symbols)}
    places, phones = [], []
    for row, samples in enumerate(speech.lengths.tolist()):
        middles = torch.arange(-(-samples // hop)) * hop + hop // 2
        spans = speech.phonemes(row)
        starts, ends = (torch.tensor([span[edge] for span in spans]) for edge in (1, 2))
        named = torch.tensor([ids[symbol] for symbol, _, _ in spans])
        at = torch.searchsorted(starts, middles, right=True) - 1
        inside = (at >= 0) & (middles < ends[at.clamp(min=0)])
        places.append(inside.nonzero()[:, 0])
        phones.append(named[at[inside]])
    return PhoneFrames(speech, places, torch.cat(phones))


def phone_quality(test: PhoneFrames, features: list[Tensor], centres: Tensor) -> UnitQuality:
    """Return what the nearest of `centres` (K, D) say about the phonemes, from features (T, D) of every utterance."""
    kept = torch.cat([each[places] for each, places in zip(features, test.places, strict=True)])
    return unit_quality(test.phones, nearest_codes(kept, centres))
