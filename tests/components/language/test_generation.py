import pytest
import torch

from components.language.causal_lm import CausalLM, CausalLMConfig, ContextOverflow
from components.language.generation import PrefixSession, generate


@pytest.fixture
def model() -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(vocabulary_size=7, context=16, width=32, layers=2, heads=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.double().eval()


def test_a_session_gives_the_rows_of_one_pass_and_counts_a_call_for_each_new_context(model):
    session = PrefixSession(model)
    for tokens in ([3, 1], [3, 1, 4], [3, 1, 4, 1, 5], [3, 1, 4], [3, 1, 2], [], [3, 1, 2]):
        expected = model.along(torch.tensor([tokens], dtype=torch.int64))[0, -1]
        assert torch.allclose(session.next(tokens), expected, rtol=0, atol=1e-12)
    assert session.calls == 4


def test_greedy_generation_takes_the_likeliest_token_of_each_uncached_pass(model):
    tokens = torch.randint(7, (2, 3))
    new = generate(model, tokens, 6, torch.Generator(), temperature=0)
    for _ in range(6):
        tokens = torch.cat([tokens, model.along(tokens)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert new.tolist() == tokens[:, 3:].tolist()


def test_sampled_generation_has_the_models_frequencies(model):
    count = 4000
    new = generate(model, torch.zeros(count, 0, dtype=torch.int64), 2, torch.Generator().manual_seed(0))
    first = model.along(torch.zeros(1, 0, dtype=torch.int64))[0, 0].exp()
    both = first[:, None] * model.along(torch.arange(7)[:, None])[:, 1].exp()
    observed = torch.bincount(new[:, 0] * 7 + new[:, 1], minlength=49)
    assert ((observed - count * both.flatten()).abs() < 5 * (count * both.flatten()).sqrt() + 1).all()


def test_more_tokens_than_positions_are_refused(model):
    with pytest.raises(ContextOverflow, match="16 positions"):
        generate(model, torch.zeros(1, 10, dtype=torch.int64), 8, torch.Generator())
