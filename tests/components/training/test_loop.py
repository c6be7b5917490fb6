from __future__ import annotations

import copy
import logging
import math
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from components.errors import TesseraError
from components.training import determinism
from components.training.loop import NonFiniteLoss, Optimisation, fit

SCRIPT = Path(__file__).with_name("toy.py")
ROOT = Path(__file__).parents[3]
toy = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
SHORT = Optimisation(steps=4, learning_rate=1e-2)
EAGER = {"log_every": 5, "checkpoint_seconds": 0.0}


@pytest.fixture(scope="module")
def undisturbed() -> str:
    return toy.outcome(*toy.train())


def start(output: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(output), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


class Stop(Exception):
    pass


def interrupted_at(step: int):
    def draw(at: int, generator: torch.Generator):
        if at == step:
            raise Stop
        return toy.draw_batch(at, generator)

    return draw


# -- exactness ---------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_and_resumed_equals_undisturbed_bit_for_bit(tmp_path, undisturbed):
    checkpoint, output = tmp_path / "checkpoint", tmp_path / "digest"
    state = checkpoint / "training.safetensors"
    at_a_step = start(output, "--checkpoint", checkpoint, "--kill", random.randrange(6, 40))
    assert at_a_step.wait() == -signal.SIGKILL
    before = state.stat().st_mtime_ns

    anywhere = start(output, "--checkpoint", checkpoint)
    while anywhere.poll() is None and state.stat().st_mtime_ns == before:
        time.sleep(0.001)
    time.sleep(random.random() * 0.05)
    anywhere.kill()
    anywhere.wait()

    assert start(output, "--checkpoint", checkpoint).wait() == 0
    assert output.read_text() == undisturbed


def test_trained_in_another_process_gives_the_same_bytes(tmp_path, undisturbed):
    assert start(tmp_path / "digest").wait() == 0
    assert (tmp_path / "digest").read_text() == undisturbed


def test_second_training_in_a_process_gives_the_bytes_of_the_first(undisturbed):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.rand(17)
    determinism.reset(99)
    other = nn.Linear(3, 3)
    fit(
        other, lambda step, g: torch.randn(4, 3, generator=g), lambda m, x, g: (m(x).square().mean(), {}), SHORT, seed=5
    )
    assert toy.outcome(*toy.train()) == undisturbed


@pytest.mark.parametrize("step", [1, 5, 33, 59])
def test_interrupted_and_resumed_in_one_process_equals_undisturbed(tmp_path, undisturbed, step):
    with pytest.raises(Stop):
        toy.train(interrupted_at(step), checkpoint=tmp_path)
    assert toy.outcome(*toy.train(checkpoint=tmp_path)) == undisturbed


def test_weights_in_another_memory_layout_resume_exactly(tmp_path):
    def train(stop: int | None = None, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 3)).to(memory_format=torch.channels_last)

        def draw(at: int, generator: torch.Generator) -> torch.Tensor:
            if at == stop:
                raise Stop
            return torch.rand(2, 3, 8, 8, generator=generator)

        fit(
            model, draw, lambda model, batch, _: (model(batch).square().mean(), {}),
            Optimisation(steps=8, learning_rate=1e-1, ema_decay=0.9), seed=0, checkpoint=checkpoint,
            log_every=2, checkpoint_seconds=0.0,
        )  # fmt: skip
        return model.state_dict()

    whole = train()
    with pytest.raises(Stop):
        train(stop=5, checkpoint=tmp_path)
    resumed = train(checkpoint=tmp_path)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_a_finished_training_is_restored_without_a_step(tmp_path, undisturbed):
    toy.train(checkpoint=tmp_path)
    assert toy.outcome(*toy.train(interrupted_at(-1), checkpoint=tmp_path)) == undisturbed
    assert toy.outcome(*toy.train(interrupted_at(0), checkpoint=tmp_path)) == undisturbed


def test_the_clock_decides_when_to_write_but_never_a_number(tmp_path, undisturbed, monkeypatch):
    for folder, seconds in (("never", 1e9), ("always", 0.0)):
        assert toy.outcome(*toy.train(checkpoint=tmp_path / folder, checkpoint_seconds=seconds)) == undisturbed
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert toy.outcome(*toy.train(checkpoint=tmp_path / "jump", progress=lambda *a, **k: None)) == undisturbed


