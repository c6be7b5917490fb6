"""Train the network of an arm: on paraphrases as the study does, or on translations in the byte pairs of a base."""

from __future__ import annotations

import json
import time

import torch

from components.bases import construct, save_model
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion import models
from flows.studies.discrete_diffusion import train as study
from flows.studies.discrete_diffusion.params import TrainParams


def train(stage: StageContext) -> None:
    """Write network and curves; a translator has the tokens, pairs and random streams of the base of its seed."""
    params: TrainParams = stage.params
    if params.task == "paraphrase":
        study.train(stage)
        return
    task = models.translations(stage)
    description = models.describe(params, task.words)
    torch.manual_seed(derive_seed(stage.seed, 1))
    model = construct(description)
    began = time.perf_counter()
    curves = study.fit_denoiser(stage, params, model, task.examples("train").items)
    timing = {"seconds": time.perf_counter() - began, "steps": params.steps}
    (stage.log / "timings.json").write_text(json.dumps(timing) + "\n")
    save_model(stage.output, model, description)
    curves.write(stage.output)
