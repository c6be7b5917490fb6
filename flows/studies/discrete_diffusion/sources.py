"""The tasks of the study: what is rewritten into what, in ids of a vocabulary, and how outputs are scored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data.multi30k import descriptions
from components.data.paraphrases import Pair, ParaphraseTask, mismatched
from components.diffusion.objectives import Items
from components.errors import TesseraError
from components.metrics.text_generation import bleu
from components.tokenizers.text import bpe

TOKENIZER_FILE = "tokenizer.json"
# Words of any alphabet and runs of other signs, each with the one space before it.
PIECES = r" ?\w+| ?[^\w\s]+|\s"
SPLITS = {"train": ["train"], "validation": ["val"], "test": ["test_2016_flickr", "test_2017_flickr"]}
LONGEST_TARGET = 18
_WORDS = re.compile(r"\w+|[^\w\s]")
_CAPTION_SEEDS = {"train": 0, "validation": 1, "test": 2}


class TooLittleData(TesseraError):
    """A data set holds no usable pair."""


@dataclass(frozen=True)
class Examples:
    """Inputs of one split.

    Attributes:
        items: Ids, padded.
        lengths: Of targets, int64 (B,).
        wrong: For each input another one whose source is a wrong one, int64 (B,).
        names: Name of each input, for pairing arms.
        truth: What outputs are scored against: pairs of the task, or words of references.
    """

    items: Items
    lengths: Tensor
    wrong: Tensor
    names: list[str]
    truth: Sequence[Any]

    def __len__(self) -> int:
        return len(self.lengths)


def padded(sequences: Sequence[Sequence[int]], padding: int) -> Tensor:
    """Return sequences as one table filled up with padding, int64 (B, N)."""
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[padding] * (width - len(sequence))] for sequence in sequences])


class Paraphrases:
    """Another caption of the same scene; ids are places in the sorted list of words.

    Args:
        directory: Data set of scenes.
    """

    kind = "paraphrase"

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.task = ParaphraseTask.of(directory)
        self.vocabulary = self.task.words
        self._ids = {word: place for place, word in enumerate(self.vocabulary)}

    @property
    def words(self) -> int:
        """Number of words that may be predicted."""
        return len(self.vocabulary)

    def examples(self, split: str, count: int) -> Examples:
        """Return pairs of a split; captions are the same for every arm and seed."""
        pairs = self.task.pairs(self.directory, split, count, _CAPTION_SEEDS[split])
        sides = ([[self._ids[word] for word in side] for side in sides] for sides in _sides(pairs))
        source, target = (padded(side, self.words + 1) for side in sides)
        lengths = torch.tensor([len(pair.target) for pair in pairs])
        wrong = torch.from_numpy(mismatched(pairs)) if split != "train" else torch.arange(len(pairs))
        names = [f"{at}-{pair.scene}" for at, pair in enumerate(pairs)]
        return Examples(Items(source, target), lengths, wrong, names, pairs)

    def text(self, output: Sequence[int]) -> list[str]:
        """Return the words of an output, without padding."""
        return [self.vocabulary[token] for token in output if token < self.words]

    def valid(self, outputs: Tensor, examples: Examples) -> np.ndarray:
        """Return which outputs say what their source says, bool (B,)."""
        return np.array(
            [
                self.task.valid(self.text(output), pair.meaning)
                for output, pair in zip(outputs.tolist(), examples.truth, strict=True)
            ]
        )

    def score(self, outputs: Tensor, examples: Examples) -> float:
        """Return the share of valid outputs: what decoders are chosen by."""
        return float(self.valid(outputs, examples).mean())


def _sides(pairs: Sequence[Pair]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    return [pair.source for pair in pairs], [pair.target for pair in pairs]


class Translations:
    """German to English descriptions of pictures, lower-cased, joint byte pairs.

    Args:
        directory: Data set multi30k.
        tokenizer: Of both languages.
        context: Most tokens of a source; pairs with a longer one, or a target above LONGEST_TARGET, are left out.
    """

    kind = "translation"

    def __init__(self, directory: Path, tokenizer: bpe.BytePairTokenizer, context: int) -> None:
        self.directory, self.tokenizer, self.context = directory, tokenizer, context

    @classmethod
    def learn(cls, directory: Path, vocabulary_size: int, context: int) -> Translations:
        """Learn the byte pairs from the training sentences of both languages."""
        texts = [text for language in ("de", "en") for text in lower(directory, "train", language)]
        symbols = "".join(sorted({*"".join(texts)}))
        return cls(directory, bpe.train(texts, vocabulary_size, alphabet=symbols, pieces=PIECES), context)

    @property
    def words(self) -> int:
        """Number of tokens that may be predicted."""
        return len(self.tokenizer.vocabulary)

    def examples(self, split: str, count: int | None = None) -> Examples:
        """Return pairs of a split, those that fit only: positions beyond LONGEST_TARGET are never trained.

        Raises:
            TooLittleData: No pair of the split fits.
        """
        known = set("".join(self.tokenizer.vocabulary))
        rows = []
        for part in SPLITS[split]:
            texts = zip(*(lower(self.directory, part, language) for language in ("de", "en")), strict=True)
            for number, pair in enumerate(texts):
                # A sign that no training sentence has is no token.
                source, target = (self.tokenizer.encode("".join(filter(known.__contains__, text))) for text in pair)
                if 0 < len(target) <= LONGEST_TARGET and 0 < len(source) <= self.context:
                    rows.append((f"{part}-{number}", source, target, split_words(pair[1])))
                    if len(rows) == count:
                        break
        if not rows:
            raise TooLittleData(f"{self.directory}: no pair of {split!r} fits; raise context ({self.context}).")
        names, source, target, truth = map(list, zip(*rows[:count], strict=True))
        items = Items(*(padded(side, self.words + 1) for side in (source, target)))
        lengths = torch.tensor([len(side) for side in target])
        return Examples(items, lengths, torch.arange(len(rows[:count])).roll(-1), names, truth)

    def text(self, output: Sequence[int]) -> list[str]:
        """Return the words of an output, without padding."""
        return split_words(self.tokenizer.decode([token for token in output if token < self.words]))

    def score(self, outputs: Tensor, examples: Examples) -> float:
        """Return corpus BLEU: what decoders are chosen by."""
        return bleu([self.text(output) for output in outputs.tolist()], examples.truth)


Task = Paraphrases | Translations


def lower(directory: Path, split: str, language: str) -> list[str]:
    """Return the lower-cased sentences of a split."""
    return [text.lower() for text in descriptions(directory, split, language)]


def split_words(text: str) -> list[str]:
    """Split a text into words and signs, as BLEU counts them."""
    return _WORDS.findall(text)
