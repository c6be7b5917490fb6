"""Evaluation of an arm: speech through its tokens and back, in its domain and outside, read and heard by judges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.spectra import LogMelFrames
from components.data.speech import SAMPLE_RATE, read_speech
from components.metrics.speech_quality import mel_distance, speaker_similarity, stoi
from components.metrics.tables import MetricTable
from components.speech.judge import CTCJudge, load_judge
from flows.studies.audio_tokenizer.choices import chosen_tokens
from flows.studies.audio_tokenizer.params import JUDGE, SPEAKER_JUDGE
from flows.studies.audio_tokenizer.speech_sets import DIGITS, HeardSet, error_rows, heard_sets
from flows.studies.audio_tokenizer.tokenizers import MelTokens, Resynthesis, base
from flows.studies.bases.rendered_speech import write_wav
from flows.studies.context import StageContext

_OUTSIDE = ("noisy", "held_out")
_SHOWN = ("digits", "held_out")


@torch.no_grad()
def evaluate(stage: StageContext) -> None:
    """Resynthesise every set, write measures and the first utterance of two sets to be heard."""
    judge = judge_of(stage)
    chosen = chosen_tokens(stage, judge)
    table, transcripts = MetricTable(), {}
    speakers = Speakers(stage)
    (stage.output / "examples").mkdir()
    sets = list(heard_sets(stage))
    for place, (name, part) in enumerate(sets):
        stage.progress(place, len(sets))
        sounds, codes = [], []
        for waveform, speaker in zip(part.waveforms, part.speakers, strict=True):
            found = chosen.tokens(waveform.to(stage.device), speaker)
            sounds.append(found.waveform.clamp(-1, 1).cpu())
            codes.append(found.codes)
        transcripts[name] = judge.transcribe(sounds) if part.texts else []
        _measure(table, name, part, sounds, transcripts[name], speakers)
        if name == "digits":
            _add_rates(table, chosen.tokens, part, codes)
        if name in _SHOWN:
            shown = round(stage.params.example_seconds * SAMPLE_RATE)
            write_wav(stage.output / "examples" / f"{name}.wav", sounds[0][:shown])
    if set(_OUTSIDE) <= set(transcripts):
        both = [part for name, part in sets if name in _OUTSIDE]
        rows = error_rows([text for name in _OUTSIDE for text in transcripts[name]], [*both[0].texts, *both[1].texts])
        items = [*both[0].names, *both[1].names]
        table.add_items("wer", rows, unit="percent", at={"set": "ood"}, items=items, normaliser="words")
    if chosen.channels:
        table.add("chosen_channels", chosen.channels, unit="channels", samples=stage.params.dev)
    table.write(stage.output)


def judge_of(stage: StageContext, **changes: Sequence[str]) -> CTCJudge:
    """Return the judge of intelligibility, on the stage's device."""
    judge = load_judge(stage.inputs[f"bases/{JUDGE}"], **changes)
    judge.recogniser.to(stage.device)
    return judge


def _measure(
    table: MetricTable, name: str, part: HeardSet, sounds: list[Tensor], transcripts: list[str], speakers: Speakers
) -> None:
    at, frames = {"set": name}, LogMelFrames()
    if part.texts:
        rows = error_rows(transcripts, part.texts)
        table.add_items("wer", rows, unit="percent", at=at, items=part.names, normaliser="words")
    pairs = list(zip(sounds, part.waveforms, strict=True))
    distances = [mel_distance(sound, original, frames) for sound, original in pairs]
    table.add_items("mel_distance", distances, unit="dB", at=at, items=part.names)
    heard = [(item, stoi(*pair)) for item, pair in zip(part.names, pairs, strict=True)]
    heard = [(item, value) for item, value in heard if not math.isnan(value)]  # too short to be compared
    if heard:
        items, values = zip(*heard, strict=True)
        table.add_items("stoi", values, unit="", at=at, items=items)
    vectors = speakers.vectors(sounds)
    likeness = speaker_similarity(vectors, speakers.vectors(part.waveforms)).tolist()
    table.add_items("speaker_similarity", likeness, unit="cosine", at=at, items=part.names)
    if name == "digits":
        right = speakers.recognised(vectors, part.speakers)
        table.add_items("speaker_accuracy", right, unit="percent", at=at, items=part.names)


def _add_rates(table: MetricTable, tokens: Resynthesis, part: HeardSet, codes: list[Tensor | None]) -> None:
    """Add nominal and coded bit rates, and how far binned values of the digits are off."""
    if not math.isnan(tokens.bit_rate):
        table.add("bit_rate", tokens.bit_rate, unit="bits/s", samples=len(codes))
    if any(each is None for each in codes):
        return
    seconds = sum(map(len, part.waveforms)) / SAMPLE_RATE
    coded = tokens.coded_bits(torch.cat(codes))
    table.add("coded_rate", coded.after_previous / seconds, unit="bits/s", samples=len(codes))
    table.add("plain_coded_rate", coded.plain / seconds, unit="bits/s", samples=len(codes))
    if isinstance(tokens, MelTokens):
        device = codes[0].device
        frames = torch.cat([tokens.grid.frames(wave.to(device)) for wave in part.waveforms])
        bins = tokens.bins
        inside = (frames >= bins.lower) & (frames <= bins.upper)
        errors = (bins.decode(torch.cat(codes)) - frames).abs() / bins.step
        table.add("worst_error", float(errors[inside].max()), unit="steps", samples=len(frames))
        table.add("outside_share", float((~inside).double().mean()), unit="share", samples=len(frames))


class Speakers:
    """The judge of voices, and the mean vector of every speaker of digits, from training utterances."""

    def __init__(self, stage: StageContext) -> None:
        self._network: nn.Module = base(stage, SPEAKER_JUDGE)
        self._device = stage.device
        known = read_speech(stage.inputs[f"data/{DIGITS}"], "train")
        self._names = sorted(set(known.speakers))
        rows = [
            [row for row, speaker in enumerate(known.speakers) if speaker == name][: stage.params.enrolled]
            for name in self._names
        ]
        means = [F.normalize(self.vectors([known.waveform(row) for row in own]), dim=-1).mean(0) for own in rows]
        self._means = F.normalize(torch.stack(means), dim=-1)

    def vectors(self, waveforms: Sequence[Tensor]) -> Tensor:
        """Return vectors (B, D) of waveforms (S,)."""
        found = []
        for waveform in waveforms:
            samples = torch.tensor([len(waveform)], device=self._device)
            found.append(self._network(waveform[None].to(self._device), samples)[0].float().cpu())
        return torch.stack(found)

    def recognised(self, vectors: Tensor, speakers: Sequence[str]) -> list[float]:
        """Return 100 for every vector (B, D) that is nearest to the mean of its speaker, 0 for the others."""
        nearest = (F.normalize(vectors, dim=-1) @ self._means.t()).argmax(1).tolist()
        return [100.0 * (self._names[place] == speaker) for place, speaker in zip(nearest, speakers, strict=True)]
