"""Decode the test inputs of an arm and measure what comes out, and what it cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.diffusion.likelihood import BoundEstimator
from components.diffusion.noise import AbsorbingNoise
from components.diffusion.samplers import Sampled
from components.metrics.tables import MetricTable, write_parquet
from components.metrics.text_generation import (
    bleu_counts,
    bleu_of,
    chrf_counts,
    chrf_of,
    corpus_influence,
    distinct_share,
    repeated_bigrams,
)
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion import models
from flows.studies.discrete_diffusion.decoders import Decoder, Setting
from flows.studies.discrete_diffusion.params import EvaluateParams
from flows.studies.discrete_diffusion.sources import Examples

OUTPUTS_FILE = "outputs.parquet"
WRONG_TIMES = 20
_KEPT = 24
_ABLATION = {
    "steps": (4, 8),
    "conditional": (False, True),
    "decay": ("linear", "cosine"),
    "randomness": (0.0, 1.0),
}


def evaluate(stage: StageContext) -> None:
    """Write the metrics of one arm, and some of its outputs."""
    params: EvaluateParams = stage.params
    decodable = models.load(stage)
    decoder = Decoder(decodable, params, derive_seed(stage.seed, 2))
    test = decodable.task.examples("test", params.inputs)
    validation = decodable.task.examples("validation", params.validation_inputs)
    table, kept = MetricTable(), []
    measure = _Paraphrasing(decoder, table) if params.task == "paraphrase" else _Translating(decoder, table)
    counts = (int(test.lengths.max()),) if params.decoder == "left_to_right" else params.decode_steps
    for done, steps in enumerate(counts, start=1):
        setting = decoder.chosen(steps, validation)
        sampled = decoder.decode(setting, test)
        at = {"steps": steps}
        measure.quality(sampled, test, at)
        _cost(sampled, test, table, at)
        _setting(setting, params, table, at)
        sources, outputs = (measure.texts(side[:_KEPT]) for side in (test.items.source, sampled.tokens))
        kept += [(steps, *row) for row in zip(test.names[:_KEPT], sources, outputs, strict=True)]
        if steps == max(counts):
            measure.wrong_source(setting, test, at)
        if steps in params.sampled_steps and params.decoder != "left_to_right":
            measure.sampled(setting, test, at)
        stage.progress(done, len(counts))
    measure.further(setting, test)
    if isinstance(decoder.noise, AbsorbingNoise) and params.objective != "causal":
        _bound(decoder, test, params, stage.seed, table)
    table.write(stage.output)
    frame = pl.DataFrame(
        kept, schema={"steps": pl.Int64, **dict.fromkeys(("input", "source", "text"), pl.String)}, orient="row"
    )
    write_parquet(frame, stage.output / OUTPUTS_FILE)


class _Paraphrasing:
    """Measures captions: valid or not, exactly."""

    def __init__(self, decoder: Decoder, table: MetricTable) -> None:
        self.decoder, self.table, self.task = decoder, table, decoder.task
        self._valid: dict[int, np.ndarray] = {}

    def texts(self, outputs: Tensor) -> list[str]:
        return [" ".join(self.task.text(output)) for output in outputs.tolist()]

    def _add(self, metric: str, values: Sequence[float] | np.ndarray, test: Examples, at: dict) -> None:
        self.table.add_items(metric, values, unit="share", at=at, items=test.names)

    def quality(self, sampled: Sampled, test: Examples, at: dict) -> None:
        valid = self._valid[at["steps"]] = self.task.valid(sampled.tokens, test)
        self._add("validity", valid, test, at)
        said = [self.task.text(output) for output in sampled.tokens.tolist()]
        self._add("grammatical", [self.task.task.parses(words) for words in said], test, at)
        _repetition(said, test, self.table, at)

    def wrong_source(self, setting: Setting, test: Examples, at: dict) -> None:
        sampled = self.decoder.decode(setting, test, test.items.source[test.wrong])
        wrong = self.task.valid(sampled.tokens, test)
        self._add("validity_wrong_source", wrong, test, at)
        self._add("source_margin", self._valid[at["steps"]] - WRONG_TIMES * wrong.astype(float), test, at)

    def sampled(self, setting: Setting, test: Examples, at: dict) -> None:
        warm = Setting(**{**vars(setting), "temperature": 1.0})
        self._add("validity_sampled", self.task.valid(self.decoder.decode(warm, test).tokens, test), test, at)

    def further(self, setting: Setting, test: Examples) -> None:
        at = {"steps": setting.steps}
        if self.decoder.params.decoder == "routed":
            sampled = self.decoder.decode_predicted_lengths(setting, test)
            self._add("validity_predicted_length", self.task.valid(sampled.tokens, test), test, at)
        if self.decoder.params.ablation:
            for values in itertools.product(*_ABLATION.values()):
                each = Setting(**dict(zip(_ABLATION, values, strict=True)))
                at = dict(zip(_ABLATION, map(_plain, values), strict=True))
                valid = self.task.valid(self.decoder.decode(each, test).tokens, test)
                self._add("validity_ablation", valid, test, at)


class _Translating:
    """Measures translations: corpus scores as rows of a jackknife, so that arms pair by sentence."""

    def __init__(self, decoder: Decoder, table: MetricTable) -> None:
        self.decoder, self.table, self.task = decoder, table, decoder.task

    def texts(self, outputs: Tensor) -> list[str]:
        return [" ".join(self.task.text(output)) for output in outputs.tolist()]

    def quality(self, sampled: Sampled, test: Examples, at: dict) -> None:
        said = [self.task.text(output) for output in sampled.tokens.tolist()]
        self._add("bleu", corpus_influence(bleu_of, bleu_counts(said, test.truth)), test, at)
        joined = ([" ".join(words) for words in side] for side in (said, test.truth))
        self._add("chrf", corpus_influence(chrf_of, chrf_counts(*joined)), test, at)
        _repetition(said, test, self.table, at)

    def _add(self, metric: str, values: np.ndarray, test: Examples, at: dict) -> None:
        self.table.add_items(metric, values, unit="percent", at=at, items=test.names)

    def wrong_source(self, setting: Setting, test: Examples, at: dict) -> None:
        sampled = self.decoder.decode(setting, test, test.items.source[test.wrong])
        said = [self.task.text(output) for output in sampled.tokens.tolist()]
        self._add("bleu_wrong_source", corpus_influence(bleu_of, bleu_counts(said, test.truth)), test, at)

    def sampled(self, setting: Setting, test: Examples, at: dict) -> None:
        """Leave predictions at temperature 1 out: they are a matter of the paraphrase task."""

    def further(self, setting: Setting, test: Examples) -> None:
        """Measure nothing else."""


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _repetition(said: list[list[str]], test: Examples, table: MetricTable, at: dict) -> None:
    if any(len(words) > 1 for words in said):
        table.add(
            "distinct_bigrams", distinct_share(said), unit="share", at=at, samples=len(said), normaliser="bigrams"
        )
    repeated = [repeated_bigrams(words) for words in said]
    table.add_items("repeated_bigrams", repeated, unit="share", at=at, items=test.names, normaliser="bigrams")


def _cost(sampled: Sampled, test: Examples, table: MetricTable, at: dict) -> None:
    for metric, unit, values in (
        ("network_calls", "calls", sampled.calls),
        ("positions_computed", "positions", sampled.positions),
    ):
        table.add_items(metric, values.tolist(), unit=unit, at=at, items=test.names)


def _setting(setting: Setting, params: EvaluateParams, table: MetricTable, at: dict) -> None:
    samples = params.validation_inputs
    if params.decoder == "ancestral":
        table.add("chosen_offset", setting.offset, unit="steps", at=at, samples=samples)
    if params.decoder == "routed":
        table.add("chosen_cosine", setting.decay == "cosine", unit="", at=at, samples=samples)


@torch.no_grad()
def _bound(decoder: Decoder, test: Examples, params: EvaluateParams, seed: int, table: MetricTable) -> None:
    """Bound the likelihood of the test targets; padding is neither masked nor counted, the source is the context."""
    device = decoder.model.network.embedding.weight.device
    estimator = BoundEstimator(draws=params.bound_draws)
    source, target = (side.to(device) for side in test.items)
    bound = estimator.estimate(
        decoder.model.nats(source, target),
        target,
        decoder.noise,
        decoder.grid.schedule,
        torch.Generator(device).manual_seed(derive_seed(seed, 3)),
        predicted=decoder.model.present(target),
    )
    _, variance = bound.per_token()
    padded = 1 - float(decoder.model.present(target).double().mean())
    items = bound.nats * len(test) / float(bound.tokens.sum())
    table.add_items(
        "bound", items.tolist(), unit="nats/token", items=test.names, normaliser="tokens", masked_share=padded
    )
    table.add("bound_error", variance**0.5, unit="nats/token", samples=bound.draws)
