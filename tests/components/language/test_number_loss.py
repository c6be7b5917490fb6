"""The number token loss against closed forms, SciPy and what the paper says it does."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from components.language.number_lookup import NumberLookup, NumberTokensError
from components.language.number_loss import (
    NumberLossError,
    NumberTokenLoss,
    build,
    wasserstein,
    wasserstein_between,
)
from components.tokenizers.text.numeric import NumberTokens

V, IGNORED = 17, -100
DIGITS = NumberTokens((12, 3, 7, 1, 9, 16, 0, 5, 14, 10), tuple(map(float, range(10))))
OTHERS = [token for token in range(V) if token not in DIGITS.ids]
VALUES = torch.arange(10, dtype=torch.float64)
FORMS = ("wasserstein", "squared")


def logits_of(q: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Logits (..., V) whose softmax over the digits is q, with anything at all on other tokens."""
    logits = torch.randn(*q.shape[:-1], V, dtype=torch.float64, generator=generator) * 3
    logits[..., list(DIGITS.ids)] = q.double().clamp(min=1e-300).log() + 5
    return logits


def loss_of(form: str, q, labels: list[int]) -> float:
    """Loss of one sequence with distributions q (T, 10) and digit labels."""
    q = torch.as_tensor(q, dtype=torch.float64).reshape(1, len(labels), 10)
    ids = torch.tensor([[DIGITS.ids[label] for label in labels]])
    return build(DIGITS, V, form)(logits_of(q, torch.Generator().manual_seed(0)), ids).item()


distributions = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).dirichlet(np.full(10, 0.3), size=3))


