"""Pairs of treebank sentences that are explained: how they are found, and what of them is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.analysis.attribution_groups import word_spans, words_of_pieces
from components.analysis.nearest_pairs import mutual_nearest
from components.data import ud
from components.encoders.sentence import SentenceEncoder
from components.errors import TesseraError
from components.finetune.siamese import shifted_vectors
from components.metrics.tables import write_parquet
from components.metrics.word_overlap import words as lexical_words
from flows.studies.analysis.siamese_attribution.params import TrainParams

PAIRS_FILE = "pairs.parquet"
_NO_WORDS = ("PUNCT", "SYM", "X")
_ORDER = 0  # the same order of pairs for every seed, of which each takes its own part


@dataclass(frozen=True)
class Sentence:
    """A sentence of a treebank with its word pieces.

    Attributes:
        text: As it is written.
        ids: Tokens, those at both ends included.
        pieces: Their names.
        word: Word of each token, -1 at both ends.
        forms: The words.
        tags: Universal part of speech of each word.
        relations: Its relation to the word it depends on, without the part behind a colon.
    """

    text: str
    ids: list[int]
    pieces: list[str]
    word: list[int]
    forms: list[str]
    tags: list[str]
    relations: list[str]


@dataclass(frozen=True)
class SentencePair:
    """Two sentences, the first of which stands earlier in the treebank.

    Attributes:
        name: Unique over all samples.
        first: One sentence.
        second: The other.
    """

    name: str
    first: Sentence
    second: Sentence


def sample(directory: Path, encoder: SentenceEncoder, params: TrainParams, seed: int) -> list[SentencePair]:
    """Return the pairs of a seed's sample: mutual nearest neighbours, in an order of their own.

    Every two of `samples` consecutive seeds get different pairs.

    Raises:
        TesseraError: The treebank gives too few pairs.
    """
    sentences = candidates(directory, encoder, params)
    vectors = encoder.encode_ids([sentence.ids for sentence in sentences])
    spoken = [lexical_words(sentence.text) for sentence in sentences]
    found = mutual_nearest(vectors, lambda one, other: spoken[one] == spoken[other])
    found = _similar_enough(found, [sentence.ids for sentence in sentences], encoder, params.least_similarity)
    needed = params.pairs * params.samples
    if len(found) < needed:
        raise TesseraError(
            f"{directory.name} has {len(found)} pairs of neighbouring sentences of {params.fewest_words} words or more "
            f"and at most {params.longest} tokens; {params.samples} samples of {params.pairs} need {needed}. Lower "
            "pairs or raise longest."
        )
    order = np.random.default_rng(_ORDER).permutation(len(found))
    first = seed % params.samples * params.pairs
    chosen = order[first : first + params.pairs]
    return [SentencePair(f"{i}-{j}", sentences[i], sentences[j]) for i, j in (found[number] for number in chosen)]


def _similar_enough(
    pairs: list[tuple[int, int]], ids: list[list[int]], encoder: SentenceEncoder, least: float
) -> list[tuple[int, int]]:
    """Keep the pairs whose corrected similarity, as a cosine, is at least `least`."""
    if not pairs:
        return []
    first, second = (
        shifted_vectors(encoder, [ids[row] for row in side], shifted=True) for side in zip(*pairs, strict=True)
    )
    similar = torch.cosine_similarity(first, second, dim=-1)
    return [pair for pair, value in zip(pairs, similar.tolist(), strict=True) if value >= least]


def candidates(directory: Path, encoder: SentenceEncoder, params: TrainParams) -> list[Sentence]:
    """Return the sentences short enough to be explained whose words can be found in their text, each text once."""
    table = ud.sentences(directory, params.language).select("text", "form", "upos", "deprel")
    texts = table["text"].to_list()
    kept, seen = [], set()
    for (text, forms, tags, relations), encoding in zip(
        table.iter_rows(), encoder.tokenizer.encode_batch(texts), strict=True
    ):
        spoken = sum(tag not in _NO_WORDS for tag in tags)
        if len(encoding.ids) > params.longest or spoken < params.fewest_words or text.casefold() in seen:
            continue
        spans = word_spans(text, forms)
        if spans is None:
            continue
        seen.add(text.casefold())
        word = words_of_pieces(encoding.offsets, spans)
        plain = [relation.partition(":")[0] for relation in relations]
        kept.append(Sentence(text, encoding.ids, encoding.tokens, word, forms, tags, plain))
    return kept


def write(pairs: list[SentencePair], directory: Path) -> None:
    """Write the pairs as a table with one column for each attribute of both sentences."""
    columns = {"name": [pair.name for pair in pairs]}
    for side in ("first", "second"):
        for field in Sentence.__dataclass_fields__:
            columns[f"{side}_{field}"] = [getattr(getattr(pair, side), field) for pair in pairs]
    write_parquet(pl.DataFrame(columns), directory / PAIRS_FILE)


def read(directory: Path) -> list[SentencePair]:
    """Read the pairs that a stage has written."""
    found = []
    for row in pl.read_parquet(directory / PAIRS_FILE).iter_rows(named=True):
        sides = (
            Sentence(**{field: row[f"{side}_{field}"] for field in Sentence.__dataclass_fields__})
            for side in ("first", "second")
        )
        found.append(SentencePair(row["name"], *sides))
    return found
