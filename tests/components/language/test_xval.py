import pytest
import torch

from components.errors import TesseraError
from components.language.answering import question_tokens
from components.language.causal_lm import CausalLMConfig
from components.language.xval import XValAnswerer, XValLM, build
from components.tokenizers.text.xval import ValueTokenizer

TOKENIZER = ValueTokenizer()


def answerer() -> XValAnswerer:
    torch.manual_seed(0)
    made = build(TOKENIZER, context=16, width=16, layers=2, heads=2)
    made.model.fit_scale(100.0)
    torch.nn.init.normal_(made.model.embedding.weight)
    return made.eval()


def test_a_number_is_its_embedding_times_its_scaled_value():
    model = answerer().model
    assert model.scale.item() == 20
    tokens = torch.tensor([[3, TOKENIZER.number_token, 5]])
    seen = []
    handle = model.transformer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(tokens, torch.tensor([[77.0, -40.0, 9.0]]))
    handle.remove()
    plain = model.embedding(tokens)[0]
    inputs = seen[0][0] - model.positions.weight[:3]
    assert torch.allclose(inputs[1], plain[1] * -2, atol=1e-6)
    assert torch.allclose(inputs[[0, 2]], plain[[0, 2]], atol=1e-6), "values of other tokens are not read"


def test_the_number_loss_is_the_squared_error_of_numbers_alone_in_units_of_the_scale():
    model = answerer().model
    labels = torch.tensor([[1, TOKENIZER.number_token], [TOKENIZER.number_token, TOKENIZER.end_token]])
    predicted = torch.tensor([[5.0, 30.0], [60.0, 7.0]], requires_grad=True)
    values = torch.tensor([[1.0, 10.0], [100.0, 1.0]])
    assert model.number_loss(predicted, values, labels).item() == pytest.approx((1**2 + 2**2) / 2)
    nothing = model.number_loss(predicted, values, torch.zeros(2, 2, dtype=torch.int64))
    nothing.backward()
    assert nothing.item() == 0
    assert (predicted.grad == 0).all()


def test_decoding_with_a_cache_is_decoding_without_one_and_feeds_numbers_back():
    made = answerer()
    encoded = TOKENIZER.encode_all(["34 + 57", "7 - (-12)"])
    answers = TOKENIZER.encode_all(["91", "19"])
    questions = question_tokens(encoded, answers, TOKENIZER.end_token)
    found = made.answer(questions, 4, torch.tensor([]))
    for row, length in enumerate(encoded.lengths.tolist()):
        tokens = torch.from_numpy(encoded.ids[row : row + 1, :length])
        values = torch.from_numpy(encoded.values[row : row + 1, :length])
        for step in range(4):
            padded = torch.nn.functional.pad(values, (1, 0), value=1.0)
            with torch.no_grad():
                logits, numbers = made.model(made.model.with_start(tokens), padded)
            token, number = logits[:, -1].argmax(-1, keepdim=True), numbers[:, -1:]
            assert found.tokens[row, step] == token
            assert found.values[row, step].item() == pytest.approx(number.item(), rel=1e-4, abs=1e-4)
            tokens, values = torch.cat([tokens, token], 1), torch.cat([values, number], 1)


def test_both_losses_reach_the_network():
    made = answerer().train()
    questions = question_tokens(TOKENIZER.encode_all(["3 + 4"]), TOKENIZER.encode_all(["7"]), TOKENIZER.end_token)
    rows = made.arrange(questions)
    assert rows["values"][0, -2].item() == 7
    made(rows)
    made.extra_loss(rows).backward()
    assert made.model.number_head[2].weight.grad.norm() > 0
    assert made.model.embedding.weight.grad.norm() > 0
    assert "scale" in made.model.state_dict()


@pytest.mark.parametrize("settings", [{"tied": True}, {"positions": "rotary"}])
def test_tied_and_rotary_models_are_refused(settings):
    with pytest.raises(TesseraError, match="learned positions"):
        XValLM(CausalLMConfig(20, 8, 8, 1, 2, **settings), 19)


def test_in_half_precision_numbers_are_scaled_in_full():
    model = answerer().model
    torch.nn.init.zeros_(model.number_head[-1].weight)
    torch.nn.init.constant_(model.number_head[-1].bias, 1.0)
    model.scale.fill_(1003.0)
    tokens = torch.tensor([[3, TOKENIZER.number_token]])
    with torch.autocast("cpu", torch.bfloat16):
        _, predicted = model(tokens, torch.tensor([[1.0, 40.0]]))
    assert predicted.dtype == torch.float32
    assert predicted.tolist() == [[1003.0, 1003.0]], "bfloat16 holds 1000 and 1008 but nothing between 1000 and 1004"