@given(distributions, st.lists(st.integers(0, 9), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_wasserstein_form_is_scipys_distance_and_the_difference_of_cumulative_sums(q, labels):
    digits = np.arange(10)
    expected = np.mean([wasserstein_distance(digits, [label], row) for row, label in zip(q, labels, strict=True)])
    assert loss_of("wasserstein", q, labels) == pytest.approx(expected, abs=1e-6)
    onehot = torch.nn.functional.one_hot(torch.tensor(labels), 10).double()
    by_sums = (torch.tensor(q).cumsum(-1) - onehot.cumsum(-1)).abs().sum(-1)
    assert wasserstein_between(torch.tensor(q), onehot, VALUES) == pytest.approx(by_sums, abs=1e-12)
    assert wasserstein(torch.tensor(q), VALUES, VALUES[labels]) == pytest.approx(by_sums, abs=1e-12)


@given(distributions, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_distance_to_a_smoothed_label_is_scipys_for_any_order_and_spacing_of_values(q, seed):
    generator = np.random.default_rng(seed)
    values, p = generator.normal(size=10) * 10, generator.dirichlet(np.ones(10), size=3)
    expected = [wasserstein_distance(values, values, one, other) for one, other in zip(q, p, strict=True)]
    found = wasserstein_between(torch.tensor(q), torch.tensor(p), torch.tensor(values))
    assert found.numpy() == pytest.approx(expected, abs=1e-9)


@given(distributions, st.lists(st.integers(0, 9), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_squared_form_is_the_squared_error_of_the_expected_digit(q, labels):
    expected = np.mean((np.array(labels) - q @ np.arange(10)) ** 2)
    assert loss_of("squared", q, labels) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_half_on_3_and_half_on_5_satisfies_the_squared_form_for_a_4_and_not_the_wasserstein_form():
    q = np.zeros((1, 10))
    q[0, [3, 5]] = 0.5
    assert loss_of("squared", q, [4]) == pytest.approx(0, abs=1e-12)
    assert loss_of("wasserstein", q, [4]) == pytest.approx(1)


@pytest.mark.parametrize("form", FORMS)
def test_other_tokens_change_neither_the_loss_nor_get_any_gradient(form):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 5, V, generator=generator, requires_grad=True)
    labels = torch.tensor([[DIGITS.ids[value] for value in (0, 1, 9, 4, 4)]] * 2)
    loss = build(DIGITS, V, form)
    value = loss(logits, labels)
    value.backward()
    assert (logits.grad[..., OTHERS] == 0).all()
    assert (logits.grad[..., list(DIGITS.ids)] != 0).any()
    moved = logits.detach().clone()
    moved[..., OTHERS] += torch.tensor(37.0)
    assert loss(moved, labels) == value.detach()
    shifted = logits.detach().clone()
    shifted[..., list(DIGITS.ids)] += 3  # a softmax over the digits does not see a common constant
    assert loss(shifted, labels).item() == pytest.approx(value.item(), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_positions_without_a_digit_label_do_not_change_the_mean(form):
    generator = torch.Generator().manual_seed(2)
    digits = torch.tensor([[DIGITS.ids[3], DIGITS.ids[8]]])
    logits = torch.randn(1, 2, V, generator=generator)
    loss = build(DIGITS, V, form)
    alone = loss(logits, digits).item()
    other = torch.randn(1, 4, V, generator=generator)
    labels = torch.tensor([[OTHERS[0], digits[0, 0], OTHERS[1], IGNORED, digits[0, 1], IGNORED]])
    mixed = torch.cat([other[:, :1], logits[:, :1], other[:, 1:3], logits[:, 1:], other[:, 3:]], 1)
    assert loss(mixed, labels).item() == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_digits_gives_zero_with_a_graph(form):
    logits = torch.randn(2, 3, V, requires_grad=True)
    labels = torch.tensor([[OTHERS[0], IGNORED, OTHERS[1]]] * 2)
    value = build(DIGITS, V, form)(logits, labels)
    assert value.item() == 0
    value.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_for_a_uniform_q_the_gradient_pushes_hardest_away_from_the_furthest_digit():
    logits = torch.zeros(1, 1, V, dtype=torch.float64, requires_grad=True)
    build(DIGITS, V, "wasserstein")(logits, torch.tensor([[DIGITS.ids[9]]])).backward()
    gradient = logits.grad[0, 0, list(DIGITS.ids)]
    assert gradient.argmax() == 0
    assert gradient[0] > 0 > gradient[9]
    assert (gradient.diff() < 0).all()
    # d W1 / d logit_k = q_k (|v_k - y| - W1)
    assert gradient.numpy() == pytest.approx(0.1 * (np.arange(9, -1, -1) - 4.5))


@pytest.mark.parametrize(("form", "power"), [("wasserstein", 1), ("squared", 2)])
def test_certain_predictions_cost_their_distance_or_its_square(form, power):
    for label in range(10):
        for predicted in range(10):
            q = np.eye(10)[[predicted]]
            assert loss_of(form, q, [label]) == pytest.approx(abs(predicted - label) ** power, abs=1e-9)


def test_shuffled_digits_keep_every_distance_but_not_between_the_same_digits():
    shuffled = DIGITS.shuffled(0)
    loss = build(shuffled, V, "wasserstein")
    generator = torch.Generator().manual_seed(3)
    found = {}
    for label in range(10):
        for predicted in range(10):
            logits = logits_of(torch.eye(10)[None, None, predicted], generator)
            found[label, predicted] = round(loss(logits, torch.tensor([[DIGITS.ids[label]]])).item(), 6)
    assert sorted(found.values()) == sorted(abs(a - b) for a in range(10) for b in range(10))
    assert found != {(label, predicted): abs(label - predicted) for label, predicted in found}


def test_autocast_logits_are_measured_in_single_precision():
    logits = torch.randn(1, 2, V, generator=torch.Generator().manual_seed(4)).bfloat16()
    labels = torch.tensor([[DIGITS.ids[1], DIGITS.ids[7]]])
    value = build(DIGITS, V, "wasserstein")(logits, labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(build(DIGITS, V, "wasserstein")(logits.double(), labels).item(), rel=1e-5)


def test_buffers_are_no_part_of_a_saved_state_and_ids_must_fit():
    assert build(DIGITS, V, "squared").state_dict() == {}
    with pytest.raises(NumberLossError, match="expected 'wasserstein' or 'squared'"):
        NumberTokenLoss(DIGITS, V, "huber")
    with pytest.raises(NumberTokensError, match="not all below the vocabulary size 16"):
        NumberLookup(DIGITS, 16)
    with pytest.raises(NumberTokensError, match="each once"):
        NumberLookup(NumberTokens((1, 1), (0.0, 1.0)), V)


@pytest.mark.gpu
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_on_cuda_is_that_of_the_cpu(form):
    logits = torch.randn(3, 4, V, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([[*DIGITS.ids[:3], IGNORED]] * 3)
    loss = build(DIGITS, V, form)
    expected = loss(logits, labels).item()
    assert loss.cuda()(logits.cuda(), labels.cuda()).item() == pytest.approx(expected, rel=1e-5)
