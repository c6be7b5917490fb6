"""The stages of visual-token-language at the smoke profile, and what they must say where the answer is known."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.analysis.grammar_induction import CompoundPCFG
from components.analysis.token_corpus import TokenCorpus
from components.data import tables
from components.metrics.tables import MetricTable
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger.judge import judge
from flows.studies.analysis import corpora, scene_measures, standin, streams
from flows.studies.analysis.evaluate import evaluate
from flows.studies.analysis.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.analysis.statistics import CorpusStatistics
from flows.studies.analysis.train import grammar_description, train
from flows.studies.analysis.visual_token_language.judge import derive
from flows.studies.context import JudgeContext, StageContext

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("visual-token-language")
VARIANT, SEED = PAPER.canonical, 0


@dataclass
class Runs:
    inputs: dict[str, Path]
    trainings: dict[str, Path]
    evaluations: dict[str, Path]

    def metrics(self, arm: str) -> pl.DataFrame:
        return pl.read_parquet(self.evaluations[arm] / "metrics.parquet")

    def values(self, arm: str, metric: str, at: str = "") -> list[float]:
        return self.metrics(arm).filter(pl.col("metric") == metric, pl.col("at") == at)["value"].to_list()


def context(params, inputs, output=Path("/nowhere"), arm="arm", kind="evaluate", seed=SEED) -> StageContext:
    parts = (output / name for name in ("run", "log", "checkpoint"))
    return StageContext(kind, PAPER.slug, VARIANT, arm, seed, "smoke", params, inputs, *parts)


def run_stage(kind: str, arm: str, inputs: dict[str, Path], output: Path) -> Path:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    reset(SEED)
    stage = context(resolve(PAPER, VARIANT, arm, "smoke", kind), inputs, output, arm, kind)
    {"train": train, "evaluate": evaluate}[kind](stage)
    return output / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    inputs = {}
    for kind, names, make in (
        ("data", PAPER.variants[VARIANT].data, standin.make),
        ("bases", PAPER.variants[VARIANT].bases, standin.make_base),
    ):
        for name in names:
            inputs[f"{kind}/{name}"] = root / kind / name
            inputs[f"{kind}/{name}"].mkdir(parents=True)
            make(name, inputs[f"{kind}/{name}"])
    trainings, evaluations = {}, {}
    for arm, declared in PAPER.arms_of(VARIANT).items():
        given = dict(inputs)
        if declared.trains:
            given["train"] = trainings[arm] = run_stage("train", arm, inputs, root / f"train-{arm}")
        evaluations[arm] = run_stage("evaluate", arm, given, root / f"evaluate-{arm}")
    return Runs(inputs, trainings, evaluations)


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs):
    for arm in runs.evaluations:
        for metric, unit in runs.metrics(arm).select("metric", "unit").unique().rows():
            assert METRICS[metric].unit == unit, metric


@pytest.fixture(scope="module")
def judged(runs, tmp_path_factory) -> tuple[Path, dict[tuple[str, int], MetricTable]]:
    """The folder that the judge wrote, and the metrics that it derived."""
    output, derived = tmp_path_factory.mktemp("judged"), {}
    evaluations = {(arm, SEED): run for arm, run in runs.evaluations.items()}
    trainings = {(arm, SEED): run for arm, run in runs.trainings.items()}
    stage = JudgeContext(PAPER, VARIANT, "smoke", evaluations, trainings, output)
    judge(stage, {"git_commit": "b" * 40, "machine": {}}, lambda stage: derived.update(derive(stage)) or derived)
    return output, derived


def test_every_claim_finds_what_it_names_and_the_figures_are_drawn_with_captions(judged):
    output, derived = judged
    record = json.loads((output / "verdicts.json").read_text())
    assert [claim["id"] for claim in record["claims"]] == [claim.id for claim in PAPER.claims]
    assert all(claim["tests"] for claim in record["claims"])
    drawn = {path.stem for path in (output / "figures").iterdir()}
    assert drawn == {"ranks", "growth", "benford", "grammar", "granularity", "alignment"}
    assert all("<dc:title>" in path.read_text() for path in (output / "figures").iterdir())
    for table in derived.values():
        for metric, unit in table.frame().select("metric", "unit").unique().rows():
            assert METRICS[metric].unit == unit, metric


def test_the_gain_from_order_is_the_difference_of_gains_on_the_same_sentences(runs, judged):
    found = judged[1]["text_wordpiece", SEED].frame()
    rows = found.filter(pl.col("metric") == "order_gain")["value"]
    gains = [np.array(runs.values(arm, "gain")) for arm in ("text_wordpiece", "text_shuffled")]
    assert rows.to_list() == pytest.approx((gains[0] - gains[1]).tolist())
    assert rows.mean() == pytest.approx(gains[0].mean() - gains[1].mean())


def test_shuffled_streams_have_the_unigram_statistics_of_the_ordered_ones_exactly(runs):
    for metric in ("entropy", "normalised_entropy", "huffman_saving", "live_types"):
        one, other = (runs.values(arm, metric, "corpus=cifar10") for arm in ("visual_vq", "visual_shuffled"))
        assert one == other, metric
    for metric in ("benford_mad", "rank_curvature"):
        one, other = (runs.values(arm, metric, "corpus=cifar10,n=1") for arm in ("visual_vq", "visual_shuffled"))
        assert one == other, metric
    one, other = (
        runs.values(arm, "conditional_entropy", "corpus=cifar10,n=2") for arm in ("visual_vq", "visual_shuffled")
    )
    assert one != other


@pytest.mark.parametrize("arm", ["text_shuffled", "visual_kmeans"])
def test_a_stage_gives_the_same_bytes_twice(runs, arm, tmp_path):
    again = run_stage("train", arm, runs.inputs, tmp_path / "train")
    evaluated = run_stage("evaluate", arm, {**runs.inputs, "train": again}, tmp_path / "evaluate")
    for first, second in ((runs.trainings[arm], again), (runs.evaluations[arm], evaluated)):
        files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)


def test_random_sources_are_measured_as_their_laws_say(tmp_path):
    params = EvaluateParams(
        stream="random", corpora=("uniform", "zipf"), vocabulary_size=512, tokens=100_000, resamples=20, orders=2,
        longest_gram=2, embedding_dim=0,
    )  # fmt: skip
    stage, table = context(params, {}), MetricTable()
    statistics = CorpusStatistics(stage, table)
    for law in params.corpora:
        statistics.measure(law, "raster", corpora.read_corpus(stage, law, None)["raster"])
    found = {(metric, at): value for metric, at, value in table.frame().select("metric", "at", "value").rows()}
    assert found["entropy", "corpus=uniform"] == pytest.approx(9, abs=0.002)
    assert found["huffman_saving", "corpus=uniform"] == pytest.approx(0, abs=0.5)
    assert found["share_seen_early", "corpus=uniform"] == pytest.approx(1 - np.exp(-2000 / 512), abs=0.01)
    shares = corpora.law_shares(params, "zipf")
    assert found["entropy", "corpus=zipf"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=0.02)
    assert found["zipf_parameter", "corpus=zipf,law=zipf,n=1"] == pytest.approx(1.2, abs=0.02)
    assert found["bic_excess", "corpus=zipf,law=zipf,n=1"] == 0
    # Nothing depends on what stands before: of independent tokens both entropies are the same.
    assert found["conditional_entropy", "corpus=zipf,n=2"] == pytest.approx(found["entropy", "corpus=zipf"], abs=0.6)


def test_crops_are_squares_read_row_by_row():
    grid = torch.arange(16).view(1, 4, 4)
    assert streams.crops(grid, 4).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert streams.crops(grid, 16).tolist() == [list(range(16))]
    with pytest.raises(streams.StreamError, match="the square of at most 4"):
        streams.crops(grid, 25)
    with pytest.raises(streams.StreamError, match="expected the square"):
        streams.crops(grid, 5)


def test_no_text_that_is_measured_was_learned_from(runs):
    params = TrainParams(stream="text", corpora=("multi30k-en", "wikitext2"), dictionary_documents=30)
    stage = context(params, runs.inputs, kind="train")
    frame = tables.read(runs.inputs["data/multi30k"], "multi30k.parquet", ["split", "en"])
    training = frame.filter(split="train")["en"].to_list()
    assert streams.texts(stage, "multi30k-en", "learn") == training[:30]
    assert streams.texts(stage, "multi30k-en", "corpus") == training[30:]
    assert streams.texts(stage, "multi30k-en", "held_out") == frame.filter(pl.col("split") != "train")["en"].to_list()
    parts = [streams.texts(stage, "wikitext2", part) for part in ("learn", "corpus")]
    assert [len(part) for part in parts] == [40, 40]
    assert not any("=" in text for part in parts for text in part)
    with pytest.raises(streams.StreamError, match="none is left"):
        streams.texts(stage, "wikitext2", "held_out")


def test_a_corpus_has_exactly_as_many_tokens_as_asked_and_its_linearisations_the_same_images(runs):
    params = resolve(PAPER, VARIANT, "visual_vq", "smoke", "evaluate")
    stage = context(params, runs.inputs)
    read = corpora.read_corpus(stage, "cifar10", corpora.tokenizer_of(stage, "cifar10"))
    assert list(read) == ["raster", "column_major", "hilbert"]
    assert {len(corpus.tokens) for corpus in read.values()} == {params.tokens}
    whole = [corpus.document_tokens[0] for corpus in read.values()]
    assert len(whole[0]) == 64
    grid = whole[0].reshape(8, 8)
    assert np.array_equal(grid.T.ravel(), whole[1])
    assert sorted(whole[2].tolist()) == sorted(whole[0].tolist())
    more = context(params.model_copy(update={"tokens": 64 * 100}), runs.inputs)
    with pytest.raises(streams.StreamError, match="set it to at most"):
        corpora.read_corpus(more, "cifar10", corpora.tokenizer_of(more, "cifar10"))


def test_labels_of_cells_are_those_of_the_scenes(runs):
    columns = ["scene", "image", "mask", "part", "objects"]
    frame = tables.read_split(runs.inputs["data/shapes-64"], "test", columns)
    labels, segments = scene_measures.labels_of(frame, 64)
    shapes = sorted({each["shape"] for objects in frame["objects"] for each in objects})
    for scene, objects in enumerate(frame["objects"]):
        mask = scene_measures._pixels(frame["mask"][scene]).ravel()
        part = scene_measures._pixels(frame["part"][scene]).ravel()
        for pixel in range(0, len(mask), 37):
            kind = 0 if not mask[pixel] else 1 + shapes.index(objects[int(mask[pixel]) - 1]["shape"])
            marked = part[pixel] == scene_measures.MARK
            assert labels["whole"][scene, pixel] == kind
            assert labels["part"][scene, pixel] == 2 * kind + marked
            assert segments["part"][scene, pixel] == 2 * mask[pixel] + marked
    assert len(np.unique(labels["part"])) == 2 * len(np.unique(labels["whole"])) - 1


def test_the_grammar_of_the_full_profile_builds_with_as_many_parameters_as_expected():
    params = resolve(PAPER, VARIANT, "visual_vq", "full", "train")
    with torch.device("meta"):
        grammar = CompoundPCFG(**grammar_description(params, params.vocabulary_size)["arguments"])
    count = sum(parameter.numel() for parameter in grammar.parameters())
    assert count == PAPER.profiles["full"].expect["parameters"]


def test_arms_choose_only_the_components_they_use():
    assert components(TrainParams(stream="random", corpora=("zipf",)), "evaluate") == ()
    assert components(TrainParams(tokenizer="bpe"), "train") == ("components.tokenizers.text.bpe",)
    image = TrainParams(stream="image_base", bases=("cifar-vq-f4",), grammar_corpus="cifar10")
    assert components(image, "train")[-1] == "components.analysis.grammar_induction"
    assert image.base_of(2) == "cifar-vq-f4"


def test_streams_and_corpora_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="no corpus 'cifar10'"):
        TrainParams(stream="text", corpora=("cifar10",))
    with pytest.raises(ValueError, match="the tokenizer of each seed"):
        TrainParams(stream="image_base", corpora=("cifar10",))
    with pytest.raises(ValueError, match="no grammar is induced"):
        TrainParams(stream="random", grammar_corpus="zipf")


def test_small_corpora_of_long_runs_have_no_rank_law_but_all_else():
    params = EvaluateParams(stream="random", corpora=("uniform",), resamples=3, orders=1, embedding_dim=0)
    table = MetricTable()
    tokens = TokenCorpus.of(np.random.default_rng(0).integers(40, size=(10, 20)), 40)
    CorpusStatistics(context(params, {}), table).measure("uniform", "raster", tokens)
    measured = set(table.frame().filter(pl.col("at") == "corpus=uniform,n=4")["metric"])
    assert "rank_curvature" in measured
    assert "mandelbrot_shift" not in measured
