"""Masked generation: schedule, loss and sampler against counts, closed forms and a known distribution."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from components.diffusion.masked import MaskedGenerationError, MaskedGenerator
from components.training.loop import Optimisation, fit


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(**options) -> MaskedGenerator:
    torch.manual_seed(0)
    sizes = {"codebook_size": 5, "tokens": 6, "classes": 3, "width": 16, "layers": 1, "heads": 2}
    return MaskedGenerator(**(sizes | options))


def masked_after(step: int, steps: int, tokens: int) -> int:
    return (
        0
        if step + 1 == steps
        else min(math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / steps)), tokens - step - 1)
    )


@pytest.mark.parametrize(("steps", "tokens"), [(1, 7), (8, 24), (12, 12), (20, 12)])
def test_every_step_commits_a_token_and_the_last_leaves_none(steps, tokens):
    torch.manual_seed(0)
    net = Recording(codebook_size=3, tokens=tokens, classes=1, width=8, layers=1, heads=1)
    net.shown = []
    result = net.generate(torch.zeros(1, dtype=torch.long), steps=steps, generator=generator())
    remaining = [int((indices == net.mask_token_id).sum()) for indices in [*net.shown, result]]
    assert remaining[0] == tokens
    assert remaining[-1] == 0
    assert all(after < before for before, after in pairwise(remaining))
    assert len(net.shown) == min(steps, tokens)


class Peeking(MaskedGenerator):
    """Notes which tokens it was shown masked."""

    def forward(self, indices, classes):
        self.seen = (indices == self.mask_token_id), classes
        return super().forward(indices, classes)


def test_the_share_of_masked_tokens_follows_the_cosine_of_a_uniform_draw():
    torch.manual_seed(0)
    peeking = Peeking(codebook_size=5, tokens=64, classes=3, width=8, layers=1, heads=1)
    peeking.loss(torch.randint(5, (4000, 64)), torch.randint(3, (4000,)), generator())
    masked, classes = peeking.seen
    shares = masked.float().mean(1)
    # E cos(pi u / 2) = 2 / pi; rounding up adds half a token on average.
    assert float(shares.mean()) == pytest.approx(2 / math.pi + 0.5 / 64, abs=0.02)
    assert int(masked.sum(1).min()) >= 1
    # Which tokens are masked does not depend on the position.
    assert float(masked.float().mean(0).std()) < 0.02
    assert float((classes == 3).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_the_loss_weighs_masked_tokens_ten_times_and_is_a_mean():
    net = model(label_smoothing=0.0, class_dropout=0.0, unmasked_weight=0.1).eval()
    with torch.no_grad():
        net.to_logits.weight.zero_()
        net.to_logits.bias.copy_(torch.tensor([2.0, 0, 0, 0, 0]))
    indices = torch.randint(5, (30, 6), generator=generator())
    # A network blind to its input costs the same wherever the masks fall, for sequences of one code.
    cost = F.cross_entropy(net.to_logits.bias[None], torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(net.loss(indices * 0, torch.zeros(30, dtype=torch.long), generator()), cost)


class Oracle(MaskedGenerator):
    """Knows the distribution: position 0 by class, every other position from a fixed distribution."""

    def forward(self, indices, classes):
        first = torch.tensor([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])[classes]  # the last class is "none"
        others = torch.tensor([0.25, 0.75]).expand(len(classes), self.tokens - 1, 2)
        return torch.cat([first.unsqueeze(1), others], dim=1).log()


def test_one_step_samples_the_predicted_distribution():
    oracle = Oracle(codebook_size=2, tokens=5, classes=2, width=8, layers=1, heads=1)
    classes = torch.arange(2).repeat(4000)
    sampled = oracle.generate(classes, steps=1, generator=generator())
    assert float(sampled[classes == 0, 0].float().mean()) == pytest.approx(0.3, abs=0.025)
    assert float(sampled[classes == 1, 0].float().mean()) == pytest.approx(0.8, abs=0.025)
    assert float(sampled[:, 1:].float().mean()) == pytest.approx(0.75, abs=0.01)


def test_guidance_extrapolates_logits_away_from_the_classless_model():
    oracle = Oracle(codebook_size=2, tokens=2, classes=2, width=8, layers=1, heads=1)
    classes = torch.zeros(8000, dtype=torch.long)
    guided = oracle.generate(classes, steps=1, generator=generator(), guidance=1.0)
    # log odds: free 0, class log(3/7); free + 2 (class - free) = 2 log(3/7)
    expected = 1 / (1 + (7 / 3) ** 2)
    assert float(guided[:, 0].float().mean()) == pytest.approx(expected, abs=0.02)
    plain = oracle.generate(classes, steps=1, generator=generator())
    assert torch.equal(plain, oracle.generate(classes, steps=1, generator=generator(), guidance=0.0))
    grown = oracle.generate(classes, steps=1, generator=generator(), guidance=1.0, guidance_power=1.0)
    assert torch.equal(plain, grown)  # growing guidance starts at zero


class Recording(MaskedGenerator):
    """Notes every sequence it is shown while generating."""

    def forward(self, indices, classes):
        if not self.training:
            self.shown.append(indices.clone())
        return super().forward(indices, classes)


def test_tokens_once_committed_stay_and_none_is_left_masked():
    torch.manual_seed(0)
    net = Recording(codebook_size=5, tokens=12, classes=3, width=16, layers=1, heads=2)
    net.shown = []
    result = net.generate(torch.tensor([0, 1, 2]), steps=5, generator=generator())
    shown = [*net.shown, result]
    for step, (before, after) in enumerate(pairwise(shown)):
        known = before != net.mask_token_id
        assert torch.equal(after[known], before[known])
        assert bool(((after == net.mask_token_id).sum(1) == masked_after(step, 5, 12)).all())
    assert int(result.max()) < 5


def test_without_noise_the_surest_tokens_are_committed_first():
    class Graded(MaskedGenerator):
        def forward(self, indices, classes):
            sharp = torch.arange(1.0, self.tokens + 1).view(1, -1, 1) * torch.tensor([50.0, 0.0])
            self.shown = [*getattr(self, "shown", []), indices.clone()]
            return sharp.expand(len(classes), -1, -1)

    graded = Graded(codebook_size=2, tokens=4, classes=1, width=8, layers=1, heads=1)
    with torch.no_grad():
        graded.generate(torch.zeros(1, dtype=torch.long), steps=2, generator=generator(), randomness=0.0)
    masked = (graded.shown[1] == graded.mask_token_id)[0]
    assert masked.sum() == masked_after(0, 2, 4)


def test_it_learns_which_sequences_belong_to_which_class():
    net = model(codebook_size=4, tokens=6, classes=2, width=32, heads=4, layers=2)
    truth = torch.tensor([[0, 1, 0, 1, 2, 2], [3, 3, 1, 1, 0, 2]])

    def draw(step, generator):
        classes = torch.randint(2, (32,), generator=generator)
        return truth[classes], classes

    def loss(net, batch, generator):
        return net.loss(*batch, generator), {}

    fit(net, draw, loss, Optimisation(steps=150, learning_rate=3e-3, warmup_steps=10), seed=0)
    classes = torch.arange(2).repeat(20)
    made = net.generate(classes, steps=4, generator=generator(), guidance=1.0, randomness=1.0)
    assert float((made == truth[classes]).float().mean()) > 0.97


def test_no_steps_are_refused():
    with pytest.raises(MaskedGenerationError, match="at least 1"):
        model().generate(torch.zeros(1, dtype=torch.long), steps=0, generator=generator())


def test_the_papers_generator_builds_without_memory():
    with torch.device("meta"):
        net = MaskedGenerator(codebook_size=4096, tokens=256, classes=1000, width=768, layers=24, heads=16)
    assert 170e6 < sum(parameter.numel() for parameter in net.parameters()) < 185e6
