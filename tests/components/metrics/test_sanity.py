"""Every metric passes its sanity gates, and no metric is without one."""

import importlib
import inspect
import pkgutil

import pytest

import components.metrics
from components.metrics.sanity import gates

# What is no score of anything: readers, spellings, statistics of other scores, parts of a metric that is gated.
NO_SCORE = {
    "metrics.bits_per_byte.bits",
    "metrics.bits_per_byte.per_text",
    "metrics.codebook.code_shares",
    "metrics.frechet.leave_group_out",
    "metrics.latency.latency",
    "metrics.numeric.blind_error",
    "metrics.numeric.decimal_value",
    "metrics.numeric.parse_numbers",
    "metrics.rouge.common_subsequence",
    "metrics.speech_quality.pitch",
    "metrics.stats.grouped_jackknife",
    "metrics.stats.jackknife_influence",
    "metrics.stats.jackknife_variance",
    "metrics.tables.condition",
    "metrics.tables.write_parquet",
    "metrics.text_generation.bleu_counts",
    "metrics.text_generation.bleu_of",
    "metrics.text_generation.chrf_counts",
    "metrics.text_generation.chrf_of",
    "metrics.text_generation.corpus_influence",
    "metrics.verification.all_pairs",
    "metrics.word_error.character_errors",
    "metrics.word_error.word_errors",
}


@pytest.mark.parametrize("gate", gates(), ids=lambda gate: f"{gate.metric.rpartition('.')[2]}: {gate.given}")
def test_a_known_input_scores_what_it_must(gate):
    score = gate.score()
    assert gate.low <= score <= gate.high, f"{gate.metric} of {gate.given} is {score}, must be {gate.must}"
    assert gate.holds()


def test_a_gate_names_a_function_that_exists():
    for gate in gates():
        module, _, name = gate.metric.rpartition(".")
        assert callable(getattr(importlib.import_module(f"components.{module}"), name))


def test_every_function_of_components_metrics_has_a_gate():
    functions = set()
    for found in pkgutil.iter_modules(components.metrics.__path__):
        if found.name == "sanity":
            continue
        module = importlib.import_module(f"components.metrics.{found.name}")
        functions |= {
            f"metrics.{found.name}.{name}"
            for name, function in inspect.getmembers(module, inspect.isfunction)
            if function.__module__ == module.__name__ and not name.startswith("_")
        }
    missing = functions - {gate.metric for gate in gates()} - NO_SCORE
    assert missing == set(), "add a gate to components/metrics/sanity.py: what must the metric score on a known input?"


def test_listing_the_gates_computes_nothing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert len(gates()) > 30