def test_noise_does_not_depend_on_how_much_the_batch_drew():
    def train(draws: int) -> list[float]:
        seen = []

        def draw(step, generator):
            torch.rand(draws, generator=generator)
            return torch.ones(2, 3)

        def loss(model, batch, generator):
            seen.append(torch.rand((), generator=generator).item())
            seen.append(torch.rand(()).item())
            return model(batch).square().mean(), {}

        fit(nn.Linear(3, 1), draw, loss, SHORT, seed=0)
        return seen

    assert train(1) == train(1000)
    assert len(set(train(1))) == 2 * SHORT.steps


# -- optimisation ------------------------------------------------------------------------------------------------------


def regression(optimisation: Optimisation, seed: int = 0, **options):
    """Fit a small network; return it, its initial copy, its curves and the batches it saw."""
    determinism.reset(seed)
    model = nn.Sequential(nn.Linear(5, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 1))
    initial, batches = copy.deepcopy(model), []

    def draw(step, generator):
        x = torch.randn(8, 5, generator=generator)
        batches.append((x, x.sum(1, keepdim=True)))
        return batches[-1]

    curves = fit(model, draw, squared_error, optimisation, seed=seed, log_every=1, **options)
    return model, initial, curves, batches


def squared_error(model, batch, generator):
    return (model(batch[0]) - batch[1]).square().mean(), {}


def series(curves, name: str) -> list[float]:
    return curves.frame().filter(curves.frame()["series"] == name)["value"].to_list()


