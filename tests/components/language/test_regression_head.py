import pytest
import torch

from components.language.regression_head import build
from components.tokenizers.text.numeric import CharacterTokenizer
from components.training.loop import Optimisation, fit


def regressor(**sizes):
    torch.manual_seed(0)
    return build(CharacterTokenizer(), **{"context": 6, "width": 16, "layers": 1, "heads": 2, **sizes})


def test_an_untrained_head_predicts_the_mean_and_its_loss_is_one():
    model = regressor()
    targets = torch.tensor([3.0, 9.0, 27.0, 81.0])
    model.standardise(targets)
    tokens = torch.randint(0, 10, (4, 6))
    assert model(tokens).tolist() == pytest.approx([30.0] * 4)
    assert model.loss(tokens, targets).item() == pytest.approx(
        targets.var(unbiased=False).item() / targets.var().item()
    )


def test_it_learns_to_read_a_number():
    model = regressor()
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randint(0, 100, (2000,), generator=generator)
    digits = torch.tensor(CharacterTokenizer().number_tokens.ids)
    tokens = digits[torch.stack([numbers // 10, numbers % 10], 1)]
    model.standardise(numbers)
    rows = {"inputs": tokens, "targets": numbers.float()}

    def draw(step, generator):
        chosen = torch.randint(0, 2000, (64,), generator=generator)
        return {name: part[chosen] for name, part in rows.items()}

    def loss(network, batch, generator):
        return network.loss(batch["inputs"], batch["targets"]), {}

    fit(model, draw, loss, Optimisation(80, 8e-3), seed=0)
    with torch.no_grad():
        error = (model(tokens) - numbers).square().mean().sqrt().item()
    assert error < 0.3 * numbers.float().std().item()


def test_every_token_is_read_whichever_side_it_stands_on():
    model = regressor()
    torch.nn.init.normal_(model.head.weight)
    tokens = torch.randint(0, 10, (1, 6))
    base = model(tokens).item()
    for place in range(6):
        changed = tokens.clone()
        changed[0, place] = (changed[0, place] + 1) % 10
        assert model(changed).item() != base
    assert set(model.state_dict()) > {"mean", "deviation"}


def test_the_head_reads_the_mean_of_all_states():
    model = regressor()
    model.standardise(torch.tensor([10.0, 14.0]))
    torch.nn.init.normal_(model.head.weight)
    states = []
    model.transformer.register_forward_hook(lambda module, inputs, output: states.append(output))
    found = model(torch.randint(0, 10, (3, 6)))
    expected = 12 + 8**0.5 * (states[0].mean(1) @ model.head.weight[0] + model.head.bias)
    assert torch.allclose(found, expected, atol=1e-5)


def test_in_half_precision_the_prediction_is_not_rounded_to_three_digits():
    model = regressor()
    model.standardise(torch.tensor([1001.0, 1003.0, 1006.0, 1010.0]))
    with torch.autocast("cpu", torch.bfloat16):
        predicted = model(torch.randint(0, 10, (4, 6)))
    assert predicted.dtype == torch.float32
    assert predicted.tolist() == pytest.approx([1005.0] * 4, abs=1e-3)
    assert model.double()(torch.randint(0, 10, (4, 6))).dtype == torch.float64
