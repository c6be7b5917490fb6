"""The flow-matching head against flows whose velocity is known."""

import pytest
import torch

from components.nn.flow_head import FlowHead, FlowHeadError, TimeEmbedding
from components.training.loop import Optimisation, fit


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(**settings) -> FlowHead:
    torch.manual_seed(0)
    return FlowHead(3, 2, **{"width": 16, "layers": 2, "steps": 20, "draws": 2} | settings)


@pytest.mark.parametrize("steps", [1, 7])
def test_euler_steps_along_the_straight_path_to_a_point_end_at_the_point(monkeypatch, steps):
    target = torch.tensor([1.5, -2.0])
    model = head(steps=steps)
    # On the straight path from noise e to z the velocity e - z is (z_t - z) / t.
    monkeypatch.setattr(model, "velocity", lambda noisy, time, condition: (noisy - target) / time)
    torch.testing.assert_close(model.sample(torch.zeros(4, 3), generator()), target.expand(4, 2))


def test_guidance_moves_along_the_combined_velocity(monkeypatch):
    model = head(steps=1)
    monkeypatch.setattr(model, "velocity", lambda noisy, time, condition: condition[:, :2])
    model.project = torch.nn.Identity()
    drawn = model.sample(torch.ones(5, 3), generator(), unguided=torch.zeros(5, 3), guidance=3.0)
    torch.testing.assert_close(drawn, torch.randn(5, 2, generator=generator()) - 3.0)


def test_a_new_head_predicts_no_velocity_so_its_loss_is_the_variance_of_noise_and_data():
    model = head(draws=200)
    tokens = 2 * torch.randn(400, 2, generator=generator())
    expected = 1 + float(tokens.square().mean())
    assert float(model.loss(tokens, torch.zeros(400, 3), generator(1)).detach()) == pytest.approx(expected, rel=0.02)


def test_it_learns_to_draw_from_a_gaussian_that_depends_on_the_condition():
    model = head()
    means = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
    conditions = torch.eye(3)[:2]

    def batch(step, drawn):
        rows = torch.randint(2, (128,), generator=drawn)
        return means[rows] + 0.3 * torch.randn(128, 2, generator=drawn), conditions[rows]

    fit(model, batch, lambda model, batch, drawn: (model.loss(*batch, drawn), {}),
        Optimisation(steps=250, learning_rate=1e-2), seed=0)  # fmt: skip
    for condition, mean in zip(conditions, means, strict=True):
        drawn = model.sample(condition.expand(2000, -1), generator())
        torch.testing.assert_close(drawn.mean(0), mean, atol=0.12, rtol=0)
        torch.testing.assert_close(drawn.std(0), torch.full((2,), 0.3), atol=0.12, rtol=0)


def test_times_that_differ_are_told_apart():
    embedding = TimeEmbedding(8)
    times = torch.linspace(0, 1, 101)
    assert embedding(times).shape == (101, 8)
    angles = torch.cat(
        [(times.unsqueeze(-1) * embedding.rates).cos(), (times.unsqueeze(-1) * embedding.rates).sin()], 1
    )
    distances = torch.cdist(angles, angles) + 10 * torch.eye(101)
    assert float(distances.min()) > 0.05


def test_tokens_of_another_kind_and_no_steps_are_refused():
    with pytest.raises(FlowHeadError, match=r"floats \(N, 2\)"):
        head().loss(torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, 3), generator())
    with pytest.raises(FlowHeadError, match="at least 1"):
        head(steps=0)
