"""How well an induced grammar explains held-out sentences, beside models of single tokens and of pairs."""

from __future__ import annotations

from typing import Any

from components.analysis.grammar_induction import gain_rows, grammar_shape, sentence_nats
from components.bases import load_model
from components.language.count_models import UnigramCounts
from components.language.dirichlet_bigram import DirichletBigram
from components.metrics.tables import MetricTable
from flows.studies.analysis.params import EvaluateParams
from flows.studies.analysis.streams import sentences, torch_numbers
from flows.studies.analysis.train import GRAMMAR
from flows.studies.context import StageContext


def measure_grammar(stage: StageContext, table: MetricTable, tokenizer: Any) -> None:
    """Add the gains over the unigram model, and the shapes of the grammar's trees."""
    params: EvaluateParams = stage.params
    learned, _ = sentences(stage, tokenizer, params.sentences, held_out=False)
    held_out, names = sentences(stage, tokenizer, params.held_out_sentences, held_out=True)
    model = load_model(stage.inputs["train"] / GRAMMAR).to(stage.device)
    size, length = model.vocabulary_size, params.sentence_tokens
    nats = {
        "grammar": sentence_nats(model, held_out, torch_numbers(stage.seed, "latents"), samples=params.elbo_samples),
        "unigram": UnigramCounts(learned.flatten(), size).nats(held_out).sum(1),
        "bigram": DirichletBigram(learned, size).nats(held_out).sum(1),
    }
    for name, values in nats.items():
        table.add_items(
            "grammar_nats", (values / length).tolist(), unit="nats/token", at={"model": name}, items=names,
            normaliser="tokens",
        )  # fmt: skip
    for metric, name in (("gain", "grammar"), ("bigram_gain", "bigram")):
        rows = gain_rows(nats[name], nats["unigram"], length)
        table.add_items(metric, rows.tolist(), unit="%", items=names, normaliser="unigram perplexity")
    shape = grammar_shape(model, held_out[: params.shape_sentences])
    count = min(params.shape_sentences, len(held_out))
    table.add("rules_for_95", 100 * shape.rules_for_95, unit="%", samples=count, normaliser="rules")
    described = (
        ("tree_depth", shape.trees.depth, "rules"),
        ("right_branching", shape.trees.right_branching, "share"),
        ("left_branching", shape.trees.left_branching, "share"),
    )
    for metric, values, unit in described:
        table.add_items(metric, values.tolist(), unit=unit, items=names[:count])
