"""Digits of different bases: a bijection, with integers beyond what a float holds."""

import itertools
import math

import pytest
import torch

from components.quantizers.mixed_radix import MixedRadix
from components.quantizers.quantized import QuantizerError


def test_every_combination_has_its_own_index_and_comes_back():
    places = MixedRadix([3, 2, 5])
    digits = torch.tensor(list(itertools.product(range(3), range(2), range(5))))
    indices = places.join(digits)
    assert sorted(indices.tolist()) == list(range(30))
    assert torch.equal(places.split(indices), digits)
    assert int(places.join(torch.tensor([1, 0, 0]))) == 1


@pytest.mark.parametrize("count", [17, 18, 21])
def test_the_largest_integers_are_exact(count):
    # 2^51, 2^54 and 2^63 codes: within a double, beyond it, and the largest that int64 holds.
    places = MixedRadix([8] * count)
    digits = torch.full((2, count), 7)
    digits[1, 0] = 6
    indices = places.join(digits)
    assert indices.tolist() == [8**count - 1, 8**count - 2]
    assert torch.equal(places.split(indices), digits)
    assert torch.equal(places.join(digits.float()), indices)


def test_more_codes_than_an_integer_holds_are_refused():
    with pytest.raises(QuantizerError, match=r"2\^63"):
        MixedRadix([8] * 22)
    assert math.prod([8] * 21) == 1 << 63
