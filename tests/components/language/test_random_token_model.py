import math

import numpy as np
import pytest
import torch

from components.language.random_token_model import RandomTokenModel, enumerate_texts
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.validity import is_valid

TOKENIZER = MaxPrefixTokenizer(["a", "b", "ab", "bba"])


def test_rows_are_distributions_and_only_valid_sequences_get_any():
    valid, anything = (RandomTokenModel(TOKENIZER, 0, only_valid=flag) for flag in (True, False))
    for tokens in ([], [0], [2, 1], [0, 2, 3]):
        row = valid.next(tokens).exp()
        assert row.sum().item() == pytest.approx(1)
        assert (row[:4] > 0).tolist() == [is_valid(TOKENIZER, [*tokens, token]) for token in range(4)]
        assert (anything.next(tokens).exp() > 0).all()
        assert torch.equal(valid.next(tokens), RandomTokenModel(TOKENIZER, 0, only_valid=True).next(tokens))
    assert not torch.equal(valid.next([]), RandomTokenModel(TOKENIZER, 1, only_valid=True).next([]))


def test_enumerated_probabilities_are_those_of_a_model_without_memory():
    # Tokens a, b, ab, end with fixed probabilities: P(begins with ab) = P(a) P(b) + P(ab).
    row = torch.tensor([0.3, 0.2, 0.4, 0.1], dtype=torch.float64).log()
    found = enumerate_texts(lambda tokens: row, ("a", "b", "ab"), 3, 3)
    assert found.begins[""] == 1
    assert found.begins["a"] == pytest.approx(0.3 + 0.4)
    assert found.begins["ab"] == pytest.approx(0.3 * 0.2 + 0.4)
    assert found.begins["aba"] == pytest.approx((0.3 * 0.2 + 0.4) * 0.7)
    assert found.ends["ab"] == pytest.approx((0.3 * 0.2 + 0.4) * 0.1)


def test_enumerated_probabilities_are_consistent():
    model = RandomTokenModel(TOKENIZER, 3, only_valid=False)
    found = enumerate_texts(model.next, TOKENIZER.vocabulary, model.end, 5)
    for text, mass in found.begins.items():
        if len(text) < 5:
            assert math.fsum([found.begins[text + "a"], found.begins[text + "b"], found.ends[text]]) == pytest.approx(
                mass
            )
            assert np.sum(found.next(text, "ab")) == pytest.approx(1)
