"""Two players that never reach into each other, and LeCam by its equation."""

import torch
import torch.nn.functional as F

from components.nn.patch_discriminator import PatchDiscriminator


def players():
    torch.manual_seed(0)
    return PatchDiscriminator(width=4, layers=2), torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)


def test_the_generators_loss_moves_images_and_no_weight_of_the_judge():
    judge, _, fakes = players()
    loss = judge.generator_loss(fakes.requires_grad_())
    torch.testing.assert_close(loss, -judge(fakes).mean())
    loss.backward()
    assert float(fakes.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_the_judges_loss_moves_its_weights_and_no_image():
    judge, reals, fakes = players()
    judge.discriminator_loss(reals.requires_grad_(), fakes.requires_grad_(), 0.001).backward()
    assert reals.grad is None
    assert fakes.grad is None
    assert all(parameter.grad is not None for parameter in judge.parameters())


def test_hinge_and_lecam_follow_their_equations_and_averages_move_after_the_step():
    judge, reals, fakes = players()
    judge.lecam_decay = 0.9
    judge.real_mean.fill_(0.3)
    judge.fake_mean.fill_(-0.2)
    real, fake = judge(reals), judge(fakes)
    hinge = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    lecam = F.relu(real.mean() + 0.2) ** 2 + F.relu(0.3 - fake.mean()) ** 2
    torch.testing.assert_close(judge.discriminator_loss(reals, fakes, 0.5), hinge + 0.5 * lecam)
    assert float(judge.real_mean) == torch.tensor(0.3)
    judge.after_step()
    torch.testing.assert_close(judge.real_mean, 0.9 * torch.tensor(0.3) + 0.1 * real.mean().detach())
    torch.testing.assert_close(judge.fake_mean, -0.9 * torch.tensor(0.2) + 0.1 * fake.mean().detach())


def test_a_trained_judge_tells_real_from_fake():
    judge, reals, _ = players()
    optimiser = torch.optim.Adam(judge.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        judge.discriminator_loss(reals, 1 - reals, 0.0).backward()
        optimiser.step()
    assert judge(reals).mean().item() > judge(1 - reals).mean().item() + 0.5
