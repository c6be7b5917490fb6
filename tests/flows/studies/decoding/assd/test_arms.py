"""The stages of the paper at the smoke profile, and what they must say whatever the networks have learned."""

import importlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.bases import load_model
from components.language.any_order import joint_nats, lattice_order
from components.metrics.tables import condition
from components.training.determinism import reset
from flows.declarations.resolve import resolve
from flows.declarations.workspace import Workspace
from flows.ledger.measurements import Measurements
from flows.ledger.verdicts import constant_arms, judge_claim
from flows.studies.context import JudgeContext, StageContext
from flows.studies.decoding import standin
from flows.studies.decoding.assd import density, exactness, filling, judge, texts
from flows.studies.decoding.assd.evaluate import evaluate
from flows.studies.decoding.assd.params import METRICS, EvaluateParams, TrainParams, components
from flows.studies.decoding.assd.train import build, train

ROOT = Path(__file__).parents[5]
PAPER = Workspace.load(ROOT).paper("assd")
SEED = 0
STAGES = {"train": train, "evaluate": evaluate}


def stage_of(kind: str, variant: str, arm: str, inputs: dict[str, Path], output: Path, **changes) -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (output / name).mkdir(parents=True)
    params = resolve(PAPER, variant, arm, "smoke", kind, changes)
    return StageContext(
        kind, PAPER.slug, variant, arm, SEED, "smoke", params, inputs,
        output / "run", output / "log", output / "checkpoint",
    )  # fmt: skip


def run(kind: str, variant: str, arm: str, inputs: dict[str, Path], output: Path, **changes) -> Path:
    stage = stage_of(kind, variant, arm, inputs, output, **changes)
    reset(SEED)
    STAGES[kind](stage)
    return stage.output


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, dict[str, Path]]:
    root, given = tmp_path_factory.mktemp("standins"), {}
    for variant, declared in PAPER.variants.items():
        given[variant] = {}
        for kind, names, make in (("data", declared.data, standin.make), ("bases", declared.bases, standin.make_base)):
            for name in names:
                (root / name).mkdir()
                make(name, root / name)
                given[variant][f"{kind}/{name}"] = root / name
    return given


@pytest.fixture(scope="module")
def runs(inputs, tmp_path_factory) -> tuple[dict, dict]:
    root, trainings, evaluations = tmp_path_factory.mktemp("smoke"), {}, {}
    for variant in PAPER.variants:
        for arm, declared in PAPER.arms_of(variant).items():
            if declared.trains:
                output = root / f"{variant}-train-{arm}"
                trainings[variant, arm] = run("train", variant, arm, inputs[variant], output)
        for arm in PAPER.arms_of(variant):
            trained = trainings[variant, PAPER.model_of(arm)]
            given = {**inputs[variant], "train": trained}
            evaluations[variant, arm] = run("evaluate", variant, arm, given, root / f"{variant}-evaluate-{arm}")
    return trainings, evaluations


def values(path: Path, metric: str, **at) -> np.ndarray:
    frame = pl.read_parquet(path / "metrics.parquet")
    return frame.filter(pl.col("metric") == metric, pl.col("at") == condition(at))["value"].to_numpy()


def test_every_metric_is_declared_with_the_unit_it_is_written_in(runs):
    for path in runs[1].values():
        for metric, unit in pl.read_parquet(path / "metrics.parquet").select("metric", "unit").unique().rows():
            assert METRICS[metric].unit == unit, metric


def test_the_judge_draws_its_figures_and_every_claim_finds_its_numbers(runs, tmp_path):
    for variant in PAPER.variants:
        evaluations = {(arm, SEED): path for (name, arm), path in runs[1].items() if name == variant}
        trainings = {(arm, SEED): path for (name, arm), path in runs[0].items() if name == variant}
        context = JudgeContext(PAPER, variant, "smoke", evaluations, trainings, tmp_path / variant)
        derived = judge.derive(context)
        names = {path.stem for path in (tmp_path / variant / "figures").glob("*.svg")}
        assert {"calls", "judge-nll", "acceptance", "fillings"} <= names
        assert ("orders" in names) == (variant == PAPER.canonical)
        gap = derived["parallel_uncorrected", SEED].frame().filter(pl.col("at") == "k=5")["value"].to_numpy()
        pair = [values(runs[1][variant, arm], "judge_nll", k=5) for arm in ("parallel_uncorrected", "assd_self")]
        assert np.allclose(gap, pair[0] - pair[1])
        if variant == PAPER.canonical:
            measured = Measurements(evaluations, constant_arms(PAPER), derived)
            for claim in PAPER.claims:
                assert judge_claim(claim, measured, "smoke").outcomes


