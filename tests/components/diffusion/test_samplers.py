"""Samplers against enumerated distributions, counts of noisy tokens in every step, and what padding must not change."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from components.diffusion.noise import AbsorbingNoise, UniformNoise
from components.diffusion.samplers import (
    Routing,
    categorical,
    least,
    sample_ancestral,
    sample_committing,
    sample_routed,
)
from components.diffusion.schedules import CosineSchedule, DiffusionError, Grid, LinearSchedule

WORDS, MASK, PAD = 4, 4, 5
ABSORBING = AbsorbingNoise(6, MASK)
UNIFORM = UniformNoise(6, [MASK, PAD])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Table:
    """Random logits of every position that depend on the whole sequence, and a note of what was asked."""

    def __init__(self, lengths: torch.Tensor, seed: int = 0) -> None:
        self.lengths, self.asked = lengths, []
        self.mixing = torch.randn(64, WORDS, generator=seeded(seed))

    def __call__(self, tokens, times, rows, wanted):
        width = tokens.shape[1]
        present = torch.arange(width) < self.lengths[rows, None]
        # Padding is left out of the sum; a position sees every token and where it is.
        summary = ((tokens + 1) * (torch.arange(width) * 7 + 3) * present).sum(1, keepdim=True)
        key = (summary + torch.arange(width) * 5 + rows[:, None] * 11) % 64
        self.asked.append((rows.clone(), wanted.clone(), times.clone()))
        return self.mixing[key].flatten(0, 1)[wanted]


def blank(lengths: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generated = torch.arange(width) < lengths[:, None]
    return torch.where(generated, MASK, PAD), generated


def routed(lengths, width, steps, noise=ABSORBING, seed=0, watch=None, **options):
    tokens, generated = blank(lengths, width)
    denoiser = Table(lengths)
    grid = Grid(CosineSchedule(), 50)
    rule = Routing(**options)
    return sample_routed(
        denoiser, tokens, generated, noise, grid, steps, seeded(seed), routing=rule, watch=watch
    ), denoiser


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.integers(1, 14),
    st.sampled_from(["linear", "cosine"]),
    st.booleans(),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
)
def test_after_each_step_as_many_tokens_are_noise_as_the_schedule_says(
    lengths, steps, decay, conditional, randomness, absorbing
):
    lengths = torch.tensor(lengths)
    share = (lambda p: 1 - p) if decay == "linear" else (lambda p: math.cos(math.pi / 2 * p))
    seen = []

    def watch(step, tokens, noisy):
        left = [math.floor(n * share((step + 1) / steps) + 1e-9) if step + 1 < steps else 0 for n in lengths.tolist()]
        count = noisy.sum(1).tolist()
        if conditional:
            assert all(now <= most for now, most in zip(count, left, strict=True))
        else:
            assert count == left
        if absorbing:
            assert torch.equal(noisy, tokens == MASK)
        assert bool((tokens[torch.arange(tokens.shape[1]) >= lengths[:, None]] == PAD).all())
        seen.append(step)

    sampled, denoiser = routed(
        lengths, 12, steps, ABSORBING if absorbing else UNIFORM,
        watch=watch, decay=decay, conditional=conditional, randomness=randomness,
    )  # fmt: skip
    assert seen == list(range(steps))
    generated = torch.arange(12) < lengths[:, None]
    assert bool((sampled.tokens[generated] < WORDS).all())
    assert bool((sampled.tokens[~generated] == PAD).all())
    assert bool((sampled.calls <= steps).all())
    assert int(sampled.positions.sum()) == sum(len(wanted) for _, wanted, _ in denoiser.asked)
    assert int(sampled.calls.sum()) == sum(len(rows) for rows, _, _ in denoiser.asked)


def test_one_step_of_routing_is_the_parallel_argmax():
    lengths = torch.tensor([5, 3])
    for noise in (ABSORBING, UNIFORM):
        sampled, denoiser = routed(lengths, 5, 1, noise)
        tokens, generated = blank(lengths, 5)
        start = noise.at(torch.zeros(2, 5)) if noise is ABSORBING else None
        if start is not None:
            logits = denoiser(torch.where(generated, start, tokens), torch.ones(2), torch.arange(2), torch.arange(10))
            expected = torch.where(generated, logits.argmax(-1).view(2, 5), tokens)
            assert torch.equal(sampled.tokens, expected)
        assert sampled.calls.tolist() == [1, 1]
        assert sampled.positions.tolist() == [5, 3]


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("noise", [ABSORBING, UNIFORM])
def test_padding_changes_no_output(noise, conditional):
    lengths = torch.tensor([6, 4, 1])
    for steps in (2, 5):
        (short, _), (long, _) = (
            routed(lengths, width, steps, noise, conditional=conditional, randomness=1.0) for width in (6, 11)
        )
        assert torch.equal(short.tokens, long.tokens[:, :6])
        assert torch.equal(short.scores, long.scores[:, :6])
        assert torch.equal(short.calls, long.calls)
        tokens = [
            sample_ancestral(
                Table(lengths),
                *blank(lengths, width),
                noise,
                Grid(LinearSchedule(), 10),
                steps,
                seeded(),
                temperature=1.0,
            ).tokens[:, :6]
            for width in (6, 11)
        ]
        assert torch.equal(*tokens)
    tokens = [
        sample_committing(Table(lengths), *blank(lengths, width), ABSORBING, 3, seeded(), temperature=1.0).tokens[:, :6]
        for width in (6, 11)
    ]
    assert torch.equal(*tokens)


def test_in_conditional_routing_only_a_token_that_its_own_prediction_doubts_returns_to_noise():
    lengths = torch.full((40,), 9)
    before = {}

    def watch(step, tokens, noisy):
        if before:
            returned = noisy & ~before["noisy"]
            assert bool((tokens[returned] == MASK).all())
            before["returns"] += int(returned.sum())
            kept = ~noisy & ~before["noisy"]
            assert torch.equal(tokens[kept], before["tokens"][kept])
        before.update(tokens=tokens, noisy=noisy, returns=before.get("returns", 0))

    routed(lengths, 9, 6, watch=watch, decay="cosine", conditional=True)
    conditional = before.pop("returns")
    before.clear()
    routed(lengths, 9, 6, watch=watch, decay="cosine", conditional=False)
    assert 0 < conditional < before["returns"]


def test_exact_coins_with_the_true_start_have_the_forward_marginal_at_every_visited_step():
    grid, truth, draws = Grid(LinearSchedule(), 6), 2, 40_000
    noise = UniformNoise(4)
    states = []

    def oracle(tokens, times, rows, wanted):
        states.append((tokens.clone(), float(times[0])))
        return torch.where(torch.arange(4) == truth, 0.0, -math.inf).expand(len(wanted), 4)

    start = torch.zeros(draws, 1).long()
    sampled = sample_ancestral(oracle, start, torch.ones_like(start).bool(), noise, grid, 3, seeded(), exact=True)
    assert [time for _, time in states] == pytest.approx([1, 4 / 6, 2 / 6])
    for tokens, time in states[1:]:
        expected = noise.transition(1 - time)[truth] * draws
        assert chisquare(tokens[:, 0].bincount(minlength=4), expected).pvalue > 0.01
    assert bool((sampled.tokens == truth).all())


def chain_rule(order, logits_of) -> dict:
    """The joint distribution of an autoregression over positions in some order, by enumeration."""
    joint = {}
    length = len(order)
    for values in itertools.product(range(2), repeat=length):
        state, chance = [2] * length, 1.0
        for position in order:
            chance *= float(logits_of(state)[position].softmax(-1)[values[position]])
            state[position] = values[position]
        joint[values] = chance
    return joint


def test_one_token_a_step_in_random_order_is_order_agnostic_autoregression():
    noise, length, draws = AbsorbingNoise(3, 2), 3, 30_000
    table = torch.randn(27, length, 2, generator=seeded(3)) * 1.5

    def logits_of(state):
        return table[state[0] * 9 + state[1] * 3 + state[2]]

    def network(tokens, times, rows, wanted):
        return table[tokens @ torch.tensor([9, 3, 1])].flatten(0, 1)[wanted]

    start = torch.full((draws, length), 2)
    sampled = sample_committing(
        network, start, torch.ones_like(start).bool(), noise, length, seeded(), order="random", temperature=1.0
    )
    orders = list(itertools.permutations(range(length)))
    joints = [chain_rule(order, logits_of) for order in orders]
    expected = torch.tensor([sum(joint[key] for joint in joints) / len(orders) for key in joints[0]]) * draws
    observed = (sampled.tokens @ torch.tensor([4, 2, 1])).bincount(minlength=8)
    assert chisquare(observed, expected.double() * draws / expected.double().sum()).pvalue > 0.01
    assert sampled.calls.unique().tolist() == [3]
    assert sampled.positions.unique().tolist() == [3 + 2 + 1]
    # The coins of the posterior on a fine grid write one token at a time, too, in a random order.
    fine = sample_ancestral(
        network,
        start[:15_000],
        start[:15_000] == 2,
        noise,
        Grid(LinearSchedule(), 300),
        300,
        seeded(1),
        temperature=1.0,
    )
    observed = (fine.tokens @ torch.tensor([4, 2, 1])).bincount(minlength=8)
    assert chisquare(observed, expected.double() * 15_000 / expected.double().sum()).pvalue > 0.005
    assert fine.positions.unique().tolist() == [3]
    assert int(fine.calls.max()) == 3


def test_ancestral_sampling_in_two_jumps_has_the_enumerated_distribution():
    noise, draws, grid = AbsorbingNoise(3, 2), 30_000, Grid(LinearSchedule(), 4)
    table = torch.randn(9, 2, 2, generator=seeded(5)) * 1.5

    def network(tokens, times, rows, wanted):
        return table[tokens @ torch.tensor([3, 1])].flatten(0, 1)[wanted]

    start = torch.full((draws, 2), 2)
    sampled = sample_ancestral(network, start, start == 2, noise, grid, 2, seeded(), temperature=1.0)
    # T = 4 in jumps 4 -> 2 -> 0: every mask falls in the first jump with probability 1/2.
    first = table[8].softmax(-1)
    expected = torch.zeros(2, 2)
    for a, b in itertools.product(range(2), repeat=2):
        both = first[0, a] * first[1, b]
        left = first[0, a] * table[a * 3 + 2].softmax(-1)[1, b]
        right = first[1, b] * table[2 * 3 + b].softmax(-1)[0, a]
        expected[a, b] = both / 4 + left / 4 + right / 4 + both / 4
    observed = (sampled.tokens @ torch.tensor([2, 1])).bincount(minlength=4)
    assert chisquare(observed, expected.flatten().double() / expected.double().sum() * draws).pvalue > 0.01


def test_coins_that_run_ahead_write_earlier():
    lengths = torch.full((200,), 20)
    grid = Grid(LinearSchedule(), 50)
    positions = []
    for offset in (0, 10):
        table = Table(lengths)
        sample_ancestral(table, *blank(lengths, 20), ABSORBING, grid, 5, seeded(), offset=offset)
        positions.append(len(table.asked[0][1]) / 4000)
    # From t = 50 to s = 40: (1 - 0.8) of the masks fall, ahead by 10 it is 0.4.
    assert positions == pytest.approx([0.2, 0.4], abs=0.03)


def test_committed_tokens_stay_and_mask_predict_may_mask_them_again():
    lengths = torch.full((30,), 8)
    for revisable in (False, True):
        shown, returned = [], 0
        sampled = sample_committing(
            Table(lengths), *blank(lengths, 8), ABSORBING, 4, seeded(), revisable=revisable,
            watch=lambda step, tokens, masked, shown=shown: shown.append((tokens, masked)),
        )  # fmt: skip
        for (earlier, was), (later, now) in itertools.pairwise(shown):
            returned += int((now & ~was).sum())
            kept = ~was & ~now
            assert torch.equal(earlier[kept], later[kept])
        assert [int(masked.sum(1).float().mean()) for _, masked in shown] == [6, 4, 2, 0]
        assert (returned > 0) == revisable
        assert bool((sampled.tokens < WORDS).all())


def test_a_threshold_writes_what_is_sure_and_at_least_one_token():
    sure = torch.tensor([4.0, 3.0, 0.1, 0.0])

    def network(tokens, times, rows, wanted):
        return torch.stack([sure, torch.zeros(4)], -1).repeat(len(rows), 1)[wanted]

    start = torch.full((2, 4), 2)
    seen = []
    sample_committing(
        network, start, start == 2, AbsorbingNoise(3, 2), 10, seeded(), threshold=0.9,
        watch=lambda step, tokens, masked: seen.append(int(masked[0].sum())),
    )  # fmt: skip
    assert seen[:3] == [2, 1, 0]
    with pytest.raises(DiffusionError, match="exclude each other"):
        sample_committing(network, start, start == 2, AbsorbingNoise(3, 2), 2, seeded(), threshold=0.9, revisable=True)


def test_finished_sequences_are_not_asked_again():
    lengths = torch.tensor([1, 8])
    table = Table(lengths)
    sampled = sample_committing(table, *blank(lengths, 8), ABSORBING, 8, seeded())
    assert sampled.calls.tolist() == [1, 8]
    assert [rows.tolist() for rows, _, _ in table.asked] == [[0, 1]] + [[1]] * 7


def test_draws_by_inversion_have_the_softmax_distribution():
    log_weights = torch.tensor([0.3, -1.0, 2.0, -20.0])
    drawn = categorical(log_weights.expand(50_000, 4), torch.rand(50_000, generator=seeded()))
    expected = log_weights.double().softmax(-1) * 50_000
    assert chisquare(drawn.bincount(minlength=4)[:3], expected[:3] * 50_000 / expected[:3].sum()).pvalue > 0.01
    assert categorical(torch.zeros(2, 3), torch.tensor([0.0, 1 - 2**-24])).tolist() == [0, 2]


@given(st.integers(0, 6), st.integers(0, 1000))
def test_the_least_sure_are_the_first_of_the_stable_order(count, seed):
    confidence = torch.randint(-3, 0, (1, 6), generator=seeded(seed)).float()
    among = torch.tensor([[True, False, True, True, True, False]])
    count = min(count, 4)
    order = sorted((float(confidence[0, place]), place) for place in range(6) if among[0, place])
    expected = sorted(place for _, place in order[:count])
    assert least(confidence, torch.tensor([count]), among)[0].nonzero()[:, 0].tolist() == expected


def test_impossible_walks_are_refused():
    with pytest.raises(DiffusionError, match="51 jumps on a grid of 50"):
        routed(torch.tensor([3]), 3, 51)
    with pytest.raises(DiffusionError, match="temperature"):
        sample_committing(
            Table(torch.tensor([1])), *blank(torch.tensor([1]), 1), ABSORBING, 1, seeded(), temperature=-1
        )
