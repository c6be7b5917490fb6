"""Measure the streams of an arm: the statistics of each corpus, the grammar, and what its tokens stand for."""

from __future__ import annotations

from components.metrics.tables import MetricTable
from flows.studies.analysis.corpora import read_corpus, reconstruction_gain, tokenizer_of
from flows.studies.analysis.grammar_measures import measure_grammar
from flows.studies.analysis.params import EvaluateParams
from flows.studies.analysis.scene_measures import measure_scenes
from flows.studies.analysis.statistics import CorpusStatistics
from flows.studies.context import StageContext


def evaluate(stage: StageContext) -> None:
    """Write the metrics of an arm, the points of its curves and the embeddings of its tokens."""
    params: EvaluateParams = stage.params
    table = MetricTable()
    statistics = CorpusStatistics(stage, table)
    for done, corpus in enumerate(params.corpora, start=1):
        tokenizer = tokenizer_of(stage, corpus)
        for order, tokens in read_corpus(stage, corpus, tokenizer).items():
            statistics.measure(corpus, order, tokens)
        if params.stream.startswith("image"):
            quality, above = reconstruction_gain(stage, corpus, tokenizer)
            at = {"corpus": corpus}
            table.add_items("reconstruction_psnr", quality.tolist(), unit="dB", at=at)
            table.add_items("psnr_above_cell_means", above.tolist(), unit="dB", at=at)
        if params.granularity_scenes and corpus == "shapes-64":
            measure_scenes(stage, table, tokenizer, corpus)
        if corpus == params.grammar_corpus:
            measure_grammar(stage, table, tokenizer)
        stage.progress(done, len(params.corpora))
    table.write(stage.output)
    statistics.write(stage.output)
