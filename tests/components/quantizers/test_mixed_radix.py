"""Digits of different bases: a bijection, with integers beyond what a float holds."""

import itertools
import math

import pytest
import torch

from components.quantizers.mixed_radix import join_digits, place_values, split_digits
from components.quantizers.quantized import QuantizerError


def test_every_combination_has_its_own_index_and_comes_back():
    sizes = [3, 2, 5]
    worth = place_values(sizes)
    digits = torch.tensor(list(itertools.product(*(range(size) for size in sizes))))
    indices = join_digits(digits, worth)
    assert sorted(indices.tolist()) == list(range(30))
    assert torch.equal(split_digits(indices, worth, torch.tensor(sizes)), digits)
    assert int(join_digits(torch.tensor([1, 0, 0]), worth)) == 1


def test_the_largest_integers_are_exact():
    sizes = [8] * 21
    worth = place_values(sizes)
    digits = torch.full((2, 21), 7)
    digits[1, 0] = 6
    indices = join_digits(digits, worth)
    assert indices.tolist() == [math.prod(sizes) - 1, math.prod(sizes) - 2]
    assert torch.equal(split_digits(indices, worth, torch.tensor(sizes)), digits)


def test_more_codes_than_an_integer_holds_are_refused():
    with pytest.raises(QuantizerError, match=r"2\^63"):
        place_values([8] * 22)
