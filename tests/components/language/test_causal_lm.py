import dataclasses

import pytest
import torch

from components.language.causal_lm import CausalLM, CausalLMConfig, ContextOverflow, LanguageModelError, build
from components.nn.transformer import KeyValueCache


@pytest.fixture
def model() -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(vocabulary_size=7, context=16, width=32, layers=2, heads=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.double().eval()


def test_gpt_2_small_has_124_million_parameters():
    with torch.device("meta"):
        model = CausalLM(CausalLMConfig(50_257, 1024, width=768, layers=12, heads=12, tied=True))
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(124.4e6, rel=0.001)


def test_a_row_depends_only_on_the_tokens_before_it(model):
    tokens = torch.randint(7, (3, 10))
    rows = model.along(tokens)
    changed = tokens.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 7
    assert torch.allclose(model.along(changed)[:, :7], rows[:, :7], rtol=0, atol=1e-12)
    assert not torch.allclose(model.along(changed)[:, 7:], rows[:, 7:], rtol=0, atol=1e-3)
    assert torch.allclose(rows.exp().sum(-1), torch.ones(3, 11).double())


def test_the_loss_is_the_mean_negative_log_probability_of_every_token(model):
    tokens = torch.randint(7, (3, 16))
    rows = model.along(tokens[:, :-1])
    expected = -rows.gather(-1, tokens[..., None]).mean()
    assert model.loss(tokens).item() == pytest.approx(expected.item(), rel=1e-6)


def test_more_tokens_than_positions_are_refused(model):
    with pytest.raises(ContextOverflow, match="16 positions"):
        model.along(torch.zeros(1, 16, dtype=torch.int64))


@pytest.fixture
def rotary() -> CausalLM:
    torch.manual_seed(1)
    config = CausalLMConfig(7, 16, width=32, layers=2, heads=4, tied=True, positions="rotary")
    model = build(**dataclasses.asdict(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.double().eval()


def test_rotary_positions_have_no_parameters_and_depend_on_distance_alone(rotary):
    assert rotary.positions is None
    tokens = rotary.with_start(torch.randint(7, (2, 9)))
    near, far = (rotary(tokens, places=torch.arange(first, first + 10)) for first in (0, 6))
    assert torch.allclose(near, far, rtol=0, atol=1e-5)
    spread = rotary(tokens, places=torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 15]))
    assert not torch.allclose(near[:, -1], spread[:, -1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["model", "rotary"])
def test_the_branches_of_a_draft_see_their_own_ancestors_only(name, request):
    model = request.getfixturevalue(name)
    prefix, left, right = torch.randint(7, (1, 5)), [1, 2], [3, 4]
    cache = KeyValueCache(16)
    model(model.with_start(prefix), cache)
    # Breadth first: 1 and 3 follow the prefix, 2 follows 1, 4 follows 3.
    ancestors = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.bool)
    mask = torch.cat([torch.ones(4, 6, dtype=torch.bool), ancestors], dim=1)
    drafted = model(torch.tensor([[1, 3, 2, 4]]), cache, places=torch.tensor([6, 6, 7, 7]), mask=mask)
    for branch, rows in ((left, [0, 2]), (right, [1, 3])):
        alone = model(model.with_start(torch.cat([prefix, torch.tensor([branch])], dim=1)))[:, -2:]
        assert torch.allclose(drafted[:, rows], alone, rtol=0, atol=1e-6)
    # Keeping the right branch leaves what a plain pass over it leaves.
    cache.keep(torch.tensor([0, 1, 2, 3, 4, 5, 7, 9]))
    following = model(torch.tensor([[6]]), cache)
    plain = model(model.with_start(torch.cat([prefix, torch.tensor([[*right, 6]])], dim=1)))[:, -1:]
    assert torch.allclose(following, plain, rtol=0, atol=1e-6)


def test_llama_7b_has_6_7_billion_parameters():
    with torch.device("meta"):
        model = build(
            vocabulary_size=32_000, context=4096, width=4096, layers=32, heads=32, positions="rotary",
            mlp_ratio=11008 / 4096, norm="rms", activation="swiglu", bias=False,
        )  # fmt: skip
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(6.738e9, rel=0.001)


@pytest.mark.parametrize(
    "settings, message",
    [({"positions": "sine"}, "'learned' or 'rotary'"), ({"positions": "rotary", "width": 20}, "even")],
)
def test_meaningless_positions_are_refused(settings, message):
    with pytest.raises(LanguageModelError, match=message):
        CausalLMConfig(**{"vocabulary_size": 7, "context": 16, "width": 32, "layers": 1, "heads": 4, **settings})
