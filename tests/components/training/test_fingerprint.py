from __future__ import annotations

import hashlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from components.training.fingerprint import digest, numeric_fingerprint, state_digest


def test_the_digest_is_of_the_exact_bytes():
    value = torch.tensor([1.5, -2.0])
    content = b"torch.float32 (2,) 8\n" + value.numpy().tobytes()
    assert digest([value]) == hashlib.blake2b(content, digest_size=16).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([1.0]), torch.tensor([math.nextafter(1.0, 2.0)], dtype=torch.float64)),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2, dtype=torch.int32), torch.zeros(2)),
        (1.0, 1),
        (0.1 + 0.2, 0.3),
        ("1", b"1"),
    ],
)
def test_values_that_differ_in_any_bit_shape_or_type_differ(one, other):
    assert digest([one]) != digest([other])


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_sequences_share_a_digest_only_when_they_are_equal(one, other):
    assert (digest(one) == digest(other)) == (one == other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64])
def test_layout_does_not_count_and_every_dtype_is_taken(dtype):
    values = (torch.arange(6).reshape(2, 3) % 2).to(dtype)
    assert digest([values]) == digest([values.t().contiguous().t()])
    assert digest([torch.zeros((), dtype=dtype)]) != digest([torch.zeros(1, dtype=dtype)])


def test_a_state_has_one_digest_in_any_order():
    a, b = torch.rand(2), torch.rand(3)
    assert state_digest({"a": a, "b": b}) == state_digest({"b": b, "a": a})
    assert state_digest({"a": a}) != state_digest({"b": a})


def test_a_run_has_one_fingerprint_until_its_numbers_change():
    def run(scale: float = 1.0):
        model = nn.Linear(4, 4)
        for _ in range(3):
            value = model(torch.randn(2, 4)).square().mean() * scale
            value.backward()
            yield value
        yield from (parameter.grad for parameter in model.parameters())

    first = numeric_fingerprint(run)
    torch.rand(5)
    assert numeric_fingerprint(run) == first
    assert numeric_fingerprint(lambda: run(1.0 + 1e-6)) != first
    assert numeric_fingerprint(run, seed=1) != first
