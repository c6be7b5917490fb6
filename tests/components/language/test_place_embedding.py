import math

import pytest
import torch
from torch import nn

from components.language.place_embedding import build, numeric_encodings
from components.tokenizers.text.numeric import NumberTokens
from components.tokenizers.text.regression_transformer import PlaceTokenizer


def test_encodings_follow_their_formula():
    values = [0.0, 7.0, 300.0, -20.0]
    found = numeric_encodings(torch.tensor(values), 6)
    for row, value in zip(found.tolist(), values, strict=True):
        scaled = math.copysign(math.log(1 + abs(value)) / math.log(301), value)
        assert row == pytest.approx([scaled * (-1) ** j / (j + 1) for j in range(6)], abs=1e-6)
    assert found.abs().max() <= 1


def test_values_close_to_each_other_have_encodings_close_to_each_other():
    tokens = PlaceTokenizer().number_tokens
    encodings = numeric_encodings(torch.tensor(sorted(tokens.values)), 16)
    distance = (encodings - encodings[0]).norm(dim=-1)
    assert (distance.diff() >= 0).all()
    assert distance[-1] > distance[1]


def test_only_number_tokens_get_an_encoding_and_the_learned_part_stays_a_parameter():
    learned = nn.Embedding(5, 8)
    before = learned.weight.detach().clone()
    embedding = build(learned, NumberTokens((1, 3), (10.0, 2.0)))
    tokens = torch.tensor([[0, 1, 2], [3, 4, 1]])
    added = embedding(tokens) - nn.functional.embedding(tokens, before)
    assert added[0, 1].norm() > added[1, 0].norm() > 0
    for other in (added[0, 0], added[0, 2], added[1, 1]):
        assert other.norm() == 0
    embedding(tokens).sum().backward()
    assert embedding.weight.grad is not None
    assert set(embedding.state_dict()) == {"weight"}
    assert torch.equal(embedding.weight, before)


def test_an_embedding_can_be_built_on_the_meta_device():
    with torch.device("meta"):
        embedding = build(nn.Embedding(5, 8), NumberTokens((1, 3), (10.0, 2.0)))
    assert embedding.weight.device.type == "meta"
