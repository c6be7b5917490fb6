"""What the networks read: windows of a text in the tokens of the judge, or of a Markov chain of the seed.

Letters: B windows, N tokens of a window, A letters of the chain, S states of it.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from components.data import corpora, tables
from components.data.markov import Chain
from components.language.corpus_windows import CorpusWindows
from components.language.pretrained import LanguageModel, load_language_model
from components.language.stream_windows import StreamWindows
from components.tokenizers.text.byte_level import to_symbols
from flows.studies.context import StageContext
from flows.studies.decoding.assd.params import TrainParams
from flows.studies.decoding.sources import stream, text_directory


class Windows(Protocol):
    """Training or held-out windows."""

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw windows with replacement, int64 (count, N)."""


def judge(stage: StageContext) -> LanguageModel:
    """Read the judge, whose tokens the network shares."""
    return load_language_model(stage.inputs[f"bases/{stage.params.judge}"])


def training(stage: StageContext) -> tuple[Windows, int]:
    """Return the windows to train on, and how many tokens there are to predict."""
    params: TrainParams = stage.params
    if params.text == "chain":
        return ChainWindows(chain(params, stage.seed), params.context), params.chain_alphabet
    language = judge(stage)
    return _windows(stage, language, training=True), language.model.vocabulary_size


def held_out(stage: StageContext, language: LanguageModel) -> StreamWindows | CorpusWindows:
    """Return the windows of what is not for training."""
    return _windows(stage, language, training=False)


def _windows(stage: StageContext, language: LanguageModel, *, training: bool) -> StreamWindows | CorpusWindows:
    params: TrainParams = stage.params
    directory = text_directory(stage)
    if training:
        texts = corpora.training_documents(directory)
    elif params.text == "code":
        texts = corpora.documents(directory, "test")
    else:
        # The end of the one text: all that its split keeps from training.
        splits = [split for split in tables.split_names(directory) if split != "train"]
        texts = [text for split in splits for text in corpora.documents(directory, split)]
    if params.text == "code":
        symbols = [to_symbols(text) for text in texts]
        return CorpusWindows(symbols, language.tokenizer, language.specials, params.context)
    return StreamWindows(torch.tensor(language.tokenizer.encode("".join(texts))), params.context)


def disjoint(windows: StreamWindows | CorpusWindows, count: int) -> Tensor:
    """Return the first held-out windows side by side, (B, N)."""
    if isinstance(windows, CorpusWindows):
        return windows.windows(windows.disjoint()[:count])
    return windows.disjoint()[:count]


def chain(params: TrainParams, seed: int) -> Chain:
    """Draw the chain of a seed: each row from a symmetric Dirichlet law, mixed with a little of the uniform one."""
    letters = params.chain_alphabet
    rows = stream(seed, "chain").dirichlet(np.full(letters, params.chain_concentration), letters**params.chain_order)
    return Chain(string.ascii_uppercase[:letters], params.chain_order, 0.98 * rows + 0.02 / letters)


@dataclass(frozen=True)
class ChainWindows:
    """Independent texts of a chain, drawn anew for every batch.

    Attributes:
        chain: The chain.
        length: N.
    """

    chain: Chain
    length: int

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw texts, int64 (count, N)."""
        # The loop's generator decides: a resumed training draws the same texts.
        seed = int(torch.randint(1 << 62, (1,), generator=generator))
        return torch.from_numpy(self.chain.sample(count, self.length, np.random.default_rng(seed)).astype(np.int64))
