"""The stages of sticky-tokens at the smoke profile, on stand-ins, and what they must say where the answer is known."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.analysis.sticky_insertion import templates
from components.analysis.sticky_scoring import Edits, moved_fractions
from components.encoders.random_sentence import word_piece_tokenizer
from components.encoders.sentence import SentenceEncoder
from components.metrics.tables import MetricTable
from components.nn.bert import BertConfig
from components.training.determinism import reset
from components.training.weights import read_tensors
from flows.declarations.resolve import resolve
from flows.declarations.study import load_study
from flows.declarations.workspace import Workspace
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.analysis.sticky_tokens import evaluate, judge, sources, train, verified
from flows.studies.analysis.sticky_tokens.params import EvaluateParams, TrainParams
from flows.studies.context import JudgeContext, StageContext

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("sticky-tokens")
METRICS = load_study("analysis", "sticky-tokens").metrics


@dataclasses.dataclass
class Runs:
    root: Path

    def directory(self, kind: str, arm: str, variant: str = "minilm") -> Path:
        return self.root / "runs" / PAPER.slug / variant / kind / arm / "s0" / "run"

    def metrics(self, arm: str, variant: str = "minilm") -> pl.DataFrame:
        return pl.read_parquet(self.directory("evaluate", arm, variant) / "metrics.parquet")

    def distances(self, arm: str) -> np.ndarray:
        return read_tensors(self.directory("train", arm) / train.DISTANCES)["distances"].numpy()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    reset(0)
    for variant in PAPER.variants:
        make_stand_ins(ROOT, PAPER, variant, str(root))
        for spec in smoke_plan(PAPER, variant, str(root)):
            run_stage(ROOT, spec, set_values={})
    return Runs(root)


def test_every_metric_written_is_declared_and_in_its_unit(runs):
    frames = [runs.metrics(arm, variant) for variant in PAPER.variants for arm in PAPER.arms_of(variant)]
    written = dict(pl.concat(frames).select("metric", "unit").unique().rows())
    derived = {"mann_whitney_p", "excess_drop", "published_p"}
    rare = {"moved_fraction_above"}  # only where a token passes
    own = {name for name in METRICS if name in written or name in derived | rare}
    assert {name for name, unit in written.items() if METRICS[name].unit != unit} == set()
    assert set(written) | derived | rare == own


def test_arms_of_a_sample_share_pairs_and_queries_by_name(runs):
    arms = ("std_detected", "random_tokens", "frequent_words")
    starts = [runs.distances(arm)[0, :, 0, 0] for arm in arms]
    names = [runs.metrics(arm).filter(metric="verification_fraction")["sample"].to_list() for arm in arms]
    for start, name in zip(starts[1:], names[1:], strict=True):
        assert np.array_equal(start, starts[0])
        assert name == names[0] == [f"s0-p{pair}" for pair in range(6)]
    queries = [runs.metrics(arm).filter(metric="ndcg_change")["sample"].to_list() for arm in arms[:2]]
    assert queries[0] == queries[1] == [f"s0-q{query}" for query in range(4)]
    assert [runs.distances(arm).shape[-1] for arm in arms] == [3, 3, 2]


def test_scoring_and_verification_pairs_of_a_sample_share_no_pair(runs):
    context = StageContext(
        "train", "sticky-tokens", "minilm", "std_score", 0, "smoke",
        resolve(PAPER, "minilm", "std_score", "smoke", "train"),
        {f"data/{name}": runs.root / "data" / name for name in PAPER.variants["minilm"].data}
        | {"bases/minilm-token-scan": runs.root / "bases" / "minilm-token-scan"},
        runs.root, runs.root, runs.root,
    )  # fmt: skip
    read = sources.read_sources(context)
    sentences = read.sentences()
    sets = read.pairs(sentences)
    scoring, checking = (
        set(zip(each.first.tolist(), each.second.tolist(), strict=True)) for each in (sets.scoring, sets.verification)
    )
    assert not scoring & checking
    assert max(sets.scoring.similarity.max(), sets.verification.similarity.max()) < read.centre
    with pytest.raises(sources.TokensError, match="seed 1 has no sample of its own"):
        dataclasses.replace(read, seed=1).sentences()
    unknown = dataclasses.replace(read, params=read.params.model_copy(update={"published": ("nowhere",)}))
    with pytest.raises(sources.TokensError, match="lacks the published tokens"):
        unknown.tokens()


def test_the_study_of_rankings_has_each_kind_of_tokens_once(runs):
    tokens = pl.read_parquet(runs.directory("train", "std_score") / train.TOKENS)
    kinds = dict(tokens.group_by("kind").len().rows())
    assert kinds == {"published": 2, "random": 6, "special": 5, "fragment": 1}
    plain = tokens.filter(pl.col("kind") != "fragment")
    assert plain["token"].n_unique() == len(plain)
    assert (plain["realised"] == 1).all()


def curves(after: np.ndarray) -> np.ndarray:
    """Distances of tokens and pairs: 1 before, `after` with copies, in all three modes."""
    before = np.ones((*after.shape, 3))
    return np.stack([before, np.broadcast_to(after[..., None], before.shape)], -1)


def params(**values) -> EvaluateParams:
    return EvaluateParams(**values)


def test_a_token_verified_on_one_half_counts_on_the_other_half_only():
    pairs = np.arange(8)
    always, even, never = np.full(8, 0.5), np.where(pairs % 2 == 0, 0.5, 1.5), np.full(8, 1.5)
    tokens = curves(np.stack([always, even, *[never] * 8]))
    found = verified.Verified.of(tokens, params(selection="cross_fitted"))
    # Token 1 passes on the even pairs and is therefore judged on the odd ones, where it fails.
    assert [tokens.tolist() for tokens in found.chosen] == [[0], [0, 1]]
    assert found.by_pair().tolist() == [1, 0.5] * 4
    assert found.by_token() == {0: 1.0, 1: 0.0}
    everything = verified.Verified.of(tokens[:3], params(selection="all"))
    assert everything.by_pair().tolist() == pytest.approx([2 / 3, 1 / 3] * 4)


def test_the_bar_is_that_of_outliers_among_the_candidates():
    shares = np.array([0.0, 0.2, 0.4, 0.6, 0.8])
    assert verified.outlier_bar(shares, 0.7) == pytest.approx(0.6 + 0.7 * 0.4)
    assert verified.outlier_bar(np.full(5, 0.3), 0.7) == pytest.approx(0.3)
    # Equal candidates are no outliers, however high they lie.
    found = verified.Verified.of(curves(np.full((6, 8), 0.5)), params(selection="cross_fitted"))
    assert found.counts == [0, 0]
    assert found.bars == (1.0, 1.0)


def test_bare_copies_touch_each_other_and_the_sentence_in_front_and_behind_only():
    generator = np.random.default_rng(0)
    edits = Edits(
        torch.zeros(1, 2),
        np.zeros(1),
        [[each.pieces for each in templates("a b", (1, 2), generator)]],
        np.ones(1),
        (1, 2),
    )
    texts = ["X".join(pieces) for pieces in sources.bare(edits).pieces[0]]
    assert texts[:4] == ["Xa b", "XXa b", "a bX", "a bXX"]
    assert texts[4:] == ["X".join(pieces) for pieces in edits.pieces[0][4:]]


def test_without_spaces_the_edits_in_front_and_behind_differ_and_those_at_random_places_do_not(runs):
    spaced, touching = runs.distances("std_score"), runs.distances("bare_score")
    np.testing.assert_allclose(spaced[:, :, 2], touching[:, :, 2], atol=1e-5)
    for mode in range(2):
        assert not np.allclose(spaced[:, :, mode, 1:], touching[:, :, mode, 1:])


@pytest.mark.parametrize(("moving", "after"), [(1, 0.5), (0, -0.5)])
def test_pairs_are_drawn_with_the_tokens_that_count_or_the_first_where_none_does(moving, after, tmp_path):
    never = np.full(8, 1.5)
    tokens = pl.DataFrame({"token": [f"t{place}" for place in range(10)], "kind": "top", "realised": 1.0})
    distances = curves(np.stack([np.full(8, 0.5)] * moving + [never] * (10 - moving)))
    distances[..., 0] = np.linspace(0.8, 1.2, 8)[:, None]
    stage = StageContext(
        "evaluate", "sticky-tokens", "minilm", "std_detected", 0, "smoke", params(selection="cross_fitted"), {},
        tmp_path, tmp_path, tmp_path,
    )  # fmt: skip
    evaluate._verification(stage, MetricTable(), tokens, {"distances": distances}, {"centre": 0.2})
    drawn = pl.read_parquet(tmp_path / evaluate.PAIRS)
    assert drawn["before"].to_list() == pytest.approx(np.linspace(0.2, -0.2, 8).tolist())
    assert drawn["after"].to_list() == pytest.approx([after] * 8)


def test_without_detected_tokens_numbers_stay_finite_and_the_gate_closes():
    found = verified.Verified.of(curves(np.full((2, 8), 1.5)), params(selection="cross_fitted"))
    table = MetricTable()
    verified.measure(table, found, None, params(), 0)
    values = dict(table.frame().group_by("metric").agg(pl.col("value").mean()).rows())
    none = {"verification_fraction": 0, "verification_bar": 0, "tokens_detected": 0, "enough_detected": 0}
    assert values == none | {"spread_ratio": 1}


def test_the_rows_of_the_spread_ratio_average_to_the_ratio_of_standard_deviations():
    generator = np.random.default_rng(0)
    distances = curves(generator.random((4, 10)))
    distances[..., 0] = generator.random(10)[:, None]
    found = verified.Verified.of(distances, params())
    table = MetricTable()
    verified.measure(table, found, None, params(), 0)
    rows = table.frame().filter(metric="spread_ratio")["value"]
    halves = [distances[:, half] for half in (slice(0, None, 2), slice(1, None, 2))]
    expected = np.mean([(half[..., 0, 1].std(1) / half[..., 0, 0].std(1)).mean() for half in halves])
    assert rows.mean() == pytest.approx(expected)


def test_smoke_verification_is_the_share_of_moved_cases(runs):
    values = runs.metrics("random_tokens").filter(metric="verification_fraction")["value"].to_numpy()
    np.testing.assert_allclose(values, moved_fractions(runs.distances("random_tokens")).mean(0))


def test_contraction_is_zero_at_the_mean_and_one_without_a_move():
    at_mean, unmoved = np.full(6, 0.3), np.full(6, 1.0)
    assert verified.contraction(curves(np.stack([at_mean, unmoved])), 0.7).tolist() == pytest.approx([0, 1])


def test_the_mean_auc_counts_pairs_of_tokens():
    generator = np.random.default_rng(0)
    scores, positives = generator.integers(0, 5, (3, 12)).astype(float), np.arange(12) < 4
    wins = [
        (sample[positives][:, None] > sample[~positives]).mean()
        + 0.5 * (sample[positives][:, None] == sample[~positives]).mean()
        for sample in scores
    ]
    assert evaluate.mean_auc(scores, positives) == pytest.approx(np.mean(wins))


def test_the_excess_drop_is_the_difference_of_relative_drops_and_varies_with_queries_and_tokens():
    before = np.array([1.0, 0.5, 1.0, 0.5])
    detected, drawn = np.stack([before, 0 * before, 0.5 * before]), np.stack([before, before, 0.8 * before])
    value, variance = judge.excess_drop(detected, drawn, 400, np.random.default_rng(0))
    assert value == pytest.approx(75 - 10)
    # Every query drops alike, so only the draw of tokens counts: (25^2 + 10^2) / 2 with two tokens each.
    assert variance == pytest.approx((25**2 + 10**2) / 2, rel=0.2)
    one = judge.excess_drop(detected[[0, 1]], drawn[[0, 1]], 50, np.random.default_rng(0))
    assert one == pytest.approx((100, 0))


def test_figures_are_drawn_and_comparisons_are_made_where_both_arms_ran(runs, tmp_path):
    evaluations = {(arm, 0): runs.directory("evaluate", arm) for arm in PAPER.arms_of("minilm")}
    tables = judge.derive(JudgeContext(PAPER, "minilm", "smoke", evaluations, {}, tmp_path))
    assert sorted(path.stem for path in (tmp_path / "figures").iterdir()) == [
        "attention",
        "fractions",
        "pairs",
        "retrieval",
    ]
    assert set(tables["std_detected", 0].frame()["metric"]) == {"mann_whitney_p", "excess_drop"}
    assert set(tables["std_score", 0].frame()["metric"]) == {"published_p"}
    assert tables["random_tokens", 0].frame().is_empty()
    alone = JudgeContext(PAPER, "definition", "smoke", {}, {}, tmp_path / "alone")
    assert judge.derive(alone) == {}


def test_the_full_encoder_has_as_many_parameters_as_expected_and_verification_grows():
    with torch.device("meta"):
        encoder = SentenceEncoder(BertConfig(30_522, 384, 6, 12, 1_536), word_piece_tokenizer([]))
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == PAPER.profiles["full"].expect["parameters"]
    full = resolve(PAPER, "minilm", "std_detected", "full", "evaluate")
    assert (full.verification_pairs, full.scan_tokens, full.copies[-1]) == (250, 474, 8)
    assert isinstance(full, TrainParams)


def test_the_scan_description_of_a_stand_in_says_what_the_stages_read(runs):
    described = json.loads((runs.root / "bases" / "minilm-token-scan" / "scan.json").read_text())
    assert runs.metrics("std_detected").filter(metric="mean_similarity")["value"].item() == described["mean_similarity"]
