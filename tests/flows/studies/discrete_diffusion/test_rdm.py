"""The stages of rdm at the smoke profile, on stand-ins, and what they must say where the answer is known."""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.data.paraphrases import ParaphraseTask
from components.diffusion.samplers import Sampled
from components.metrics.tables import condition
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.bases.translation_diffusion_params import Params as Translator
from flows.studies.context import JudgeContext, StageContext
from flows.studies.discrete_diffusion import decoders, evaluate, judge, models, sources, standin, train
from flows.studies.discrete_diffusion.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.discrete_diffusion.rdm import judge as rdm_judge
from flows.studies.discrete_diffusion.sources import Paraphrases

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("rdm")


@dataclasses.dataclass
class Runs:
    root: Path

    def directory(self, kind: str, arm: str, variant: str = "shapes") -> Path:
        return self.root / "runs" / PAPER.slug / variant / kind / arm / "s0" / "run"

    def metrics(self, arm: str, variant: str = "shapes") -> pl.DataFrame:
        return pl.read_parquet(self.directory("evaluate", arm, variant) / "metrics.parquet")

    def context(self, variant: str, output: Path) -> JudgeContext:
        evaluations = {(arm, 0): self.directory("evaluate", arm, variant) for arm in PAPER.arms_of(variant)}
        output.mkdir()
        return JudgeContext(PAPER, variant, "smoke", evaluations, {}, output)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    root = tmp_path_factory.mktemp("smoke")
    reset(0)  # torch imports its compiler when deterministic algorithms are first asked for
    for variant in PAPER.variants:
        make_stand_ins(ROOT, PAPER, variant, str(root))
        for spec in smoke_plan(PAPER, variant, str(root)):
            run_stage(ROOT, spec, set_values={})
    return Runs(root)


def test_every_metric_written_is_declared_and_in_its_unit(runs):
    frames = [runs.metrics(arm, variant) for variant in PAPER.variants for arm in PAPER.arms_of(variant)]
    written = dict(pl.concat(frames).select("metric", "unit").unique().rows())
    derived = {"validity_of_better", "weight_gain_size", "routing_gap_closing"}
    assert set(written) == set(METRICS) - derived
    assert all(METRICS[metric].unit == unit for metric, unit in written.items())


def test_every_metric_that_a_claim_names_is_measured_where_it_names_it(runs, tmp_path):
    derived_in = {variant: rdm_judge.derive(runs.context(variant, tmp_path / variant)) for variant in PAPER.variants}
    for claim in PAPER.claims:
        variant = PAPER.variant_of(claim)
        derived = derived_in[variant]
        for test in [*claim.gates, *claim.tests]:
            for arm in test.arms:
                frames = [runs.metrics(arm, variant)]
                frames += [table.frame() for (name, _), table in derived.items() if name == arm]
                measured = {row for frame in frames for row in frame.select("metric", "at").unique().rows()}
                assert (test.metric, condition(test.at)) in measured, (claim.id, test.metric, arm)


def test_arms_pair_on_the_same_inputs_and_a_network_is_decoded_as_it_was_trained(runs):
    items = {
        arm: runs.metrics(arm)
        .filter((pl.col("metric") == "validity") & (pl.col("at") == "steps=4"))["sample"]
        .to_list()
        for arm in ("rdm_multinomial_topk", "multinomial_vanilla", "rdm_absorbing_topk")
    }
    assert len({tuple(names) for names in items.values()}) == 1
    assert len(set(items["rdm_multinomial_topk"])) == 6
    used = resolve(PAPER, "shapes", "multinomial_random_routing", "small", "evaluate")
    assert (used.noise, used.schedule, used.decoder) == ("uniform", "cosine", "ancestral")
    assert not runs.directory("train", "multinomial_random_routing").exists()


def test_every_arm_sees_the_same_number_of_rows():
    rows = [
        params.batch * (2 if params.coupled else 1) * params.steps
        for variant in ("shapes", "multi30k-losses")
        for params in (
            resolve(PAPER, variant, arm, "small", "train") for arm in PAPER.arms_of(variant) if PAPER.arms[arm].trains
        )
    ]
    assert set(rows) == {64 * 6000}


def test_translators_of_other_losses_are_the_bases_network_with_another_loss():
    base = Translator()
    for arm in ("mt_vlb_topk", "mt_ar"):
        params = resolve(PAPER, "multi30k-losses", arm, "small", "train")
        for name in type(base).model_fields.keys() & type(params).model_fields.keys():
            assert getattr(params, name) == getattr(base, name), name


def test_a_decoder_calls_the_network_at_most_once_a_step_and_coins_ask_for_each_position_once(runs):
    for arm in ("rdm_multinomial_topk", "absorbing_random_routing", "cmlm"):
        calls = runs.metrics(arm).filter(pl.col("metric") == "network_calls")
        for at, value in calls.select("at", "value").rows():
            assert value <= int(at.removeprefix("steps="))
    asked = runs.metrics("absorbing_random_routing").filter(pl.col("metric") == "positions_computed")
    inputs = resolve(PAPER, "shapes", "absorbing_random_routing", "smoke", "evaluate").inputs
    test = Paraphrases(runs.root / "data" / "shapes").examples("test", inputs)
    lengths = dict(zip(test.names, test.lengths.tolist(), strict=True))
    for _, rows in asked.group_by("at"):
        assert dict(rows.select("sample", "value").iter_rows()) == lengths


