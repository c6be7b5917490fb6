"""Ask an arm: greedy answers to the test questions, or the expected value of each test row."""

from __future__ import annotations

from pathlib import Path

import torch

from components.metrics import numeric
from components.metrics.tables import MetricTable, write_parquet
from flows.studies.context import StageContext
from flows.studies.language_model import networks, number_rows, questions
from flows.studies.language_model.answer_figures import DIGITS_FILE
from flows.studies.language_model.number_token_loss.params import EvaluateParams


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm, and of a token model the digit distributions that the figures show."""
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    table = MetricTable()
    task = _questions if stage.params.task == "questions" else _table
    task(stage, directory, table)
    table.write(stage.output)


def _questions(stage: StageContext, directory: Path, table: MetricTable) -> None:
    params: EvaluateParams = stage.params
    medians = questions.training_medians(directory)
    trained = params.predictor == "trained"
    if trained:
        tokenizer, network = networks.load(params, stage.inputs["train"], stage.device)
    for split in questions.TESTS:
        frame = questions.read(directory, split, params.test_share)
        if not trained:
            texts = [f"{medians[category]:g}" for category in frame["category"].to_list()]
            questions.score(table, frame, texts, medians)
            continue
        tokens = questions.encode(frame, tokenizer, questions.question_width(params))
        wanted = torch.tensor(tokenizer.number_tokens.ids, dtype=torch.int64)
        answers = network.answer(tokens, params.answer_tokens, wanted)
        values = None if answers.values is None else answers.values.numpy()
        questions.score(table, frame, tokenizer.decode_all(answers.tokens.numpy(), values), medians)
        digits = questions.score_digits(table, network, tokenizer, tokens, frame, params.examples)
        if split == questions.TESTS[0] and len(digits):
            write_parquet(digits, stage.output / DIGITS_FILE)


def _table(stage: StageContext, directory: Path, table: MetricTable) -> None:
    params: EvaluateParams = stage.params
    rows = number_rows.read(directory, stage.seed, "test").first(params.test_share)
    if params.predictor == "trained":
        tokenizer, network = networks.load(params, stage.inputs["train"], stage.device)
        predictions = number_rows.predictions(network, tokenizer, rows)
    else:
        known = number_rows.read(directory, stage.seed, "train")
        predictions = {"rmse": number_rows.reference(params.predictor, known, rows)}
    for metric, predicted in predictions.items():
        table.add_items(metric, numeric.rmse_rows(predicted, rows.targets), unit="", items=rows.items)
