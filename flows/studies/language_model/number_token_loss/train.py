"""Train an arm: cross entropy on the answer, with or without the number token loss, or a regression head."""

from __future__ import annotations

import json
import time

import torch

from components.language.answering import draw
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.language_model import networks, number_rows, questions
from flows.studies.language_model.number_token_loss.params import TrainParams
from flows.studies.language_model.objectives import AnswerObjective, regression_objective


def train(stage: StageContext) -> None:
    """Write tokenizer, network and curves; the time of the training goes into the log.

    The seed decides the initial weights, the order of questions and, where they are shuffled, the values of digits.
    In the regression task it also decides the table.
    """
    params: TrainParams = stage.params
    base = stage.inputs[f"bases/{params.initial}"] if params.initial else None
    tokenizer = networks.make_tokenizer(params, base)
    torch.manual_seed(derive_seed(stage.seed, 1))
    network = networks.make_network(params, tokenizer, base)
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    if params.task == "table":
        rows = number_rows.training_rows(directory, stage.seed, tokenizer, network)
    else:
        rows = questions.training_rows(directory, params, tokenizer, network)
    regression = params.network == "regression_head"
    began = time.perf_counter()
    curves = fit(
        network,
        lambda step, generator: draw(rows, params.batch, generator),
        regression_objective if regression else AnswerObjective(params, tokenizer, stage.seed, stage.device),
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token", "cross_entropy": "nats/token"},
    )
    timing = {"seconds": time.perf_counter() - began, "steps": params.steps}
    (stage.log / "timings.json").write_text(json.dumps(timing) + "\n")
    networks.save(stage.output, tokenizer, network)
    curves.write(stage.output)
