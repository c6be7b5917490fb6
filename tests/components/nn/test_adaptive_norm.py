"""Adaptive norm against the transformer block that it becomes when the condition says nothing."""

import torch

from components.nn.adaptive_norm import AdaptiveBlock, AdaptiveNorm, modulate
from components.nn.rotary import rotary_angles
from components.nn.transformer import Block, KeyValueCache, TransformerConfig

CONFIG = TransformerConfig(8, 1, 2, causal=True)


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def block() -> AdaptiveBlock:
    torch.manual_seed(0)
    made = AdaptiveBlock(CONFIG, 5, 0)
    torch.nn.init.normal_(made.modulation.linear.weight, std=0.5)
    return made.eval()


@torch.no_grad()
def test_a_new_block_is_the_identity():
    tokens = torch.randn(2, 4, 8, generator=generator())
    fresh = AdaptiveBlock(CONFIG, 5, 0)
    assert torch.equal(fresh(tokens, fresh.modulations(torch.randn(2, 5))), tokens)


@torch.no_grad()
def test_with_open_gates_and_nothing_else_it_is_a_plain_block():
    adaptive, plain = block(), Block(CONFIG, 0)
    plain.load_state_dict({name: value for name, value in adaptive.state_dict().items() if "modulation" not in name},
                          strict=False)  # fmt: skip
    tokens = torch.randn(3, 6, 8, generator=generator())
    zero, one = torch.zeros(3, 1, 8), torch.ones(3, 1, 8)
    expected = plain(tokens, None, True, None, None, None, None)
    torch.testing.assert_close(adaptive(tokens, (zero, zero, one, zero, zero, one)), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_condition_of_its_own_for_every_token_is_one_condition_where_all_are_equal():
    model, tokens = block(), torch.randn(2, 4, 8, generator=generator())
    condition = torch.randn(2, 5, generator=generator(1))
    same = condition.unsqueeze(1).expand(-1, 4, -1)
    one = model(tokens, model.modulations(condition))
    torch.testing.assert_close(model(tokens, model.modulations(same)), one)
    other = same + torch.randn(2, 4, 5, generator=generator(2))
    assert not torch.allclose(model(tokens, model.modulations(other)), one)


@torch.no_grad()
def test_one_token_at_a_time_with_a_cache_gives_what_all_at_once_give():
    model, tokens = block(), torch.randn(2, 5, 8, generator=generator())
    modulations = model.modulations(torch.randn(2, 5, generator=generator(1)))
    angles = rotary_angles(torch.arange(5), 4)
    cache, single = KeyValueCache(5), []
    for place in range(5):
        step = angles[:, place : place + 1]
        single.append(model(tokens[:, place : place + 1], modulations, angles=step, cache=cache))
        cache.length += 1
    torch.testing.assert_close(torch.cat(single, 1), model(tokens, modulations, angles=angles))


@torch.no_grad()
def test_a_mask_takes_the_place_of_the_causal_order():
    model, tokens = block(), torch.randn(1, 3, 8, generator=generator())
    modulations = model.modulations(torch.randn(1, 5, generator=generator(1)))
    ones = torch.ones(3, 3, dtype=torch.bool)
    torch.testing.assert_close(model(tokens, modulations, mask=ones.tril()), model(tokens, modulations))
    assert not torch.allclose(model(tokens, modulations, mask=ones), model(tokens, modulations))


@torch.no_grad()
def test_the_last_norm_shifts_and_scales_normalised_tokens():
    norm = AdaptiveNorm(8, 5)
    torch.nn.init.normal_(norm.modulation.linear.weight)
    tokens, condition = torch.randn(3, 8, generator=generator()), torch.randn(3, 5, generator=generator(1))
    shift, scale = norm.modulation.linear(condition / (1 + (-condition).exp())).chunk(2, -1)
    centred = tokens - tokens.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(tokens, condition), modulate(normed, shift, scale))
    torch.testing.assert_close(modulate(normed, shift, scale), normed * (1 + scale) + shift)