def test_calls_never_exceed_gaps_and_are_what_each_way_of_filling_takes(runs):
    found = runs[1]
    for variant in PAPER.variants:
        for arm, ks in (("assd_self", (2, 5, 10)), ("assd_ngram", (5,))):
            for k in ks:
                assert values(found[variant, arm], "bound_violations", k=k).tolist() == [0]
                assert (values(found[variant, arm], "calls_per_token", k=k) <= 1).all()
        assert (values(found[variant, "sequential"], "calls_per_token", k=1) == 1).all()
        gaps = {"shakespeare": 61, "code": 46}[variant]
        for k in (2, 5, 10):
            expected = -(-gaps // k) / gaps
            assert np.allclose(values(found[variant, "parallel_uncorrected"], "calls_per_token", k=k), expected)
        assert values(found[variant, "assd_self"], "acceptance", k=5, draft=0).tolist() == [1]


def test_arms_of_a_seed_fill_the_same_gaps_and_leave_what_is_given(runs):
    filled = [path for (variant, _), path in runs[1].items() if variant == "shakespeare"]
    frames = [pl.read_parquet(path / filling.FILLINGS) for path in filled if (path / filling.FILLINGS).exists()]
    assert len(frames) == 5
    for frame in frames:
        shown = frame.unique(["item"], maintain_order=True).select("item", "original", "given")
        assert shown.equals(frames[0].unique(["item"], maintain_order=True).select("item", "original", "given"))
        for original, given, text in frame.select("original", "given", "filled").rows():
            pairs = list(zip(original, given, text, strict=True))
            assert sum(sign == "_" for _, sign, _ in pairs) == 61
            assert all(one == sign == other for one, sign, other in pairs if sign != "_")


def test_the_density_is_that_of_the_oracle_pass_on_held_out_text(runs, inputs, tmp_path):
    stage = stage_of("evaluate", "shakespeare", "train_lattice", inputs["shakespeare"], tmp_path)
    model = load_model(runs[0]["shakespeare", "train_lattice"])
    language = texts.judge(stage)
    text = standin_text(inputs)
    held_out = text[round(0.8 * len(text)) :]
    first = torch.tensor([language.tokenizer.encode(held_out[:64])])
    visible = density.gaps(3, 64, 0.95, torch.Generator().manual_seed(density.derive_seed(density._GAPS, 1)))[:1]
    order = lattice_order(visible)
    with torch.no_grad():
        expected = joint_nats(model, first, order).sum() / 61
    at = {"mask": 0.95, "order": "lattice", "model": "network"}
    found = values(runs[1]["shakespeare", "train_lattice"], "joint_nll", **at)
    assert found[0] == pytest.approx(float(expected), abs=1e-5)


def standin_text(inputs) -> str:
    return pl.read_parquet(inputs["shakespeare"]["data/tinyshakespeare"] / "text.parquet")["text"].item()


def test_the_judge_reads_whole_texts_from_left_to_right(inputs, tmp_path):
    stage = stage_of("evaluate", "shakespeare", "assd_self", inputs["shakespeare"], tmp_path)
    network = texts.judge(stage).model
    tokens = torch.randint(network.vocabulary_size, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, dtype=torch.float64)
    for place in range(9):
        row = network.along(tokens[:, :place])[:, -1]
        expected -= row.gather(1, tokens[:, place, None])[:, 0] / 9
    assert torch.allclose(filling._judged(network, tokens), expected, atol=1e-6)


def test_the_toy_is_enumerated_whole_and_its_marginals_are_its_own(runs):
    path = runs[1]["shakespeare", "toy"]
    assert values(path, "enumerated_mass")[0] == pytest.approx(1, abs=1e-5)
    for decoder in ("sequential", "speculative", "context", "parallel"):
        assert 0 <= values(path, "fit_p", decoder=decoder)[0] <= 1
    # A law of independent letters is the product of its marginals; that of equal letters is not.
    visible = torch.tensor([[True, False, False]])
    one, other = np.array([0.2, 0.8]), np.array([0.5, 0.5])
    product = exactness._product_of_marginals(np.outer(one, other).ravel(), lattice_order(visible), 2)
    assert np.allclose(product, np.outer(one, other).ravel())
    equal = exactness._product_of_marginals(np.array([0.5, 0, 0, 0.5]), lattice_order(visible), 2)
    assert np.allclose(equal, 0.25)


def test_completions_are_counted_in_the_order_they_are_listed_in():
    order = lattice_order(torch.tensor([[False, True, False, False]]))
    every = exactness._completions(torch.tensor([[0, 2, 0, 0]]), order, 3)
    assert (every[:, 1] == 2).all()
    assert torch.equal(exactness._place(every, order, 3), torch.arange(27))


def test_training_twice_gives_the_same_bytes(inputs, tmp_path):
    for arm in ("train_any_permutation", "toy"):
        first, second = (
            run("train", "shakespeare", arm, inputs["shakespeare"], tmp_path / arm / name) for name in ("a", "b")
        )
        for file in ("model.safetensors", "config.json", "curves.parquet"):
            assert (first / file).read_bytes() == (second / file).read_bytes()


def test_an_arm_names_the_modules_that_only_it_reads():
    ngram = resolve(PAPER, "shakespeare", "assd_ngram", "small", "evaluate")
    assert components(ngram, "evaluate") == ("components.language.context_ngram",)
    diffusion = resolve(PAPER, "shakespeare", "mdm_ancestral", "small", "evaluate")
    assert components(diffusion, "evaluate") == ("components.diffusion.samplers",)
    for module in (*components(ngram, "evaluate"), *components(diffusion, "evaluate")):
        importlib.import_module(module)
    assert components(TrainParams(), "train") == components(EvaluateParams(), "evaluate") == ()


def test_the_full_profile_builds_on_the_meta_device_with_the_papers_parameters():
    params = resolve(PAPER, "shakespeare", "train_lattice", "full", "train")
    with torch.device("meta"):
        model = build(params)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(PAPER.profiles["full"].expect["parameters"], rel=0.05)


def test_the_small_network_has_the_size_that_the_paper_file_states():
    model = build(resolve(PAPER, "shakespeare", "train_lattice", "small", "train"))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(0.34e6, rel=0.03)


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="low <= high"):
        TrainParams(mask_low=0.9, mask_high=0.5)
    with pytest.raises(ValueError, match="twice the 4 heads"):
        TrainParams(width=20)
    with pytest.raises(ValueError, match="1 or more each"):
        EvaluateParams(ks=(0,))