def plain_loop(model, batches, optimisation, *, fused: bool, keep=lambda model: None):
    """The same training written out with torch only."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(
        groups, lr=1.0, betas=optimisation.betas, weight_decay=optimisation.weight_decay, fused=fused
    )
    for step, (x, y) in enumerate(batches):
        for group in optimiser.param_groups:
            group["lr"] = optimisation.learning_rate_at(step)
        optimiser.zero_grad()
        (model(x) - y).square().mean().backward()
        if optimisation.gradient_clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), optimisation.gradient_clip)
        optimiser.step()
        keep(model)


@pytest.mark.parametrize("clip", [None, 0.3])
def test_equals_a_plain_loop_with_torch_adamw_on_the_same_batches(clip):
    optimisation = Optimisation(30, 1e-2, warmup_steps=3, weight_decay=0.2, gradient_clip=clip)
    model, initial, _, batches = regression(optimisation)
    assert len(batches) == 30
    fused, unfused = copy.deepcopy(initial), copy.deepcopy(initial)
    plain_loop(fused, batches, optimisation, fused=True)
    plain_loop(unfused, batches, optimisation, fused=False)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, fused.get_parameter(name)), name
        torch.testing.assert_close(parameter, unfused.get_parameter(name), atol=1e-5, rtol=1e-4)


def test_the_average_equals_its_closed_form():
    optimisation = Optimisation(20, 1e-2, ema_decay=0.6)
    model, initial, _, batches = regression(optimisation)
    raw, history = copy.deepcopy(initial), []
    plain_loop(raw, batches, optimisation, fused=True, keep=lambda m: history.append(copy.deepcopy(m.state_dict())))
    decays = [min(0.6, (1 + t) / (10 + t)) for t in range(20)]
    weights = [(1 - decays[t]) * math.prod(decays[t + 1 :]) for t in range(20)]
    first = math.prod(decays)
    assert sum(weights) + first == pytest.approx(1.0)
    for name, value in model.state_dict().items():
        expected = first * initial.state_dict()[name].double()
        expected += sum(w * state[name].double() for w, state in zip(weights, history, strict=True))
        torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(value, history[-1][name], atol=1e-4)


def test_the_learning_rate_is_the_closed_form():
    optimisation = Optimisation(steps=100, learning_rate=2.0, warmup_steps=10, final_fraction=0.25)
    rates = [optimisation.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[99] == pytest.approx(0.5)
    for step in range(10, 100):
        assert rates[step] == pytest.approx(1.25 + 0.75 * math.cos(math.pi * (step - 10) / 89))
    assert series(regression(Optimisation(7, 0.01, warmup_steps=3))[2], "learning_rate") == [
        Optimisation(7, 0.01, warmup_steps=3).learning_rate_at(step) for step in range(7)
    ]


def test_a_warm_up_longer_than_the_run_is_cut_off():
    assert Optimisation(steps=2, learning_rate=1.0, warmup_steps=100).learning_rate_at(1) == pytest.approx(0.02)
    assert Optimisation(steps=1, learning_rate=1.0).learning_rate_at(0) == 1.0


def test_the_gradient_is_clipped_to_the_bound_and_its_norm_recorded_before_clipping():
    direction = torch.tensor([3.0, 4.0])

    def train(clip: float | None) -> tuple[torch.Tensor, list[float]]:
        model = nn.Linear(2, 1, bias=False)
        seen = []
        optimisation = Optimisation(1, 1e-3, gradient_clip=clip)
        curves = fit(
            model,
            lambda step, g: direction,
            lambda m, batch, g: ((m.weight * batch).sum(), {}),
            optimisation,
            seed=0,
            after_step=lambda m, step, g: seen.append(m.weight.grad.clone()),
        )
        return seen[0].flatten(), series(curves, "gradient_norm")

    gradient, norms = train(1.0)
    torch.testing.assert_close(gradient, direction / 5, atol=1e-5, rtol=0)
    assert norms == [5.0]
    assert torch.equal(train(None)[0], direction)
    assert torch.equal(train(100.0)[0], direction)


def test_vectors_are_not_decayed_and_matrices_are():
    model = nn.Linear(3, 2)
    before = copy.deepcopy(model)
    optimisation = Optimisation(1, learning_rate=0.1, weight_decay=0.5)
    fit(
        model,
        lambda s, g: torch.zeros(1),
        lambda m, b, g: (0.0 * (m.weight.sum() + m.bias.sum()), {}),
        optimisation,
        seed=0,
    )
    torch.testing.assert_close(model.weight, before.weight * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias, before.bias)


def test_one_batch_is_overfitted():
    determinism.reset(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.GELU(), nn.Linear(64, 10))
    x, y = torch.randn(16, 6), torch.randint(10, (16,))

    def loss(model, batch, generator):
        return nn.functional.cross_entropy(model(batch[0]), batch[1]), {}

    curves = fit(model, lambda step, g: (x, y), loss, Optimisation(300, 1e-2), seed=0, log_every=1)
    assert series(curves, "loss")[0] > 2
    assert series(curves, "loss")[-1] < 0.01


def test_frozen_parameters_stay_and_get_no_optimiser_state(tmp_path):
    model, _ = toy.train(checkpoint=tmp_path)
    assert torch.equal(model.frozen, toy.build().frozen)
    assert not [
        name for name in load_file(next(tmp_path.iterdir())) if name.startswith("optimiser") and "frozen" in name
    ]


# -- what it reports ---------------------------------------------------------------------------------------------------


def test_a_curve_holds_the_mean_of_each_window_at_the_steps_done():
    def loss(model, batch, generator):
        step = batch["step"]
        extra = {"rare": 7.0} if step == 8 else {}
        return model.weight.sum() * 0 + float(step), {"index": torch.tensor(float(step)), **extra}

    model = nn.Linear(1, 1, bias=False)
    curves = fit(
        model, lambda step, g: {"step": step}, loss, Optimisation(10, 0.1), seed=0, log_every=4, units={"loss": "nats"}
    )
    frame = curves.frame()
    assert frame.filter(frame["series"] == "loss").rows() == [
        ("loss", 4, 1.5, "nats"),
        ("loss", 8, 5.5, "nats"),
        ("loss", 10, 8.5, "nats"),
    ]
    assert series(curves, "index") == [1.5, 5.5, 8.5]
    assert frame.filter(frame["series"] == "rare").rows() == [("rare", 10, 7.0, "")]
    assert series(curves, "gradient_norm") == [0.0, 0.0, 0.0]


def test_progress_reports_seldom_and_always_at_the_end():
    calls = []
    toy.train(log_every=1, progress=lambda done, total, **values: calls.append((done, total, values)))
    assert len(calls) < 20
    done, total, values = calls[-1]
    assert (done, total) == (60, 60)
    assert values.keys() == {"loss", "steps_per_second"}
    assert math.isfinite(values["loss"])
    assert values["steps_per_second"] > 0


def test_a_batch_of_any_nesting_reaches_the_loss_as_it_was_drawn():
    class Pair(NamedTuple):
        image: torch.Tensor
        kept: int

    drawn, seen = (
        {"pair": Pair(torch.ones(1), 3), "more": [torch.zeros(2), (torch.ones(1, dtype=torch.uint8), None)]},
        [],
    )
    fit(
        nn.Linear(1, 1),
        lambda s, g: drawn,
        lambda m, b, g: (seen.append(b) or m(b["pair"].image).sum(), {}),
        SHORT,
        seed=0,
    )
    assert seen == [drawn] * 4
    assert type(seen[0]["pair"]) is Pair


def test_the_model_comes_back_in_evaluation_mode():
    modes = []
    model = nn.Linear(1, 1).eval()
    fit(model, lambda s, g: torch.ones(1), lambda m, b, g: (modes.append(m.training) or m(b).sum(), {}), SHORT, seed=0)
    assert modes == [True] * 4
    assert not model.training


def test_a_series_of_the_loops_own_name_is_refused():
    with pytest.raises(TesseraError, match="'gradient_norm'"):
        fit(
            nn.Linear(1, 1),
            lambda s, g: torch.ones(1),
            lambda m, b, g: (m(b).sum(), {"gradient_norm": 1.0}),
            SHORT,
            seed=0,
        )


@pytest.mark.parametrize("setting", [{"steps": 0}, {"ema_decay": 1.0}, {"ema_decay": -0.1}])
def test_a_meaningless_optimisation_is_refused(setting):
    with pytest.raises(TesseraError, match=next(iter(setting))):
        Optimisation(**{"steps": 1, "learning_rate": 0.1, **setting})


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_at_its_step_and_keeps_the_last_good_state(tmp_path, undisturbed):
    def poisoned(model, batch, generator):
        value, extra = toy.loss(model, batch, generator)
        poisoned.step += 1
        return (value * math.nan if poisoned.step == 23 else value), extra

    poisoned.step = -1
    model = toy.build()
    options = {"seed": 3, "checkpoint": tmp_path, "after_step": toy.after_step, "units": {"loss": "nats"}, **EAGER}
    with pytest.raises(NonFiniteLoss, match=r"^Step 23: loss nan, .*accuracy \d.*Lower the learning rate") as caught:
        fit(model, toy.draw_batch, poisoned, toy.OPTIMISATION, **options)
    assert str(tmp_path) in str(caught.value)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    saved = load_file(next(tmp_path.iterdir()))
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    seen = []
    resumed = toy.train(lambda step, g: seen.append(step) or toy.draw_batch(step, g), checkpoint=tmp_path)
    assert seen[0] == 20
    assert toy.outcome(*resumed) == undisturbed


def test_an_infinite_gradient_of_a_finite_loss_stops_before_it_reaches_the_weights():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)

    def loss(model, batch, generator):
        return (model.weight - batch).abs().sqrt().sum(), {}  # infinite slope at its minimum

    with pytest.raises(NonFiniteLoss, match=r"^Step 0: loss 0, gradient_norm (inf|nan)"):
        fit(model, lambda s, g: torch.ones(1), loss, SHORT, seed=0)
    assert torch.equal(model.weight, torch.ones(1, 1))


def test_a_state_that_after_step_spoiled_is_never_written(tmp_path):
    def spoil(model, step, generator):
        if step == 9:
            model.frozen.fill_(math.inf)

    options = {"seed": 3, "checkpoint": tmp_path, "after_step": spoil, **EAGER}
    model = toy.build()
    with pytest.raises(NonFiniteLoss, match="Parameter frozen is not finite after 10 steps"):
        fit(model, toy.draw_batch, toy.loss, toy.OPTIMISATION, **options)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(next(tmp_path.iterdir())).values())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def flip_the_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'\\\\\\"step\\\\\\": 35', b'\\\\\\"step\\\\\\": 45', 1))
    assert path.read_bytes() != content


def other_file(path: Path) -> None:
    save_file({"weight": torch.ones(3)}, path)


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_weight, flip_the_header, other_file])
def test_a_damaged_checkpoint_is_discarded_with_a_warning(tmp_path, undisturbed, damage, caplog):
    with pytest.raises(Stop):
        toy.train(interrupted_at(37), checkpoint=tmp_path)
    damage(tmp_path / "training.safetensors")
    seen = []
    with caplog.at_level(logging.WARNING):
        outcome = toy.outcome(*toy.train(lambda s, g: seen.append(s) or toy.draw_batch(s, g), checkpoint=tmp_path))
    assert "is discarded, training starts over" in caplog.text
    assert seen[0] == 0
    assert outcome == undisturbed


@pytest.mark.parametrize(
    ("width", "seed", "steps"), [(4, 0, 4), (3, 1, 4), (3, 0, 5)], ids=["shapes", "seed", "optimisation"]
)
def test_the_checkpoint_of_another_training_is_discarded(tmp_path, caplog, width, seed, steps):
    def train(width: int, seed: int, steps: int, **options) -> torch.Tensor:
        determinism.reset(0)
        model = nn.Linear(width, 1)
        loss = lambda m, x, g: (m(x).square().mean(), {})  # noqa: E731
        fit(
            model, lambda s, g: torch.randn(2, width, generator=g), loss, Optimisation(steps, 0.1), seed=seed, **options
        )
        return model.weight.detach()

    train(3, 0, 4, checkpoint=tmp_path)
    assert torch.equal(train(width, seed, steps, checkpoint=tmp_path), train(width, seed, steps))
    assert "is discarded" in caplog.text


def test_a_write_that_fails_midway_leaves_the_state_before(tmp_path, undisturbed, monkeypatch):
    with pytest.raises(Stop):
        toy.train(interrupted_at(12), checkpoint=tmp_path)

    def fail(source, target):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space"):
            toy.train(checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]
    assert toy.outcome(*toy.train(checkpoint=tmp_path)) == undisturbed


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_cuda_no_step_waits_for_the_device_and_a_resume_is_exact(tmp_path):
    def train(**options) -> tuple[nn.Module, list[float]]:
        determinism.reset(0)
        model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 1))

        def draw(step, generator):
            if step == options.get("stop"):
                torch.cuda.set_sync_debug_mode("default")
                raise Stop
            torch.cuda.set_sync_debug_mode("error" if 1 < step < 19 else "default")
            x = torch.randn(16, 8, generator=generator)
            return x, x.sum(1, keepdim=True)

        def loss(model, batch, generator):
            assert batch[0].device.type == "cuda"
            prediction = model(batch[0] + 0.1 * torch.randn(16, 8, device="cuda", generator=generator))
            assert prediction.dtype == torch.bfloat16
            return (prediction.float() - batch[1]).square().mean(), {}

        def after_step(model, step, generator):
            if (step + 1) % 10 == 0:
                torch.cuda.set_sync_debug_mode("default")

        optimisation = Optimisation(20, 1e-2, ema_decay=0.9)
        curves = fit(
            model, draw, loss, optimisation, seed=0, device="cuda", log_every=10, checkpoint=options.get("checkpoint"),
            checkpoint_seconds=0.0, after_step=after_step,
        )  # fmt: skip
        return model, series(curves, "loss")

    whole, losses = train()
    with pytest.raises(Stop):
        train(stop=15, checkpoint=tmp_path)
    resumed, again = train(checkpoint=tmp_path)
    assert losses == again
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name))


@pytest.mark.gpu
def test_on_cuda_the_step_of_a_loss_that_is_not_a_number_is_named_at_the_next_report():
    def loss(model, batch, generator):
        loss.step += 1
        return model(batch).float().sum() * (math.nan if loss.step == 6 else 1.0), {}

    loss.step = -1
    with pytest.raises(NonFiniteLoss, match=r"^Step 6: loss nan"):
        fit(
            nn.Linear(2, 1),
            lambda s, g: torch.ones(1, 2),
            loss,
            Optimisation(20, 0.1),
            seed=0,
            device="cuda",
            log_every=5,
        )
