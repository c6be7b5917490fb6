"""What is written behind what: characters behind the start of a text, or a caption behind another of the same scene.

Ids are 0 .. V - 1 for what may be predicted, then the mask, then the start. Captions end with a token of their own,
which also fills prompts and captions up to one length.

Letters: B sequences, P tokens of the prompt, N tokens that are predicted, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data.corpora import documents
from components.data.paraphrases import Pair, ParaphraseTask, mismatched
from components.data.tables import split_names
from components.diffusion.noise import AbsorbingNoise
from components.errors import TesseraError
from components.language.stream_windows import StreamWindows
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion.e2d2.params import TrainParams

_CAPTION_SEEDS = {"train": 0, "test": 2}


class TaskDoesNotFit(TesseraError):
    """The sequences of a data set do not fit the sizes of an arm."""


@dataclass(frozen=True)
class Examples:
    """Sequences of one split.

    Attributes:
        prompt: int64 (B, P).
        tokens: int64 (B, N).
        other: For each sequence another one of another meaning, whose prompt or blocks are wrong here, int64 (B,).
        names: Name of each, for pairing arms.
        truth: Captions only: the pairs.
    """

    prompt: Tensor
    tokens: Tensor
    other: Tensor
    names: list[str]
    truth: Sequence[Pair] = ()


class Task:
    """Ids and noise of a vocabulary of V words.

    Args:
        words: V.
    """

    def __init__(self, words: int) -> None:
        self.words = words
        self.mask, self.start = words, words + 1
        self.special = 2
        self.noise = AbsorbingNoise(words + self.special, self.mask)


class Characters(Task):
    """Windows of a text; the prompt is the start.

    Args:
        directory: Data set of one running text.
        length: N.
    """

    def __init__(self, directory: Path, length: int) -> None:
        self.texts = {split: "".join(documents(directory, split)) for split in split_names(directory)}
        self.alphabet = sorted(set().union(*self.texts.values()))
        super().__init__(len(self.alphabet))
        self._ids = {character: place for place, character in enumerate(self.alphabet)}
        self.training = self.encode(self.texts["train"])
        self._windows = StreamWindows(self.training, length)
        self._length = length

    def encode(self, text: str) -> Tensor:
        """Return the ids of a text, int64 (characters,)."""
        return torch.tensor([self._ids[character] for character in text])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of ids."""
        return "".join(self.alphabet[token] for token in tokens)

    def prompts(self, count: int) -> Tensor:
        """Return starts, int64 (B, 1)."""
        return torch.full((count, 1), self.start)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw prompts and windows of the training text."""
        return self.prompts(count), self._windows.draw(count, generator)

    def examples(self, count: int) -> Examples:
        """Return the first windows of the test text that do not overlap."""
        windows = StreamWindows(self.encode(self.texts["test"]), self._length).disjoint()[:count]
        names = [f"window {number}" for number in range(len(windows))]
        # Half the text away: no neighbour, which would tell much.
        other = torch.arange(len(windows)).roll(-(len(windows) // 2))
        return Examples(self.prompts(len(windows)), windows, other, names)


class Captions(Task):
    """Another caption of the same scene behind a caption of it.

    Args:
        directory: Data set of scenes.
        prompt: P.
        length: N.
        pairs: Training pairs.
    """

    def __init__(self, directory: Path, prompt: int, length: int, pairs: int) -> None:
        self.directory, self._prompt, self._length, self._pairs = directory, prompt, length, pairs
        self.task = ParaphraseTask.of(directory)
        self.vocabulary = self.task.words
        super().__init__(len(self.vocabulary) + 1)
        self.end = len(self.vocabulary)
        self._ids = {word: place for place, word in enumerate(self.vocabulary)}
        self._training: tuple[Tensor, Tensor] | None = None

    def _filled(self, captions: Sequence[Sequence[str]], length: int) -> Tensor:
        longest = max(map(len, captions))
        if longest >= length:
            raise TaskDoesNotFit(
                f"{self.directory} has a caption of {longest} words, which with an end token do not fit into {length}; "
                f"raise prompt and length to {longest + 1} or more."
            )
        rows = [[*(self._ids[word] for word in caption), *[self.end] * (length - len(caption))] for caption in captions]
        return torch.tensor(rows)

    def _tensors(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        prompt = self._filled([pair.source for pair in pairs], self._prompt)
        return prompt, self._filled([pair.target for pair in pairs], self._length)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw training pairs."""
        if self._training is None:
            pairs = self.task.pairs(self.directory, "train", self._pairs, _CAPTION_SEEDS["train"])
            self._training = self._tensors(pairs)
        rows = torch.randint(len(self._training[0]), (count,), generator=generator)
        return self._training[0][rows], self._training[1][rows]

    def examples(self, count: int) -> Examples:
        """Return test pairs; their captions are the same for every arm and seed."""
        pairs = self.task.pairs(self.directory, "test", count, _CAPTION_SEEDS["test"])
        names = [f"{at}-{pair.scene}" for at, pair in enumerate(pairs)]
        return Examples(*self._tensors(pairs), torch.from_numpy(mismatched(pairs)), names, pairs)

    def caption(self, tokens: Sequence[int]) -> list[str]:
        """Return the words of a written caption up to its end."""
        written = list(tokens)
        until = written.index(self.end) if self.end in written else len(written)
        return [self.vocabulary[token] for token in written[:until]]

    def valid(self, outputs: Tensor, pairs: Sequence[Pair]) -> np.ndarray:
        """Return which outputs (B, N) say what their pairs mean, bool (B,)."""
        return np.array(
            [
                self.task.valid(self.caption(row), pair.meaning)
                for row, pair in zip(outputs.tolist(), pairs, strict=True)
            ]
        )


def task_of(stage: StageContext) -> Any:
    """Return the task of an arm.

    Raises:
        TaskDoesNotFit: The arm has a vocabulary or a prompt that none of the data sets has.
    """
    params: TrainParams = stage.params
    if params.words or (params.task == "characters" and params.prompt != 1):
        raise TaskDoesNotFit(
            f"words: {params.words} and prompt: {params.prompt} are those of the full profile, whose prompts and "
            "targets are no data set here; declare one and give its ids in this module, or leave words at 0 and prompt "
            "at 1."
        )
    if params.task == "captions":
        return Captions(stage.inputs["data/shapes"], params.prompt, params.length, params.pairs)
    return Characters(stage.inputs["data/tinyshakespeare"], params.length)
