"""The stages of e2d2 at the smoke profile, on stand-ins, and what they must say where the answer is known."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import construct, load_model
from components.diffusion.block import block_masks
from components.errors import TesseraError
from components.metrics.tables import MetricTable
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.smoke import make_stand_ins, smoke_plan
from flows.stage import run_stage
from flows.studies.context import JudgeContext
from flows.studies.discrete_diffusion.e2d2 import bounds, costs, judge, networks, tasks, writing
from flows.studies.discrete_diffusion.e2d2.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.discrete_diffusion.params import METRICS as SHARED

ROOT = Path(__file__).parents[4]
PAPER = Workspace.load(ROOT).paper("e2d2")
DERIVED = {"bought_nats", "bought_nats_median", "validity_shortfall", "bracketed", "best_validity"}


@dataclasses.dataclass
class Runs:
    root: Path

    def directory(self, kind: str, arm: str, variant: str) -> Path:
        return self.root / "runs" / PAPER.slug / variant / kind / arm / "s0" / "run"

    def metrics(self, arm: str, variant: str = "tinyshakespeare") -> pl.DataFrame:
        return pl.read_parquet(self.directory("evaluate", arm, variant) / "metrics.parquet")

    def context(self, variant: str, output: Path) -> JudgeContext:
        evaluations = {(arm, 0): self.directory("evaluate", arm, variant) for arm in PAPER.arms_of(variant)}
        output.mkdir()
        return JudgeContext(PAPER, variant, "smoke", evaluations, {}, output)

    def stage(self, arm: str, variant: str = "tinyshakespeare", **changes) -> SimpleNamespace:
        params = resolve(PAPER, variant, arm, "smoke", "evaluate").model_copy(update=changes)
        inputs = {f"data/{name}": self.root / "data" / name for name in ("tinyshakespeare", "shapes")}
        return SimpleNamespace(params=params, inputs=inputs, seed=0, device="cpu")


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
    assert set(written) == set(METRICS) - DERIVED
    assert all(METRICS[metric].unit == unit for metric, unit in written.items())
    assert all(SHARED.get(name, metric) == metric for name, metric in METRICS.items())


def test_the_formula_of_every_arm_is_what_torch_counts(runs):
    for arm in PAPER.arms_of("tinyshakespeare"):
        rows = runs.metrics(arm).filter(pl.col("metric") == "flops_deviation")
        assert arm == "speed" or rows["value"].item() == 0


def test_sampling_calls_are_those_of_blocks_and_steps(runs):
    frame = runs.metrics("bd3lm_3")
    calls = dict(frame.filter(pl.col("metric").str.ends_with("_calls")).select("metric", "value").rows())
    assert calls == {"reading_calls": 4 + 1, "denoising_calls": 4 * 4}
    evaluations = frame.filter(pl.col("metric") == "network_evaluations")
    assert dict(evaluations.select("at", "value").rows())["steps=2"] == 2 / 4


def test_the_judge_draws_the_same_figures_twice(runs, tmp_path):
    for variant in PAPER.variants:
        one, two = (runs.context(variant, tmp_path / f"{variant}{run}") for run in (1, 2))
        judge.derive(one)
        judge.derive(two)
        names = sorted(path.name for path in (one.output / "figures").iterdir())
        assert "written.svg" in names
        for name in names:
            path = one.output / "figures" / name
            assert "<dc:title>" in path.read_text()
            assert path.read_bytes() == (two.output / "figures" / name).read_bytes()


def speed_and_bounds(tmp_path: Path, seconds: dict[str, float], values: dict[str, list[float]]) -> JudgeContext:
    """Runs of three seeds with known seconds per token and bounds of two windows."""
    evaluations = {}
    for seed in range(3):
        for arm, own in values.items():
            evaluations[arm, seed] = tmp_path / f"{arm}-{seed}"
            evaluations[arm, seed].mkdir()
            table = MetricTable()
            names = ["a", "b"] if seed else ["b", "a"]
            table.add_items("nll_bound", own if seed else own[::-1], unit="nats/token", items=names)
            table.write(evaluations[arm, seed])
        evaluations["speed", seed] = tmp_path / f"speed-{seed}"
        evaluations["speed", seed].mkdir()
        table = MetricTable()
        for name, value in seconds.items():
            table.add("seconds_per_token", value * (1 + seed), unit="s", at={"network": name}, samples=5)
        table.write(evaluations["speed", seed])
    return JudgeContext(PAPER, "tinyshakespeare", "small", evaluations, {}, tmp_path)


def test_what_is_bought_is_measured_against_depths_at_the_same_seconds_per_token(tmp_path):
    seconds = {"encoder_decoder-6-2": 2.5, "decoder_only-2": 2.0, "decoder_only-3": 4.0, "decoder_only-8": 9.0}
    values = {"e2d2_6_2": [2.0, 2.2], "bd3lm_2": [2.4, 2.8], "bd3lm_3": [2.2, 2.4], "bd3lm_8": [1.0, 1.0]}
    stage = speed_and_bounds(tmp_path, seconds, values)
    derived = judge.at_equal_throughput(judge.BlockFigures(stage), captions=False)
    for seed in range(3):
        frame = derived["e2d2_6_2", seed].frame()
        bought = dict(frame.filter(pl.col("metric") == "bought_nats").select("sample", "value").rows())
        # A quarter of the way from two layers to three.
        assert bought == pytest.approx({"a": 0.75 * 2.4 + 0.25 * 2.2 - 2.0, "b": 0.75 * 2.8 + 0.25 * 2.4 - 2.2})
        single = dict(frame.filter(pl.col("sample").is_null()).select("metric", "value").rows())
        assert single == {"bracketed": 1.0, "bought_nats_median": pytest.approx(np.mean(list(bought.values())))}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (2.5, (2, 3, 0.5, True)),
        (2.0, (2, 3, 0.0, True)),
        (1.5, (2, 3, -0.5, False)),  # faster than every depth
        (5.5, (3, 8, 0.5, False)),  # between depths that are not neighbours: the next one must be added
        (9.0, (3, 8, 1.2, False)),
    ],
)
def test_depths_bracket_a_throughput_only_as_neighbours(method, expected):
    first, second, share, bracketed = judge.interpolated(method, {8: 8.0, 2: 2.0, 3: 3.0})
    assert (first, second, pytest.approx(share), bracketed) == expected


def test_a_wrong_context_costs_a_network_that_knows_what_came_before(runs):
    """A network that copies the block before: the context gain is that of losing it, the own bound is near zero."""
    stage = runs.stage("e2d2_6_2", bound_draws=4)
    task = tasks.task_of(stage)
    block, length = 4, stage.params.length

    class Copier:
        def remember(self, clean, masks):
            return clean[:, masks.prompt :]

        def recall(self, noisy, memory, masks):
            before = torch.cat([memory[:, :block], memory[:, :-block]], 1)  # the first block is told its own tokens
            return 50.0 * torch.nn.functional.one_hot(before, task.words)

    pattern = torch.randint(task.words, (6, block)).repeat(1, length // block)
    examples = tasks.Examples(task.prompts(6), pattern, torch.arange(6).roll(1), [str(row) for row in range(6)])
    own = bounds.nats(stage, task, Copier(), examples)
    other = bounds.nats(stage, task, Copier(), examples, pattern.roll(1, 0))
    assert own.values.max() < 1e-6
    assert other.values.min() > 1


def test_autoregression_behind_another_context_is_the_sum_over_blocks(runs):
    stage = runs.stage("ar_8")
    task = tasks.task_of(stage)
    torch.manual_seed(0)
    network = construct(networks.describe(stage.params, task.words)).eval()
    examples = task.examples(3)
    own = bounds.nats(stage, task, network, examples).values
    again = bounds.nats(stage, task, network, examples, examples.tokens).values
    torch.testing.assert_close(own, again, atol=1e-6, rtol=0)
    torch.testing.assert_close(own.mean().float(), network.loss(examples.tokens).detach(), atol=1e-5, rtol=0)


def test_captions_end_where_they_say_so_and_are_judged_exactly(runs):
    stage = runs.stage("e2d2_6_2", "captions")
    task = tasks.task_of(stage)
    examples = task.examples(6)
    assert task.valid(examples.tokens, examples.truth).all()
    assert not task.valid(examples.tokens[examples.other], examples.truth).any()
    assert task.caption(examples.tokens[0].tolist()) == list(examples.truth[0].target)
    assert (examples.prompt[:, -1] == task.end).all()
    without_end = examples.tokens.masked_fill(examples.tokens == task.end, 0)
    assert not task.valid(without_end, examples.truth).any()


def test_arms_train_the_network_they_name(runs):
    split = load_model(runs.directory("train", "e2d2_6_2", "tinyshakespeare"))
    stack = load_model(runs.directory("train", "bd3lm_8", "tinyshakespeare"))
    assert type(split).__name__ == "EncoderDecoderBlock"
    assert stack.decoder_only
    small = resolve(PAPER, "tinyshakespeare", "e2d2_shared_kv", "small", "train")
    assert (small.encoder_layers, small.decoder_layers, small.steps, small.batch) == (8, 2, 1500, 16)
    tied = construct(networks.describe(small, 65))
    assert (len(tied.stack.blocks), tied.decoder_layers) == (8, 2)
    captions = resolve(PAPER, "captions", "bd3lm_2", "small", "train")
    assert (captions.block, captions.length, captions.prompt, captions.batch) == (4, 16, 14, 32)


def test_every_arm_of_the_text_has_the_same_budget():
    arms = [arm for arm in PAPER.arms_of("tinyshakespeare") if arm != "speed"]
    budgets = {
        (params.steps, params.batch, params.length, params.learning_rate, params.width)
        for params in (resolve(PAPER, "tinyshakespeare", arm, "small", "train") for arm in arms)
    }
    assert len(budgets) == 1


def test_masked_diffusion_without_blocks_sees_the_start_and_every_token(runs):
    params = resolve(PAPER, "tinyshakespeare", "mdlm_8", "smoke", "train")
    torch.manual_seed(0)
    network = construct(networks.describe(params, 9))
    noisy = torch.randint(9, (1, params.length))
    prompt = torch.full((1, 1), 10)
    before = networks.parallel_logits(network, prompt, noisy)
    for place in (0, params.length - 1):
        changed = noisy.clone()
        changed[0, place] = (changed[0, place] + 1) % 9
        assert (networks.parallel_logits(network, prompt, changed) != before).any(-1).all()
    # One block over everything, the start as its prompt, differs only in that the start does not look ahead.
    masks = block_masks(1, params.length, params.length)
    assert network(torch.cat([prompt, noisy], 1), noisy, masks).shape == before.shape


def test_texts_are_written_by_as_many_calls_as_the_setting_says(runs):
    stage = runs.stage("mdlm_8")
    task, generator = tasks.task_of(stage), torch.Generator().manual_seed(0)
    network = construct(networks.describe(stage.params, task.words)).eval()
    two = writing.Setting(2, None, False)
    written = writing.write(stage.params, task, network, task.prompts(3), two, 1.0, generator)
    assert written.denoisings == 2 * stage.params.length // stage.params.block
    assert written.tokens.shape == (3, stage.params.length)
    causal = runs.stage("ar_8")
    network = construct(networks.describe(causal.params, task.words)).eval()
    one = writing.Setting(4, None, True)
    greedy = writing.write(causal.params, task, network, task.prompts(2), one, 0.0, generator).tokens
    log_p = network.along(greedy[:, :-1])
    assert torch.equal(log_p.argmax(-1), greedy)


def test_the_full_profile_has_the_papers_size():
    params = resolve(PAPER, "tinyshakespeare", "e2d2_6_2", "full", "train")
    with torch.device("meta"):
        network = construct(networks.describe(params, params.words))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)
    assert costs.costs_of(params, params.words).training() > 0


def test_the_full_profile_says_what_it_lacks(runs):
    stage = runs.stage("e2d2_6_2", words=100)
    with pytest.raises(TesseraError, match="declare one"):
        tasks.task_of(stage)


def test_parameters_without_meaning_are_refused():
    for changes in ({"length": 60}, {"width": 90}, {"network": "shared_keys", "encoder_layers": 1}):
        with pytest.raises(ValueError, match=r"blocks of|even number|cannot denoise"):
            TrainParams(**changes)
    with pytest.raises(ValueError, match="timed"):
        EvaluateParams(timed=("decoder-9",))


def test_arms_name_the_modules_of_their_networks():
    named = components(resolve(PAPER, "tinyshakespeare", "ar_8", "small", "train"), "train")
    assert named == ("components.language.causal_lm",)
    speed = components(resolve(PAPER, "captions", "speed", "small", "evaluate"), "evaluate")
    assert speed == ("components.nn.encoder_decoder_block",)
