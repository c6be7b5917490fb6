"""Tables of numbers as tokens: a row is a question, its target the answer, both spelled in two digits.

    82 07 45 ... =  ->  63

Letters: N rows, F numbers of a row, A digits of a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from components.data import number_tables, tables
from components.language.answering import QuestionTokens, Rows, question_tokens
from components.metrics.numeric import decimal_value
from flows.studies.language_model.questions import ANSWER_MARK

DIGITS = 2
DIABETES = "diabetes.parquet"
_HIGHEST = 10**DIGITS - 1


@dataclass(frozen=True)
class NumberRows:
    """Rows of one split.

    Attributes:
        inputs: (N, F) int64, 0 to 99.
        targets: (N,) float64, 0 to 99.
        items: Name of each row.
    """

    inputs: np.ndarray
    targets: np.ndarray
    items: list[str]

    def first(self, share: float) -> NumberRows:
        """Return the first rows."""
        count = max(2, round(len(self.items) * share))
        return NumberRows(self.inputs[:count], self.targets[:count], self.items[:count])


def read(directory: Path, seed: int, split: str) -> NumberRows:
    """Read a split of the table of a seed, or of the one table there is (diabetes)."""
    if (directory / DIABETES).is_file():
        return _read_diabetes(directory, split)
    found = tables.read(directory, number_tables.FILE).filter(pl.col("table") == seed)
    if found.is_empty():
        raise number_tables.NumberTablesError(
            f"{directory / number_tables.FILE} has no table {seed}. Every seed needs its own: generate the data set "
            "with more tables, or use a smaller seed."
        )
    found = found.filter(pl.col("split") == split)
    items = [f"{seed}:{row}" for row in found["row"].to_list()]
    return NumberRows(found["inputs"].to_numpy().astype(np.int64), found["target"].to_numpy().astype(np.float64), items)


def _read_diabetes(directory: Path, split: str) -> NumberRows:
    """Scale every column of the diabetes table to 0 .. 99 by its range over the training rows."""
    known, found = (tables.read_split(directory, name) for name in ("train", split))
    low, high = (edge(_columns(known), axis=0) for edge in (np.min, np.max))
    scaled = np.clip(np.round((_columns(found) - low) / (high - low) * _HIGHEST), 0, _HIGHEST)
    return NumberRows(scaled[:, :-1].astype(np.int64), scaled[:, -1], [str(index) for index in found["index"]])


def _columns(frame: pl.DataFrame) -> np.ndarray:
    return np.column_stack([frame["features"].to_numpy(), frame["target"].to_numpy()])


def encode(rows: NumberRows, tokenizer: Any) -> QuestionTokens:
    """Encode rows; all questions are equally long and so are all answers, which therefore have no end token."""
    asked = _spell(rows.inputs) + ANSWER_MARK
    answers = _spell(rows.targets.astype(np.int64)[:, None])
    return question_tokens(tokenizer.encode_all(asked.to_list()), tokenizer.encode_all(answers.to_list()), None)


def _spell(numbers: np.ndarray) -> pl.Series:
    frame = pl.DataFrame(numbers, schema=[str(column) for column in range(numbers.shape[1])])
    spelled = pl.all().cast(pl.String).str.zfill(DIGITS)
    return frame.select(pl.concat_str(spelled).alias("text"))["text"]


def training_rows(directory: Path, seed: int, tokenizer: Any, network: Any) -> Rows:
    """Return the training split as a network reads it; a regression head takes its standardisation from it."""
    table = read(directory, seed, "train")
    tokens = encode(table, tokenizer)
    if not _is_regressor(network):
        return network.arrange(tokens)
    targets = torch.from_numpy(table.targets)
    network.standardise(targets)
    return {"inputs": tokens.prompts, "targets": targets.float(), "lengths": tokens.prompt_lengths}


@torch.no_grad()
def predictions(network: Any, tokenizer: Any, rows: NumberRows) -> dict[str, np.ndarray]:
    """Return a network's values of the targets, (N,) float64, by the metric that they are scored under.

    A token model is read twice along its greedy answer: `rmse` the expected value
    `sum_place 10^place E_q[v]`, q the probabilities of digits at that place behind the likeliest ones before it, and
    `greedy_rmse` the likeliest digits.
    """
    tokens = encode(rows, tokenizer)
    if _is_regressor(network):
        return {"rmse": network(tokens.prompts.to(network.head.weight.device)).double().cpu().numpy()}
    logits = network.answer(tokens, DIGITS, torch.tensor(tokenizer.number_tokens.ids)).logits.double()
    values = torch.tensor(tokenizer.number_tokens.values, dtype=torch.float64)
    digits = {"rmse": logits.softmax(-1) @ values, "greedy_rmse": values[logits.argmax(-1)]}
    return {metric: decimal_value(found.numpy()) for metric, found in digits.items()}


def reference(predictor: str, known: NumberRows, rows: NumberRows) -> np.ndarray:
    """Return what needs no network: the mean of the known targets ("constant"), or linear ridge regression ("ridge").

    Args:
        predictor: "constant" or "ridge".
        known: Training rows.
        rows: Rows whose targets are predicted, (N,) float64.
    """
    if predictor == "constant":
        return np.full(len(rows.items), known.targets.mean())
    from sklearn.linear_model import Ridge

    return Ridge().fit(known.inputs, known.targets).predict(rows.inputs)


def _is_regressor(network: Any) -> bool:
    return hasattr(network, "standardise")
