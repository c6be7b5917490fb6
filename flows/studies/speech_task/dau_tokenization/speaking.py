"""Units without durations, rendered and read: every unit lasts as long as it does on average in training speech."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from components.bases import load_model
from components.data.speech import read_speech
from components.language.word_trigram import WordTrigram
from components.metrics.tables import MetricTable
from components.metrics.text_generation import distinct_share
from components.speech.judge import CTCJudge, load_judge
from components.tokenizers.audio.unit_bpe import collapsed
from flows.studies.audio_tokenizer.params import JUDGE, MEL_VOCODER, UNIT_VOCODER, base_name
from flows.studies.audio_tokenizer.speech_sets import error_rows
from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization.symbols import StoredUnits

SENTENCES = "espeak-sent"
_SILENCE = 800  # samples that stand for an utterance without a unit


def mean_runs(sequences: Sequence[Sequence[int]], size: int) -> list[int]:
    """Return how many frames a run of each unit has on average, rounded, at least 1; 1 for a unit that never occurs."""
    frames, runs = np.zeros(size), np.zeros(size)
    for sequence in sequences:
        for unit, group in itertools.groupby(sequence):
            frames[unit] += len(list(group))
            runs[unit] += 1
    return np.maximum(1, np.rint(frames / np.maximum(runs, 1))).astype(int).tolist()


class Renderer:
    """Units to sound through the unit vocoder and the mel vocoder of the stage's seed, for a speaker that is not told.

    Args:
        stage: An evaluation.
        runs: Frames of each unit.
    """

    def __init__(self, stage: StageContext, runs: Sequence[int]) -> None:
        self._runs, self._device = runs, stage.device
        self._units: nn.Module = load_model(stage.inputs[f"bases/{base_name(UNIT_VOCODER, stage.seed)}"])
        self._mel: nn.Module = load_model(stage.inputs[f"bases/{base_name(MEL_VOCODER, stage.seed)}"])
        self._units.to(stage.device)
        self._mel.to(stage.device)

    @torch.no_grad()
    def __call__(self, units: Sequence[int]) -> Tensor:
        """Return the waveform (S,) of base units."""
        frames = [unit for unit in units for _ in range(self._runs[unit])]
        if not frames:
            return torch.zeros(_SILENCE)
        streams = torch.full((1, len(frames), len(self._units.codebook_sizes)), -1, device=self._device)
        streams[0, :, 0] = torch.tensor(frames)
        speaker = torch.tensor([self._units.unknown], device=self._device)
        return self._mel(self._units(streams, speaker))[0].clamp(-1, 1).cpu()


def speak_and_read(
    stage: StageContext, table: MetricTable, drawn: Mapping[float, list[list[int]]], stored: StoredUnits
) -> None:
    """Render drawn utterances and natural ones in the same way, and let the judge read both.

    Args:
        stage: An evaluation.
        table: Gains how likely and how different the transcripts are, and the judge's errors on natural sentences.
        drawn: Base units of each utterance, by temperature.
        stored: Natural units.
    """
    judge = load_judge(stage.inputs[f"bases/{JUDGE}"])
    judge.recogniser.to(stage.device)
    render = Renderer(stage, mean_runs(stored.train, stored.size))
    speech = read_speech(stage.inputs[f"data/{SENTENCES}"], "test", stage.params.generated)
    natural = dict(zip(stored.names, stored.held_out, strict=True))
    sounds = [render(collapsed(natural[f"{SENTENCES}/{name}"])) for name in speech.names]
    for metric, heard in (("natural_wer", sounds), ("judge_wer", speech.waveforms())):
        rows = error_rows(judge.transcribe(heard), speech.texts)
        table.add_items(metric, rows, unit="percent", items=speech.names, normaliser="words")
    likely = _Likelihood(judge)
    for temperature, utterances in drawn.items():
        heard = judge.transcribe([render(each) for each in utterances])
        # A transcript can stop inside a word, where no whole one was likelier.
        texts = [[word for word in text.split() if word in judge.words] for text in heard]
        at = {"temperature": temperature}
        words = sum(map(len, texts)) + len(texts)
        table.add("transcript_nats", likely.nats(texts) / words, unit="nats/word", at=at, samples=len(texts))
        if any(len(text) > 1 for text in texts):
            table.add("transcript_distinct", distinct_share(texts), unit="share", at=at, samples=len(texts))


class _Likelihood:
    """Trigram of the judge's own texts: how much a transcript is like a sentence."""

    def __init__(self, judge: CTCJudge) -> None:
        self._ids = {word: place for place, word in enumerate(judge.words)}
        texts = [[self._ids[word] for word in text.split()] for text in judge.texts]
        self._trigram = WordTrigram(texts, len(self._ids))

    def nats(self, texts: Sequence[Sequence[str]]) -> float:
        """Return -ln P of texts and their ends, all together."""
        total, start, end = 0.0, self._trigram.start, self._trigram.end
        for text in texts:
            row = torch.tensor([start, start, *(self._ids[word] for word in text), end])
            total -= float(self._trigram.log_probability(row[:-2], row[1:-1], row[2:]).sum())
        return total