@pytest.mark.parametrize("arm", ["rdm_multinomial_topk", "multinomial_vanilla"])
def test_a_stage_gives_the_same_bytes_twice(runs, arm, tmp_path):
    made = {}
    for kind, stage in (("train", train.train), ("evaluate", evaluate.evaluate)):
        for name in ("run", "log", "checkpoint"):
            (tmp_path / kind / name).mkdir(parents=True)
        inputs = {"data/shapes": runs.root / "data" / "shapes", **made}
        params = resolve(PAPER, "shapes", arm, "smoke", kind)
        folders = [tmp_path / kind / name for name in ("run", "log", "checkpoint")]
        reset(0)
        stage(StageContext(kind, "rdm", "shapes", arm, 0, "smoke", params, inputs, *folders))
        made["train"] = folders[0]
        for file in folders[0].iterdir():
            assert file.read_bytes() == (runs.directory(kind, arm) / file.name).read_bytes(), file.name


def test_figures_are_the_same_bytes_every_time_and_each_has_a_caption(runs, tmp_path):
    for variant, expected in (
        ("shapes", {"quality-over-steps.svg", "outputs.svg"}),
        ("multi30k", {"quality-over-steps.svg"}),
    ):
        for name in ("one", "two"):
            rdm_judge.derive(runs.context(variant, tmp_path / f"{variant}-{name}"))
        one, two = (tmp_path / f"{variant}-{name}" / "figures" for name in ("one", "two"))
        assert {path.name for path in one.iterdir()} == expected
        for path in one.iterdir():
            assert "<dc:title>" in path.read_text()
            assert path.read_bytes() == (two / path.name).read_bytes()
    plain = runs.context("shapes", tmp_path / "plain")
    judge.derive(plain)
    assert (plain.output / "figures" / "quality-over-steps.svg").is_file()


def test_the_full_profile_has_the_papers_size():
    params = resolve(PAPER, "shapes", "rdm_multinomial_topk", "full", "train")
    expected = PAPER.profiles["full"].expect["parameters"]
    assert models.parameters(params, 10_000) == pytest.approx(expected, rel=0.05)


def test_settings_are_chosen_by_the_score_on_validation_inputs(runs):
    params = resolve(PAPER, "shapes", "rdm_absorbing_topk", "smoke", "evaluate")
    task = sources.Paraphrases(runs.root / "data" / "shapes")
    model = standin.construct(models.describe(params, task.words))

    class Rigged(decoders.Decoder):
        def decode(self, setting, examples, source=None):
            # One setting knows the answers.
            target = examples.items.target
            right = setting.decay == "cosine"
            tokens = target if right else torch.zeros_like(target)
            return Sampled(tokens, tokens * 0.0, examples.lengths, examples.lengths)

    decoder = Rigged(models.Decodable(model, task), params, 0)
    validation = task.examples("validation", 4)
    assert decoder.chosen(4, validation).decay == "cosine"
    assert task.score(validation.items.target, validation) == 1.0
    assert task.score(validation.items.source.new_zeros(4, 3), validation) == 0.0
    assert not task.valid(validation.items.target[validation.wrong], validation).any()


def test_training_pairs_are_of_training_scenes_and_read_back(runs):
    task = sources.Paraphrases(runs.root / "data" / "shapes")
    examples = task.examples("train", 30)
    assert len(examples) == 30
    for row, pair in zip(examples.items.target.tolist(), examples.truth, strict=True):
        assert task.text(row) == list(pair.target)
    assert ParaphraseTask.of(runs.root / "data" / "shapes").words == task.vocabulary


def test_translations_are_cut_to_what_the_network_was_trained_on(tmp_path):
    standin.make("multi30k", tmp_path)
    task = sources.Translations.learn(tmp_path, 60, 20)
    examples = task.examples("test", 12)
    assert len(examples) == 12
    assert {name.rpartition("-")[0] for name in examples.names} == {"test_2016_flickr", "test_2017_flickr"}
    assert int(examples.lengths.max()) <= sources.LONGEST_TARGET
    for row, words in zip(examples.items.target.tolist(), examples.truth, strict=True):
        assert task.text(row) == words
    assert task.score(examples.items.target, examples) == pytest.approx(100)
    with pytest.raises(sources.TooLittleData, match="raise context"):
        sources.Translations(tmp_path, task.tokenizer, 1).examples("train")


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="no multiple of heads"):
        TrainParams(width=10, heads=4)
    with pytest.raises(ValueError, match="coupled is only for"):
        TrainParams(objective="causal", coupled=True)
    with pytest.raises(ValueError, match="weighting: variational"):
        TrainParams(objective="divergence")
    assert components(EvaluateParams(), "evaluate") == ("components.diffusion.sequence_denoiser",)


def test_the_better_weight_and_the_gap_are_those_of_the_runs(runs, tmp_path):
    tables = rdm_judge.derive(runs.context("shapes", tmp_path / "shapes"))
    values = dict(tables["rdm_absorbing_topk", 0].frame().select("metric", "value").rows())
    means = [
        runs.metrics(arm).filter((pl.col("metric") == "validity") & (pl.col("at") == "steps=8"))["value"].mean()
        for arm in ("rdm_absorbing_topk", "rdm_absorbing_vlb")
    ]
    assert values["validity_of_better"] == max(means)
    assert values["weight_gain_size"] == pytest.approx(abs(means[0] - means[1]))
    closing = rdm_judge.derive(runs.context("multi30k", tmp_path / "multi30k"))["mt_topk", 0].frame()
    gaps = [
        np.subtract(
            *(
                runs.metrics(arm, "multi30k")
                .filter((pl.col("metric") == "bleu") & (pl.col("at") == f"steps={steps}"))["value"]
                .mean()
                for arm in ("mt_topk", "mt_random_routing")
            )
        )
        for steps in (2, 14)
    ]
    assert closing["value"].mean() == pytest.approx(gaps[0] - gaps[1])
