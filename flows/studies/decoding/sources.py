"""What the models of the decoding study read: texts of a Markov chain, and windows of a real text.

Every training window is the beginning of a text's encoding, so that a model's start token means "a text begins here":
of a text drawn from the chain, or of the real text from the start of a piece, which no earlier text moves.

Letters: B windows, T tokens of a window, N characters.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.data import tables
from components.data.markov import Chain
from components.errors import TesseraError
from flows.studies.context import StageContext
from flows.studies.decoding.params import TrainParams

TEXT_FILE = "text.parquet"
_BLOCK = 4096
_MERGE_TEXT = 200


class TooLittleText(TesseraError):
    """A text is shorter than one training window."""


def tokenizer_module(name: str) -> ModuleType:
    """Import the module of components.tokenizers.text that an arm names."""
    return importlib.import_module(f"components.tokenizers.text.{name}")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of one purpose ("train", "merges", "contexts", ...) of one seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def shared(amount: int, params: TrainParams) -> int:
    """Return an arm's share of an amount of data or of steps."""
    return max(1, round(amount * params.data_share))


def chain_tokenizer(params: TrainParams, chain: Chain, seed: int) -> Any:
    """Make the tokenizer of an arm for a chain: the given vocabulary, or merges learned on texts of their own."""
    module = tokenizer_module(params.tokenizer)
    if params.tokenizer == "max_prefix":
        return module.MaxPrefixTokenizer(params.vocabulary)
    count = -(-params.tokenizer_characters // _MERGE_TEXT)
    texts = chain.texts(chain.sample(count, _MERGE_TEXT, stream(seed, "merges")))
    return module.train(texts, params.vocabulary_size, alphabet=chain.alphabet)


def text_directory(stage: StageContext) -> Path:
    """Return the directory of the one data set that the stage is given."""
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    return directory


def text_tokenizer(params: TrainParams, directory: Path) -> Any:
    """Make the tokenizer of an arm for a real text, from its training part; all its symbols become tokens."""
    module = tokenizer_module(params.tokenizer)
    symbols = "".join(sorted(set(tables.read(directory, TEXT_FILE)["text"].item())))
    return module.train([part(directory, "train")], params.vocabulary_size, alphabet=symbols, pieces=module.WORD_PIECES)


def part(directory: Path, split: str) -> str:
    """Read one part of a real text."""
    return tables.read_split(directory, split, ["text"])["text"].item()


class ChainWindows:
    """The first T tokens of independent texts of a chain, until they spell the wanted number of characters.

    A text is drawn longer than T tokens can reach, so that its end changes none of them.

    Attributes:
        tokens: Windows, (B, T) int64.
        characters: Characters that they spell.
    """

    def __init__(self, chain: Chain, tokenizer: Any, characters: int, context: int, generator: np.random.Generator):
        lengths = np.array([len(token) for token in tokenizer.vocabulary])
        reach = (context + 8) * int(lengths.max())
        blocks, self.characters = [], 0
        while self.characters < characters:
            tokens = tokenizer.first_tokens(chain.texts(chain.sample(_BLOCK, reach, generator)), context)
            spelled = lengths[tokens].sum(1).cumsum()
            wanted = int(np.searchsorted(spelled, characters - self.characters)) + 1
            blocks.append(tokens[:wanted])
            self.characters += int(spelled[: len(blocks[-1])][-1])
        self.tokens = torch.from_numpy(np.concatenate(blocks))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw windows with replacement, (count, T)."""
        return self.tokens[torch.randint(len(self.tokens), (count,), generator=generator)]


class TextWindows:
    """T consecutive tokens of a real text from the start of any of its pieces.

    Raises:
        TooLittleText: The text has no window.
    """

    def __init__(self, tokenizer: Any, text: str, context: int) -> None:
        tokens, pieces = tokenizer.encode_with_pieces(text)
        starts = np.flatnonzero(np.diff(pieces, prepend=-1))
        starts = starts[starts <= len(tokens) - context]
        if not len(starts):
            raise TooLittleText(f"The text has {len(tokens)} tokens; expected at least {context}, one window.")
        self._tokens = torch.tensor(tokens)
        self._starts = torch.from_numpy(starts)
        self._places = torch.arange(context)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw windows with replacement, (count, T)."""
        starts = self._starts[torch.randint(len(self._starts), (count,), generator=generator)]
        return self._tokens[starts[:, None] + self._places]
