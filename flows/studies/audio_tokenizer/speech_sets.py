"""What is resynthesised and judged: sets of utterances, the noise over them, and rows of error rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.data import esc10
from components.data.speech import Speech, mixed, read_speech
from components.metrics.text_generation import corpus_influence
from components.metrics.word_error import word_errors
from components.training.determinism import derive_seed
from flows.studies.context import StageContext

DIGITS, SENTENCES, NOISE, LANGUAGES = "fsdd-connected", "espeak-sent", "esc10", "espeak-languages"
_NOISE = 11  # random stream of the noise; the same for every arm and seed


class HeardSet(NamedTuple):
    """Utterances of one set.

    Attributes:
        names: Name of each, unique over all sets.
        waveforms: As they are given to a tokenizer, (S,) each.
        texts: What is said; empty where the judge does not know the language.
        speakers: Who says it.
    """

    names: list[str]
    waveforms: list[Tensor]
    texts: list[str]
    speakers: list[str]

    def __add__(self, other: HeardSet) -> HeardSet:  # type: ignore[override]
        return HeardSet(*(one + two for one, two in zip(self, other, strict=True)))


def of_speech(name: str, speech: Speech, *, readable: bool = True) -> HeardSet:
    """Return utterances as a set whose names begin with the set's."""
    names = [f"{name}/{utterance.rpartition('/')[2]}" for utterance in speech.names]
    return HeardSet(names, speech.waveforms(), speech.texts if readable else [], speech.speakers)


def heard_sets(stage: StageContext) -> Iterator[tuple[str, HeardSet]]:
    """Yield the sets that an arm is tried on, in the order of its parameters."""
    params = stage.params
    for name in params.sets:
        if name in ("digits", "noisy"):
            speech = read_speech(stage.inputs[f"data/{DIGITS}"], "test")
            plain = _first(of_speech(name, speech), params.digits if name == "digits" else params.noisy)
            yield name, plain if name == "digits" else _in_noise(stage, plain)
        elif name == "held_out":
            yield name, of_speech(name, read_speech(stage.inputs[f"data/{SENTENCES}"], "held_out", params.held_out))
        else:
            speech = read_speech(stage.inputs[f"data/{LANGUAGES}"], name, params.sentences_per_language)
            yield name, of_speech(name, speech, readable=False)


def _first(part: HeardSet, count: int) -> HeardSet:
    return HeardSet(*(each[:count] for each in part))


def _in_noise(stage: StageContext, part: HeardSet) -> HeardSet:
    """Add a clip of the test folds to every utterance, at the ratio of the parameters."""
    clips = esc10.clips(stage.inputs[f"data/{NOISE}"], "test")
    generator = torch.Generator().manual_seed(derive_seed(_NOISE))
    noisy = []
    for waveform in part.waveforms:
        noise = esc10.noise_of(clips, (1, len(waveform)), generator)[0]
        noisy.append(mixed(waveform, noise, stage.params.noise_decibels).clamp(-1, 1))
    return part._replace(waveforms=noisy)


def error_rows(transcripts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """Return one row for each utterance, percent, whose mean is edits over words of all of them."""
    counts = np.array(word_errors(transcripts, texts))
    return corpus_influence(lambda total: 100 * float(total[0]) / float(total[1]), counts).tolist()
