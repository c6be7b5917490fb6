"""Whole held-out texts: bits per byte of one model or an ensemble, and the model beside counts of token pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.data.corpora import training_documents
from components.language.byte_ensemble import ByteEnsemble
from components.language.byte_stream import ByteModel, ByteStream
from components.language.corpus_windows import encode_documents
from components.language.count_models import BigramCounts
from components.language.token_tree import TokenTree
from components.metrics.bits_per_byte import bits, per_text
from components.metrics.tables import MetricTable
from components.tokenizers.text.byte_level import to_symbols
from flows.studies.context import StageContext
from flows.studies.decoding.byte_probabilities.passages import HeldOut, Passage
from flows.studies.decoding.byte_probabilities.predictors import AskedModel, asked_model
from flows.studies.decoding.sources import stream, text_directory


def measure(stage: StageContext, held_out: HeldOut, table: MetricTable) -> None:
    """Score the held-out texts, which all arms and seeds share."""
    params = stage.params
    models = [asked_model(stage, tokens) for tokens in params.models]
    passages = held_out.texts(params.text_bytes, stream(0, "texts"))
    spelled, with_end, of_tokens = [], [], []
    for index, passage in enumerate(passages):
        trees = [model.tree(passage.text, 0) for model in models]
        streams = [ByteStream(model.rows(tree.next, truncated=True)) for model, tree in zip(models, trees, strict=True)]
        symbols, end = text_bits(streams[0] if len(models) == 1 else ByteEnsemble(streams), passage.text)
        spelled.append(symbols)
        with_end.append(symbols + end)
        if len(models) == 1:
            of_tokens.append(token_bits(models[0], trees[0], passage.text))
        stage.progress(index + 1, len(passages))
    names = [passage.name for passage in passages]
    lengths = np.array([len(passage.text) for passage in passages])
    values = per_text(np.array(spelled), lengths)
    table.add_items("bits_per_byte", values.tolist(), unit="bits/byte", items=names, normaliser="bytes")
    if len(models) == 1:
        _conversion(np.array(with_end), of_tokens, lengths, names, table)
        _beside_counts(stage, models[0], passages, of_tokens, table)


def text_bits(predictor: ByteModel, text: str) -> tuple[float, float]:
    """Return the bits of a text, byte by byte, and those of its end behind it."""
    total = 0.0
    for symbol in text:
        total += predictor.log_probabilities()[predictor.alphabet.index(symbol)]
        predictor.append(symbol)
    return float(bits(total)), float(bits(predictor.log_probabilities()[-1]))


@dataclass(frozen=True)
class TokenBits:
    """What a token model says of the one encoding of a text, of T tokens.

    Attributes:
        plain: -log2 P of each token and of the end, untouched, (T + 1,).
        truncated: The same with full truncation, (T + 1,).
    """

    plain: np.ndarray
    truncated: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Share of the probability that truncation keeps at each place, (T + 1,)."""
        return 2.0 ** (self.truncated - self.plain)


def token_bits(model: AskedModel, tree: TokenTree, text: str) -> TokenBits:
    """Return the bits of a text's tokens and its end before and after truncation."""
    rows = {truncated: model.rows(tree.next, truncated=truncated) for truncated in (False, True)}
    tokens = model.tokenizer.encode(text)
    found: dict[bool, list[float]] = {False: [], True: []}
    for place in range(len(tokens) + 1):
        for truncated, values in found.items():
            row = rows[truncated].after(tokens[:place])
            whole = place == len(tokens)
            values.append(row.end if whole else row.tokens[model.vocabulary.rank[tokens[place]]])
    return TokenBits(*(bits(np.log(np.array(values))) for values in found.values()))


def _conversion(
    with_end: np.ndarray, of_tokens: list[TokenBits], lengths: np.ndarray, names: list[str], table: MetricTable
) -> None:
    plain, truncated = (np.array([getattr(each, name).sum() for each in of_tokens]) for name in ("plain", "truncated"))
    table.add("conversion_gap", np.abs(with_end - truncated).max(), unit="bits", samples=len(names))
    gain = per_text(plain - truncated, lengths)
    table.add_items("truncation_gain", gain.tolist(), unit="bits/byte", items=names, normaliser="bytes")
    lost = [float((1 - each.kept).mean()) for each in of_tokens]
    table.add_items("truncated_mass", lost, unit="probability", items=names, normaliser="tokens")


def _beside_counts(
    stage: StageContext, model: AskedModel, passages: list[Passage], of_tokens: list[TokenBits], table: MetricTable
) -> None:
    """Measure the network and counts of token pairs on the same tokens; counts see no token before the first."""
    counts = BigramCounts(_training_tokens(stage, model), model.network.vocabulary_size)
    encoded = [model.tokenizer.encode(passage.text) for passage in passages]
    spelled = np.array([sum(len(model.tokenizer.vocabulary[token]) for token in tokens[1:]) for tokens in encoded])
    network = np.array([each.plain[1:-1].sum() for each in of_tokens])
    bigram = bits(-np.array([float(counts.nats(torch.tensor(tokens)).sum()) for tokens in encoded]))
    for name, values in (("network", network), ("bigram", bigram)):
        table.add_items(
            "token_bits_per_byte",
            per_text(values, spelled).tolist(),
            unit="bits/byte",
            at={"model": name},
            items=[passage.name for passage in passages],
            normaliser="bytes",
        )


def _training_tokens(stage: StageContext, model: AskedModel) -> Tensor:
    """Return the encoded training documents, each with its end, (N,)."""
    documents = map(to_symbols, training_documents(text_directory(stage)))
    return encode_documents(documents, model.tokenizer, model.specials)
