"""Every method against a loop that does what its source says."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.compression.merging import energy
from components.compression.merging.attention_energy import AttentionEnergy
from components.compression.merging.pitome import PiToMe, build
from components.compression.merging.pitome_bsm import PiToMeBipartite
from components.compression.merging.plan import Depth, MergeError, MergePlan, destinations, merged
from components.compression.merging.random_pairs import RandomPairs
from components.compression.merging.tofu import ToFu
from components.compression.merging.tome import ToMe

seeds = st.integers(0, 10_000)


def drawn(seed: int, batch: int, tokens: int, width: int = 4) -> torch.Tensor:
    return torch.randn(
        batch, tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )  # fmt: skip


def partition(plan: MergePlan, row: int = 0) -> set[frozenset[int]]:
    ends = destinations(plan)[row].tolist()
    return {frozenset(token for token, end in enumerate(ends) if end == place) for place in set(ends)}


def cosine(metric: torch.Tensor, i: int, j: int) -> float:
    return float(metric[i] @ metric[j] / metric[i].norm() / metric[j].norm())


def energy_of(metric: torch.Tensor, i: int, margin: float, kind: str) -> float:
    total = 0.0
    for j in range(len(metric)):
        c = cosine(metric, i, j)
        if kind == "kernel":
            total += math.exp(-(((1 - c) / (1 - margin)) ** 2) / 2)
        elif c >= margin:
            total += c if kind == "paper" else c - margin
        else:
            total += math.exp(c - margin) - 1
    return total / len(metric)


@pytest.mark.parametrize("kind", ["code", "paper", "kernel"])
@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(1, 9), st.floats(0.0, 0.95))
def test_energies_are_their_equations(kind, seed, tokens, margin):
    metric = drawn(seed, 2, tokens)
    found = energy.energies(energy.directions(metric), margin, kind)
    for row in range(2):
        wanted = [energy_of(metric[row], i, margin, kind) for i in range(tokens)]
        torch.testing.assert_close(found[row], torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["code", "paper"])
@pytest.mark.parametrize("split", ["alternate", "halves"])
@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(2, 14), st.data())
def test_pitome_is_its_loop(kind, split, seed, tokens, data):
    count = data.draw(st.integers(0, tokens // 2))
    metric = drawn(seed, 2, tokens)
    depth = Depth(data.draw(st.integers(0, 5)), 6)
    plan = PiToMe(kind, 0.9, split=split).plan(metric, count, depth)
    for row in range(2):
        margin = 0.9 * (1 - depth.layer / 6)
        ranked = sorted(range(tokens), key=lambda i: -energy_of(metric[row], i, margin, kind))
        able = ranked[: 2 * count]
        first, second = (able[::2], able[1::2]) if split == "alternate" else (able[:count], able[count:])
        wanted = {token: {token} for token in range(tokens)}
        for a in first:
            best = max(second, key=lambda b: cosine(metric[row], a, b))
            wanted[best] |= wanted.pop(a)
        assert partition(plan, row) == {frozenset(group) for group in wanted.values()}


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 14), st.data())
def test_tome_is_its_loop_over_places(seed, tokens, data):
    count = data.draw(st.integers(0, tokens // 2))
    metric = drawn(seed, 2, tokens)
    _is_bipartite(ToMe().plan(metric, count, Depth()), metric, [list(range(tokens))] * 2, count)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(2, 14), st.data())
def test_the_bipartite_variant_is_the_same_loop_over_ranks_of_energy(seed, tokens, data):
    count = data.draw(st.integers(0, tokens // 2))
    metric = drawn(seed, 2, tokens)
    orders = [
        sorted(range(tokens), key=lambda i, own=own: -energy_of(own, i, 0.6, "code")) for own in metric
    ]  # fmt: skip
    _is_bipartite(PiToMeBipartite(margin=0.9).plan(metric, count, Depth(2, 6)), metric, orders, count)


def _is_bipartite(plan: MergePlan, metric: torch.Tensor, orders: list[list[int]], count: int) -> None:
    for row, order in enumerate(orders):
        first, second = order[::2], order[1::2]
        edges = []
        for a in first:
            best = max(second, key=lambda b: cosine(metric[row], a, b))
            edges.append((cosine(metric[row], a, best), a, best))
        wanted = {token: {token} for token in order}
        for _, a, b in sorted(edges, reverse=True)[:count]:
            wanted[b] |= wanted.pop(a)
        assert partition(plan, row) == {frozenset(group) for group in wanted.values()}


def test_the_order_of_what_passes_under_tome_is_the_order_of_the_sequence():
    plan = ToMe().plan(drawn(0, 3, 12), 2, Depth())
    left = plan.kept[:, : 6 - 2]
    assert torch.equal(left, left.sort(1).values)
    assert (left % 2 == 0).all()
    assert plan.kept[:, 4:].tolist() == [[1, 3, 5, 7, 9, 11]] * 3


def isolated(lonely: int) -> torch.Tensor:
    """Two clusters of six tokens, and one token far from both at a place."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.cat([torch.eye(8)[:1].expand(6, -1), torch.eye(8)[1:2].expand(6, -1)])
    tokens = tokens + 0.05 * torch.randn(12, 8, generator=generator)
    return torch.cat([tokens[:lonely], torch.eye(8)[5:6], tokens[lonely:]])[None]


