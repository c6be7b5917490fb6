"""The judge of intelligibility: a CTC recogniser with a lexicon and a trigram of its words.

A directory holds the recogniser (components.bases), `judge.json` (words, width and weights of the beam search) and
`texts.parquet`, the texts that the trigram counts. A paper with other words passes its own, and its own texts.

Letters: `B` utterances, `S` samples.

Source: the decoding of Hannun et al. 2014 (components.speech.ctc_beam).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from components.bases import load_model
from components.errors import TesseraError
from components.language.word_trigram import WordTrigram
from components.metrics.tables import write_parquet
from components.speech.ctc import greedy
from components.speech.ctc_beam import BeamSearch, Lexicon
from components.speech.recogniser import CTCRecogniser
from components.training import atomic

_BATCH = 32
_SETTINGS, _TEXTS = "judge.json", "texts.parquet"


class JudgeError(TesseraError):
    """Words and texts that do not fit, or a directory without a judge."""


class CTCJudge:
    """See the module.

    Args:
        recogniser: Trained; on whatever device.
        words: Lexicon.
        texts: Texts of these words, counted by the trigram.
        beams: Prefixes that the search keeps.
        language_weight: Weight of the trigram's log probability.
        word_bonus: Nats that every word adds, against the preference for few words.

    Raises:
        JudgeError: A text has a word that is not in the lexicon.
    """

    def __init__(
        self,
        recogniser: CTCRecogniser,
        words: Sequence[str],
        texts: Sequence[str],
        *,
        beams: int = 16,
        language_weight: float = 0.5,
        word_bonus: float = 1.0,
    ) -> None:
        self.recogniser = recogniser.eval()
        self.words, self.texts = tuple(words), tuple(texts)
        self.beams, self.language_weight, self.word_bonus = beams, language_weight, word_bonus
        ids = {word: place for place, word in enumerate(self.words)}
        if foreign := {word for text in self.texts for word in text.split()} - set(ids):
            raise JudgeError(f"{min(foreign)!r} is in the texts but none of the {len(ids)} words; add it.")
        self._search = BeamSearch(
            beams,
            lexicon=Lexicon.of(self.words, recogniser.labels),
            language=WordTrigram([[ids[word] for word in text.split()] for text in self.texts], len(ids)),
            language_weight=language_weight,
            word_bonus=word_bonus,
        )

    def transcribe(self, waveforms: Sequence[Tensor]) -> list[str]:
        """Return what is said in waveforms, each (S,), in words of the lexicon."""
        found: list[str] = []
        for log_p, frames in self._read(waveforms):
            found += [self.recogniser.text(labels).strip() for labels in self._search(log_p, frames)[0]]
        return found

    def spell(self, waveforms: Sequence[Tensor]) -> list[str]:
        """Return what is said in waveforms, each (S,), letter by letter: no lexicon mends a word."""
        found: list[str] = []
        for log_p, frames in self._read(waveforms):
            found += [self.recogniser.text(labels).strip() for labels in greedy(log_p, frames)]
        return found

    @torch.no_grad()
    def _read(self, waveforms: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.recogniser.mean.device
        for first in range(0, len(waveforms), _BATCH):
            part = waveforms[first : first + _BATCH]
            samples = torch.tensor([max(1, len(each)) for each in part])
            batch = torch.zeros(len(part), int(samples.max()))
            for row, each in enumerate(part):
                batch[row, : len(each)] = each
            yield self.recogniser.log_probabilities(batch.to(device), samples.to(device))


def save_judge(directory: Path, judge: CTCJudge) -> None:
    """Write what `load_judge` reads beside the recogniser, which `components.bases.save_base` writes."""
    settings = {
        "words": list(judge.words),
        "beams": judge.beams,
        "language_weight": judge.language_weight,
        "word_bonus": judge.word_bonus,
    }
    with atomic.replacing(directory / _SETTINGS) as temporary:
        Path(temporary).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    write_parquet(pl.DataFrame({"text": list(judge.texts)}, schema={"text": pl.String}), directory / _TEXTS)


def load_judge(directory: Path, *, words: Sequence[str] | None = None, texts: Sequence[str] | None = None) -> CTCJudge:
    """Read a judge, on the CPU; move it with `judge.recogniser.to(device)`.

    Args:
        directory: Written by `save_judge` and `components.bases.save_base`.
        words: Another lexicon; its texts are given, too.
        texts: Texts of these words.

    Raises:
        JudgeError: The directory has no judge, or only one of words and texts is given.
    """
    if (words is None) != (texts is None):
        raise JudgeError("Words and texts are given together: the trigram counts texts of the words.")
    directory = Path(directory)
    try:
        settings = json.loads((directory / _SETTINGS).read_text())
        own = pl.read_parquet(directory / _TEXTS)["text"].to_list() if texts is None else texts
    except (OSError, json.JSONDecodeError) as error:
        raise JudgeError(f"{directory}: {error}. Make the judge with: tessera rebuild-base ctc-judge") from error
    own_words = settings.pop("words")
    return CTCJudge(load_model(directory), own_words if words is None else words, own, **settings)
