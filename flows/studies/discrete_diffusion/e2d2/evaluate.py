"""Measure a trained network: likelihood, costs, and what it writes in how many evaluations; or the speed of several.

Letters: B sequences, N tokens that are predicted, S tokens of a block, T denoising steps of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.bases import load_model
from components.language.pretrained import LanguageModel, load_language_model
from components.metrics.tables import MetricTable, write_parquet
from components.metrics.text_generation import repeated_bigrams
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion.e2d2 import bounds, costs, speed, tasks, writing
from flows.studies.discrete_diffusion.e2d2.params import EvaluateParams
from flows.studies.discrete_diffusion.e2d2.tasks import Captions, Characters, Examples
from flows.studies.discrete_diffusion.e2d2.writing import Setting, Written

WRITTEN = "written.parquet"
WRITTEN_SCHEMA = {"setting": pl.String, "prompt": pl.String, "text": pl.String}
JUDGE = "bases/judge-char-lm"
_WRITING = 8  # random stream of this stage
_SHOWN = 8  # texts of each setting that are kept
_ROWS = 64


def evaluate(stage: StageContext) -> None:
    """Write the metrics of an arm, and some of what it wrote."""
    params: EvaluateParams = stage.params
    if params.measure == "speed":
        speed.measure(stage)
        return
    task = tasks.task_of(stage)
    network = load_model(stage.inputs["train"]).to(stage.device)
    examples = task.examples(params.test_windows)
    table, kept = MetricTable(), []
    bounds.add_bounds(table, stage, task, network, examples)
    costs.add_costs(table, params, task, network)
    settings = writing.settings_of(params)
    for done, setting in enumerate(settings):
        stage.progress(done, len(settings))
        if isinstance(task, Captions):
            _captions(table, stage, task, network, examples, setting, kept)
        else:
            _texts(table, stage, task, network, examples, setting, kept)
    table.write(stage.output)
    write_parquet(pl.DataFrame(kept, schema=WRITTEN_SCHEMA, orient="row"), stage.output / WRITTEN)


def _write(
    stage: StageContext, task: Any, network: Any, prompt: Tensor, setting: Setting, temperature: float
) -> Written:
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _WRITING))
    prompt = prompt.to(stage.device)
    return writing.write(stage.params, task, network, prompt, setting, temperature, generator)


def _evaluations(table: MetricTable, params: EvaluateParams, setting: Setting, written: Written) -> None:
    each = float(written.evaluations.double().mean()) / params.length
    samples = len(written.tokens)
    table.add("network_evaluations", each, unit="calls/token", at=setting.at, samples=samples, normaliser="tokens")
    if setting.one_by_one:
        table.add("reading_calls", written.readings, unit="calls", samples=1)
        table.add("denoising_calls", written.denoisings, unit="calls", samples=1)


def _captions(
    table: MetricTable,
    stage: StageContext,
    task: Captions,
    network: Any,
    examples: Examples,
    setting: Setting,
    kept: list[tuple[str, str, str]],
) -> None:
    sources = {"own": examples.prompt}
    if setting.one_by_one:
        sources["wrong"] = examples.prompt[examples.other]
    for source, prompt in sources.items():
        written = _write(stage, task, network, prompt, setting, 0.0)
        valid = task.valid(written.tokens, examples.truth).astype(float)
        at = {**setting.at, "source": source}
        table.add_items("caption_validity", valid, unit="share", at=at, items=examples.names)
        if source == "own":
            _evaluations(table, stage.params, setting, written)
            kept += [
                (setting.name, " ".join(pair.source), " ".join(task.caption(row)))
                for pair, row in zip(examples.truth[:_SHOWN], written.tokens[:_SHOWN].tolist(), strict=True)
            ]


def _texts(
    table: MetricTable,
    stage: StageContext,
    task: Characters,
    network: Any,
    examples: Examples,
    setting: Setting,
    kept: list[tuple[str, str, str]],
) -> None:
    params: EvaluateParams = stage.params
    judge = load_language_model(stage.inputs[JUDGE])
    written = _write(stage, task, network, task.prompts(params.samples), setting, params.temperature)
    _evaluations(table, params, setting, written)
    nats = _judged(judge, task, written.tokens)
    table.add_items("judged_nats", nats, unit="nats/token", at=setting.at, normaliser="tokens")
    repeated = [repeated_bigrams(row) for row in written.tokens.tolist()]
    table.add_items("repeated_bigrams", repeated, unit="share", at=setting.at)
    kept += [(setting.name, "", task.decode(row)) for row in written.tokens[:_SHOWN].tolist()]
    if setting.one_by_one:
        of_text = _judged(judge, task, examples.tokens)
        table.add_items("judged_nats_of_text", of_text, unit="nats/token", items=examples.names, normaliser="tokens")


@torch.no_grad()
def _judged(judge: LanguageModel, task: Characters, tokens: Tensor) -> np.ndarray:
    """Return -ln p of each text by the judge, per character but the first, which nothing precedes, (B,)."""
    ids = torch.tensor([judge.tokenizer.encode(task.decode(row)) for row in tokens.tolist()])
    nats = []
    for rows in ids.split(_ROWS):
        log_p = judge.model.along(rows[:, :-1])
        nats.append(-log_p.gather(-1, rows[..., None])[:, 1:, 0].mean(1))
    return torch.cat(nats).numpy()