@pytest.mark.parametrize("lonely", range(13))
@pytest.mark.parametrize("count", [1, 3, 5])
def test_an_isolated_token_survives_bit_by_bit(lonely, count):
    tokens = isolated(lonely)
    after, sizes = merged(PiToMe().plan(tokens, count, Depth()), tokens)
    same = (after[0] == tokens[0, lonely]).all(1)
    assert same.sum() == 1
    assert sizes[0, same] == 1


def test_an_isolated_token_can_be_merged_by_parity():
    # With k = |A| every token of A must merge, whatever stands there.
    tokens = torch.cat([isolated(4), isolated(4)[:, -1:]], 1)
    after, _ = merged(ToMe().plan(tokens, 7, Depth()), tokens)
    assert not (after[0] == tokens[0, 4]).all(1).any()
    after, _ = merged(PiToMe().plan(tokens, 5, Depth()), tokens)
    assert (after[0] == tokens[0, 4]).all(1).any()


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(4, 20))
def test_a_permutation_of_the_tokens_permutes_what_pitome_gives(seed, tokens):
    metric = drawn(seed, 1, tokens)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    for method in (PiToMe(), PiToMe("paper"), PiToMe("kernel", split="halves"), PiToMeBipartite()):
        one, other = (_rows(method, given) for given in (metric, metric[:, order]))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def _rows(method, metric: torch.Tensor) -> torch.Tensor:
    rows = merged(method.plan(metric, metric.shape[1] // 4, Depth(1, 6)), metric)[0][0]
    return rows[rows[:, 0].argsort()]


def test_tome_depends_on_the_order_of_the_tokens():
    metric = drawn(7, 1, 16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(7))
    assert not torch.allclose(_rows(ToMe(), metric), _rows(ToMe(), metric[:, order]))


def test_margins_fall_with_depth():
    values = [energy.margin_at(0.9, None, Depth(layer, 6)) for layer in range(6)]
    assert values == pytest.approx([0.9, 0.75, 0.6, 0.45, 0.3, 0.15])
    text = [energy.margin_at(0.9, 0.25, Depth(layer, 5)) for layer in range(5)]
    assert text == pytest.approx([0.9, 0.85, 0.8, 0.75, 0.7])


def test_the_margin_of_a_block_decides_what_it_merges():
    metric = drawn(11, 1, 40, 3)
    plans = [partition(PiToMe(margin=0.9).plan(metric, 8, Depth(layer, 6))) for layer in (0, 5)]
    assert plans[0] != plans[1]


def test_a_random_split_protects_the_same_tokens_and_divides_the_others_otherwise():
    metric = drawn(3, 4, 20)
    ordinary = PiToMe().plan(metric, 6, Depth())
    split = PiToMe(split="random").plan(metric, 6, Depth(generator=torch.Generator().manual_seed(0)))
    assert torch.equal(ordinary.kept[:, :8], split.kept[:, :8])
    assert not torch.equal(ordinary.gone.sort(1).values, split.gone.sort(1).values)
    for row in range(4):
        for a, place in zip(split.gone[row].tolist(), split.into[row].tolist(), strict=True):
            partners = split.kept[row, 8:].tolist()
            best = max(partners, key=lambda b, a=a: cosine(metric[row], a, b))
            assert split.kept[row, place] == best


def test_random_pairs_are_pairs_and_differ_between_rows_and_draws():
    metric = drawn(0, 6, 10)
    generator = torch.Generator().manual_seed(0)
    one, other = (RandomPairs().plan(metric, 3, Depth(generator=generator)) for _ in range(2))
    for row in range(6):
        assert sorted(map(len, partition(one, row))) == [1, 1, 1, 1, 2, 2, 2]
    assert len({frozenset(partition(one, row)) for row in range(6)}) == 6
    assert not torch.equal(one.gone, other.gone)


def test_every_pair_is_drawn_equally_often():
    metric = torch.zeros(6000, 4, 1)
    plan = RandomPairs().plan(metric, 1, Depth(generator=torch.Generator().manual_seed(0)))
    pairs = [tuple(sorted(next(group for group in partition(plan, row) if len(group) == 2))) for row in range(6000)]
    counts = torch.tensor([pairs.count(pair) for pair in sorted(set(pairs))]).double()
    assert len(counts) == 6
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 20.5  # 99.9% of a chi-square with five degrees of freedom


def test_attention_protects_what_the_class_token_looks_at():
    metric = drawn(5, 2, 9)
    attention = torch.rand(2, 9, generator=torch.Generator().manual_seed(5))
    plan = AttentionEnergy().plan(metric, 3, Depth(attention=attention))
    for row in range(2):
        ranked = attention[row].argsort().tolist()
        assert sorted(plan.gone[row].tolist()) == sorted(ranked[:6:2])
        assert set(plan.kept[row, :3].tolist()) == set(ranked[6:])
    with pytest.raises(MergeError, match="was not given"):
        AttentionEnergy().plan(metric, 3, Depth())


def test_tofu_drops_in_one_half_of_the_blocks_and_averages_in_the_other():
    metric = drawn(6, 1, 8)
    early = [ToFu("early").plan(metric, 2, Depth(layer, 6)) for layer in range(6)]
    late = [ToFu("late").plan(metric, 2, Depth(layer, 6)) for layer in range(6)]
    assert [plan.average for plan in early] == [False] * 3 + [True] * 3
    assert [plan.average for plan in late] == [True] * 3 + [False] * 3
    assert torch.equal(early[0].gone, ToMe().plan(metric, 2, Depth()).gone)


def test_what_is_merged_does_not_depend_on_lengths():
    metric = drawn(8, 1, 12)
    scaled = metric * torch.rand(1, 12, 1, generator=torch.Generator().manual_seed(1)).double().add(0.5)
    for method in (PiToMe(), PiToMeBipartite(), ToMe()):
        assert partition(method.plan(metric, 4, Depth())) == partition(method.plan(scaled, 4, Depth()))


def test_energies_do_not_depend_on_how_many_sequences_are_held_at_once(monkeypatch):
    unit = energy.directions(drawn(9, 7, 10))
    whole = energy.energies(unit, 0.5, "code")
    monkeypatch.setattr(energy, "_ENTRIES", 250)
    torch.testing.assert_close(energy.energies(unit, 0.5, "code"), whole, rtol=0, atol=1e-14)


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(MergeError, match="expected 'alternate', 'halves' or 'random'"):
        build(split="odd")
    with pytest.raises(MergeError, match="expected 'early' or 'late'"):
        ToFu("never")
    with pytest.raises(MergeError, match="expected 'code', 'paper' or 'kernel'"):
        energy.energies(torch.eye(2)[None], 0.5, "mean")
