"""Tiny stand-ins of what papers on sentence encoders read: an untrained encoder, a treebank, scored pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

from components.data import sts
from components.encoders.random_sentence import random_sentence_encoder
from components.encoders.sentence import save_sentence_encoder
from components.errors import TesseraError
from components.metrics.tables import write_parquet

DATA = ("all-minilm-l6-v2", "ud", "sts")
_WORDS = {
    "DET": ["the", "a"],
    "ADJ": ["old", "red", "small"],
    "NOUN": ["dog", "house", "river", "teacher"],
    "VERB": ["sees", "likes", "finds"],
    "ADP": ["near", "behind"],
}
_PATTERN = [("DET", "det"), ("ADJ", "amod"), ("NOUN", "nsubj"), ("VERB", "root"), ("DET", "det"), ("NOUN", "obj")]
_TAIL = [("ADP", "case"), ("NOUN", "obl:near")]
_SENTENCES, _SCORED = 60, 24
# Some words are made of two pieces.
_PIECES = [*(word for kind in _WORDS.values() for word in kind if word != "teacher"), "teach", "##er", "."]


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: It is none of DATA.
    """
    generator = np.random.default_rng(1)
    if name == "all-minilm-l6-v2":
        save_sentence_encoder(directory, random_sentence_encoder(_PIECES, width=16, layers=6, heads=2))
        return
    if name == "ud":
        _treebank([_sentence(generator) for _ in range(_SENTENCES)], directory / "en.parquet")
    elif name == "sts":
        _scored(generator, directory / sts.FILE)
    else:
        raise TesseraError(f"{name!r} is no data set of sentence encoders; expected one of {', '.join(DATA)}.")
    sizes = {path.name: {"bytes": path.stat().st_size} for path in directory.glob("*.parquet")}
    (directory / "meta.json").write_text(json.dumps({"name": name, "tables": sizes}))


def _sentence(generator: np.random.Generator) -> list[tuple[str, str, str]]:
    """Return the words of a sentence with their tags and relations."""
    pattern = _PATTERN + _TAIL * int(generator.integers(2))
    words = [(str(generator.choice(_WORDS[tag])), tag, relation) for tag, relation in pattern]
    return [*words, (".", "PUNCT", "punct")]


def _text(words: list[tuple[str, str, str]]) -> str:
    return " ".join(word for word, _, _ in words[:-1]) + words[-1][0]


def _treebank(sentences: list[list[tuple[str, str, str]]], path: Path) -> None:
    columns = {
        "sent_id": [f"s{number}" for number in range(len(sentences))],
        "split": ["test"] * len(sentences),
        "text": [_text(words) for words in sentences],
    }
    for field, place in (("form", 0), ("lemma", 0), ("upos", 1), ("feats", None), ("deprel", 2)):
        columns[field] = [["_" if place is None else word[place] for word in words] for words in sentences]
    heads = pl.Series([[0] * len(words) for words in sentences], dtype=pl.List(pl.Int16))
    write_parquet(pl.DataFrame(columns).with_columns(head=heads), path)


def _scored(generator: np.random.Generator, path: Path) -> None:
    """Pairs with every score, some with a sentence in common, so that a split has something to keep together."""
    texts = [_text(_sentence(generator)) for _ in range(2 * _SCORED)]
    second = [texts[number - 1] if number % 6 == 5 else texts[_SCORED + number] for number in range(_SCORED)]
    frame = pl.DataFrame(
        {
            "score": pl.Series(np.linspace(0, 5, _SCORED), dtype=pl.Float32),
            "sentence1": texts[:_SCORED],
            "sentence2": second,
            "year": pl.Series([2016] * _SCORED, dtype=pl.Int16),
            "subset": ["drawn"] * _SCORED,
            "licence": ["none"] * _SCORED,
        }
    )
    write_parquet(frame, path)
