"""Base symbols of the tasks and tokens over them: phonemes of phrases, a narrator's units, units of all speech."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from components.bases import load_model
from components.data import espeak_phrases, parquet, tables
from components.data.phonetizer import WORD_END
from components.data.speech import read_speech
from components.errors import TesseraError
from components.speech.recogniser import ALPHABET
from components.tokenizers.audio import unit_bpe
from components.tokenizers.audio.unit_bpe import UnitBPE, collapsed
from components.training.determinism import derive_seed
from flows.studies.bases.utterances import in_batches
from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization.params import tokenizer_module

PHRASES, NARRATOR, UNITS = "espeak-phrases", "espeak-narrator", "speech-units"
UNITS_FILE = "units.parquet"
FRAMES_PER_SECOND = 50
_RANDOM = 5  # random stream of the control's pairs
_TOGETHER = 32
_TOKENIZER = "tokens.json"


class SymbolError(TesseraError):
    """A text or a base lacks what a task needs."""


class Corpus(NamedTuple):
    """Sequences of base symbols.

    Attributes:
        size: U, number of base symbols.
        train: Symbols of each training sequence.
        test: Symbols of each test sequence.
        train_texts: What is said.
        test_texts: What is said.
        names: Name of each test sequence.
        separator: Symbol between words; None where there is none.
    """

    size: int
    train: list[list[int]]
    test: list[list[int]]
    train_texts: list[str]
    test_texts: list[str]
    names: list[str]
    separator: int | None = None


def characters_of(text: str) -> list[int]:
    """Return the characters of a text as source tokens, 0 .. len(ALPHABET) - 1.

    Raises:
        SymbolError: A character is none of the alphabet.
    """
    if strange := sorted(set(text) - set(ALPHABET)):
        raise SymbolError(f"{text!r} has {strange[0]!r}, which is none of {ALPHABET!r}; leave it out.")
    return [ALPHABET.index(character) for character in text]


def corpus_of(stage: StageContext) -> Corpus:
    """Return the corpus of an arm's task: phrases with phonemes, or the narrator's units."""
    return phrases(stage) if stage.params.task == "g2p" else narrated(stage)


def phrases(stage: StageContext) -> Corpus:
    """Return phrases and their phonemes; phonemes of all splits are base symbols: they are the phonetizer's."""
    folder = stage.inputs[f"data/{PHRASES}"]
    table = tables.read(folder, espeak_phrases.FILE)
    known = sorted({symbol for row in table["phonemes"] for symbol in row})
    ids = {symbol: place for place, symbol in enumerate(known)}
    parts = {split: table.filter(pl.col("split") == split) for split in ("train", "test")}
    parts["test"] = parts["test"].head(getattr(stage.params, "test_utterances", None) or len(parts["test"]))
    symbols = {split: [[ids[each] for each in row] for row in part["phonemes"]] for split, part in parts.items()}
    return Corpus(
        len(known),
        symbols["train"],
        symbols["test"],
        parts["train"]["text"].to_list(),
        parts["test"]["text"].to_list(),
        parts["test"]["phrase"].to_list(),
        ids.get(WORD_END),
    )


def narrated(stage: StageContext) -> Corpus:
    """Return the narrator's sentences and their units."""
    params = stage.params
    tokenizer = load_model(stage.inputs[f"bases/{UNITS}"]).only([params.stream]).to(stage.device)
    found: dict[str, tuple[list[list[int]], list[str], list[str]]] = {}
    for split in ("train", "test"):
        count = getattr(params, "test_utterances", None) if split == "test" else None
        speech = read_speech(stage.inputs[f"data/{NARRATOR}"], split, count)
        units: list[list[int]] = [[]] * len(speech)
        for rows, batch in in_batches(speech, _TOGETHER, stage.device):
            for row, each in zip(rows, tokenizer.encode(*batch)[..., 0].cpu(), strict=True):
                units[row] = as_symbols(each[each >= 0].tolist(), params.dedup)
        found[split] = (units, speech.texts, speech.names)
    return Corpus(
        tokenizer.codebook_sizes[0], found["train"][0], found["test"][0], found["train"][1], *found["test"][1:]
    )


def as_symbols(units: Sequence[int], dedup: bool) -> list[int]:
    """Return units as base symbols: runs made one, unless their lengths shall stay."""
    return collapsed(units) if dedup else list(units)


class StoredUnits(NamedTuple):
    """Units of utterances that the base stored, frame by frame.

    Attributes:
        size: K.
        train: Units of each training utterance.
        held_out: Units of each utterance of the test splits.
        names: Data set and name of each of these.
    """

    size: int
    train: list[list[int]]
    held_out: list[list[int]]
    names: list[str]


def stored_units(stage: StageContext) -> StoredUnits:
    """Return the units of a fixed number of hours of training audio, evenly spread, and of all test utterances.

    Raises:
        SymbolError: The base did not store this stream.
    """
    params = stage.params
    layer, size = params.stream
    path, column = stage.inputs[f"bases/{UNITS}"] / UNITS_FILE, f"layer{layer}_{size}"
    if column not in parquet.column_names(path):
        raise SymbolError(f"{UNITS} stores no units of layer {layer} with {size} clusters; choose another stream.")
    table = parquet.read(path, ["dataset", "utterance", column])
    split = pl.col("utterance").str.split("/").list.first()
    train, test = table.filter(split == "train"), table.filter(split == "test")
    frames = train[column].list.len().to_numpy().astype(np.int64)
    wanted = params.lm_hours * 3600 * FRAMES_PER_SECOND
    # Every so-manyth utterance, so that both data sets have their share.
    share = min(1.0, wanted / frames.sum())
    places = np.arange(len(train))
    kept = np.flatnonzero(np.floor((places + 1) * share) > np.floor(places * share))
    names = [f"{data}/{name}" for data, name in test.select("dataset", "utterance").iter_rows()]
    rows = train[column].to_list()
    return StoredUnits(size, [rows[place] for place in kept.tolist()], test[column].to_list(), names)


def learned_tokens(
    params: Any, sequences: list[list[int]], size: int, seed: int, separator: int | None = None
) -> UnitBPE:
    """Learn an arm's tokens from training sequences; no token crosses from one sequence into another."""
    wanted = max(params.vocabulary, size) if params.vocabulary else size
    if params.merging == "random":
        generator = torch.Generator().manual_seed(derive_seed(seed, _RANDOM))
        return unit_bpe.train_random(sequences, wanted, base_size=size, generator=generator)
    module = importlib.import_module(tokenizer_module(params.merging))
    if params.merging == "unigram":
        return module.train(sequences, wanted, base_size=size)
    return module.train(sequences, wanted, base_size=size, separator=None if params.cross_word else separator)


def save_tokens(stage: StageContext, tokens: UnitBPE) -> None:
    """Write an arm's tokens into its training's output."""
    tokens.save(stage.output / _TOKENIZER)


def load_tokens(stage: StageContext) -> UnitBPE:
    """Read the tokens that the arm's training wrote."""
    module = importlib.import_module(tokenizer_module(stage.params.merging))
    return module.load(stage.inputs["train"] / _TOKENIZER)
