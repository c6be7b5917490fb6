import pytest
import torch

from components.language.causal_lm import CausalLM, CausalLMConfig, ContextOverflow


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
