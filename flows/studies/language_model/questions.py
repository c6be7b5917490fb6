"""Arithmetic questions as tokens, and their answers measured.

Letters: N questions, M answer tokens of all of them, V tokens of the vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.data import tables
from components.data.math_questions import FILE, SPLITS
from components.language.answering import (
    CHUNK,
    IGNORED,
    QuestionTokens,
    Rows,
    cross_entropy,
    question_tokens,
    right_aligned,
    take,
)
from components.language.number_lookup import NumberLookup
from components.metrics import numeric
from components.metrics.tables import MetricTable

ANSWER_MARK = "="
TRAIN, *TESTS = SPLITS


def read(directory: Path, split: str, share: float = 1.0) -> pl.DataFrame:
    """Read the questions of a split, or the first of each category."""
    found = tables.read(directory, FILE).filter(pl.col("split") == split)
    return found.filter(pl.int_range(pl.len()).over("category") < pl.len().over("category") * share)


def encode(frame: pl.DataFrame, tokenizer: Any, width: int | None) -> QuestionTokens:
    """Encode questions, each with a mark behind it, and answers, each with the end token.

    Args:
        frame: Columns question and answer.
        tokenizer: With `encode_all` and `end_token`.
        width: Tokens of a question, filled with spaces on its left; None leaves questions as long as they are.
    """
    asked = tokenizer.encode_all((frame["question"] + ANSWER_MARK).to_list())
    if width is not None:
        asked = right_aligned(asked, width, tokenizer.vocabulary.index(" "))
    return question_tokens(asked, tokenizer.encode_all(frame["answer"].to_list()), tokenizer.end_token)


def question_width(params: Any) -> int | None:
    """Return to how many tokens questions are filled up: an encoder-decoder needs no common place for answers."""
    return None if params.network == "t5_answering" else params.context - params.answer_tokens


def training_rows(directory: Path, params: Any, tokenizer: Any, network: Any) -> Rows:
    """Return the training questions as a network reads them; xVal takes the scale of its numbers from them."""
    tokens = encode(read(directory, TRAIN), tokenizer, question_width(params))
    if tokens.prompt_values is not None:
        pairs = ((tokens.prompts, tokens.prompt_values), (tokens.answers, tokens.answer_values))
        network.model.fit_scale(max(values[ids == tokenizer.number_token].abs().max().item() for ids, values in pairs))
    return network.arrange(tokens)


def training_medians(directory: Path) -> dict[str, float]:
    """Return the training median of each category: what a blind model answers."""
    medians = read(directory, TRAIN).group_by("category", maintain_order=True).agg(pl.col("value").median())
    return dict(medians.rows())


def score(table: MetricTable, frame: pl.DataFrame, texts: list[str], medians: dict[str, float]) -> None:
    """Measure the answers to the questions of one split.

    Args:
        table: Where to write.
        frame: The questions.
        texts: Answer to each.
        medians: Training median of each category.
    """
    asked = frame.with_columns(pl.Series("text", texts, dtype=pl.String))
    split = frame["split"][0]
    exact = numeric.exact_match(texts, frame["answer"].to_list())
    rate = float(exact.mean())
    variance = rate * (1 - rate) / len(exact)
    table.add("accuracy", rate, unit="share", at={"split": split}, samples=len(exact), variance=variance)
    for (category,), rows in asked.group_by("category", maintain_order=True):
        at = {"category": category, "split": split}
        truth, answered = rows["value"].to_numpy().astype(np.float64), rows["text"].to_list()
        predicted = numeric.parse_numbers(answered)
        blind = numeric.blind_error(truth, medians[category])
        items = rows["item"].to_list()
        error = numeric.normalised_error(predicted, truth, blind)
        table.add_items("nerr", error, unit="", at=at, items=items, normaliser="blind MAE")
        right = numeric.exact_match(answered, rows["answer"].to_list())
        table.add_items("exact_match", right, unit="share", at=at, items=items)
        count, lost = len(rows), numeric.unparsable_share(predicted)
        whole = {"at": at, "samples": count}
        table.add("unparsable_share", lost, unit="share", **whole)
        table.add("blind_mae", blind, unit="", **whole)
        if lost < 1:
            mae = float(np.nanmean(np.abs(predicted - truth)))
            table.add("mae", mae, unit="", masked_share=lost, **whole)
            table.add("r2", numeric.r2(predicted, truth), unit="", masked_share=lost, **whole)
        if lost < 0.5:
            table.add("median_error", numeric.median_absolute_error(predicted, truth), unit="", **whole)


@torch.no_grad()
def score_digits(
    table: MetricTable, network: Any, tokenizer: Any, tokens: QuestionTokens, frame: pl.DataFrame, examples: int
) -> pl.DataFrame:
    """Measure how far the predicted distributions over digits are from the right digits, given the right ones before.

    Args:
        table: Where to write, by category and by decimal place.
        network: An answerer.
        tokenizer: Its tokenizer; one whose number tokens are not the ten digits is measured by its likelihood only.
        tokens: The questions of one split, encoded.
        frame: The same questions.
        examples: Questions of each category whose first digits are returned.

    Returns:
        Rows of first digits: item, category, label and q, the probabilities of digits 0 to 9.
    """
    logits, label, row = _answer_logits(network, network.arrange(tokens))
    split = frame["split"][0]
    nats = float(cross_entropy(logits[None], label[None]))
    table.add("nats_per_token", nats, unit="nats/token", at={"split": split}, samples=len(label))
    if tokenizer.number_tokens.values != tuple(map(float, range(10))):
        return pl.DataFrame()
    lookup = NumberLookup(tokenizer.number_tokens, logits.shape[-1])
    digit, label = lookup.labels(label)
    q, y = lookup.distribution(logits[digit]).double(), label[digit].double()
    values = lookup.values.double()
    error = (q @ values - y).abs()
    found = pl.DataFrame(
        {
            "question": row[digit].numpy(),
            "label": y.numpy().astype(np.int8),
            "digit_error": error.numpy(),
            "digit_spread": ((q * (values - y[:, None]).abs()).sum(1) - error).numpy(),
            "q": pl.Series(q.float().numpy(), dtype=pl.Array(pl.Float32, len(values))),
        }
    ).with_columns(frame.select("item", "category")[row[digit].numpy()], rank=pl.int_range(pl.len()).over("question"))
    # The digits of an answer stand side by side, so what follows one says its place.
    found = found.with_columns(place=pl.len().over("question") - 1 - pl.col("rank"))
    for keys in (["category"], ["category", "place"]):
        for names, part in found.group_by(keys, maintain_order=True):
            at = {**dict(zip(keys, names, strict=True)), "split": split}
            for metric in ("digit_error", "digit_spread"):
                variance = float(part[metric].var() or 0.0) / len(part)
                table.add(metric, part[metric].mean(), unit="digits", at=at, samples=len(part), variance=variance)
    first = found.filter(pl.col("rank") == 0)
    return first.filter(pl.int_range(pl.len()).over("category") < examples).select("item", "category", "label", "q")


def _answer_logits(network: Any, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (M, V) and labels (M,) of all answer tokens, and the question that each belongs to, on the CPU."""
    found = []
    device = next(network.parameters()).device
    for chosen in torch.arange(len(rows["lengths"])).split(CHUNK):
        part = {name: entry.to(device) for name, entry in take(rows, chosen).items()}
        labelled = part["labels"] != IGNORED
        row = chosen[labelled.nonzero()[:, 0].cpu()]
        found.append((network(part)[labelled].float().cpu(), part["labels"][labelled].cpu(), row))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
