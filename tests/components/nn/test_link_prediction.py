"""The decoder of links against complex arithmetic."""

import pytest
import torch

from components.bases import construct, specification
from components.errors import TesseraError
from components.nn.link_prediction import ComplexDecoder, LinkPredictor
from components.tokenizers.graph.node_table import NodeTable

N, R, D = 6, 4, 8


def complex_numbers(values: torch.Tensor) -> torch.Tensor:
    real, imaginary = values.chunk(2, -1)
    return torch.complex(real, imaginary)


def predictor() -> LinkPredictor:
    torch.manual_seed(0)
    return LinkPredictor(NodeTable(nodes=N, width=D), relation_types=R, width=D)


def test_a_score_is_the_real_part_of_the_triple_product():
    model = predictor()
    heads, relations = torch.tensor([0, 3, 3]), torch.tensor([1, 0, 3])
    scores = model(heads, relations)
    embeddings, of_relations = complex_numbers(model.encoder()), complex_numbers(model.decoder.relations)
    for row, (head, relation) in enumerate(zip(heads, relations, strict=True)):
        for tail in range(N):
            expected = (embeddings[head] * of_relations[relation] * embeddings[tail].conj()).sum().real
            torch.testing.assert_close(scores[row, tail], expected)


def test_a_direction_matters_through_imaginary_parts_alone():
    model = predictor()
    one = model(torch.tensor([0]), torch.tensor([1]))[0, 2]
    other = model(torch.tensor([2]), torch.tensor([1]))[0, 0]
    assert float((one - other).detach().abs()) > 1e-4
    with torch.no_grad():
        model.decoder.relations[:, D // 2 :] = 0
    one = model(torch.tensor([0]), torch.tensor([1]))[0, 2]
    torch.testing.assert_close(one, model(torch.tensor([2]), torch.tensor([1]))[0, 0])


def test_it_is_built_from_a_description_and_an_odd_width_is_refused():
    encoder = specification("components.tokenizers.graph.node_table", nodes=N, width=D)
    model = construct(specification("components.nn.link_prediction", encoder=encoder, relation_types=R, width=D))
    assert model(torch.tensor([1]), torch.tensor([0])).shape == (1, N)
    with pytest.raises(TesseraError, match="expected an even width"):
        ComplexDecoder(R, 7)
