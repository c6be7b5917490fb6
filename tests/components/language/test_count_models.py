import math

import pytest
import torch

from components.errors import TesseraError
from components.language.count_models import BigramCounts, UnigramCounts

TOKENS = torch.tensor([0, 1, 0, 1, 2, 0, 1])


def test_unigram_counts_are_smoothed_frequencies():
    model = UnigramCounts(TOKENS, 4, addition=0.5)
    assert model.nats(torch.tensor([[1, 3]]))[0].tolist() == pytest.approx([-math.log(3.5 / 9), -math.log(0.5 / 9)])
    assert model.log_probabilities.exp().sum().item() == pytest.approx(1)


def test_bigram_counts_are_smoothed_frequencies_behind_a_token():
    model = BigramCounts(TOKENS, 4, addition=0.1)
    # 0 is followed by 1 three times; 1 by 0 and by 2 once each.
    nats = model.nats(torch.tensor([[0, 1, 2, 3]]))[0]
    expected = [3.1 / 3.4, 1.1 / 2.4, 0.1 / 1.4]
    assert nats.tolist() == pytest.approx([-math.log(share) for share in expected])
    mass = torch.stack([(-model.nats(torch.tensor([0, token]))).exp() for token in range(4)]).sum()
    assert mass.item() == pytest.approx(1)


def test_the_likeliest_successors_come_first_and_ties_by_id():
    assert BigramCounts(TOKENS, 4).likeliest(2).tolist() == [[1, 0], [0, 2], [0, 1], [0, 1]]


def test_ids_outside_the_vocabulary_are_refused():
    with pytest.raises(TesseraError, match="vocabulary of 2"):
        UnigramCounts(TOKENS, 2)
