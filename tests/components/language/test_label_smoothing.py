import math

import pytest
import torch
import torch.nn.functional as F

from components.errors import TesseraError
from components.language.answering import cross_entropy
from components.language.label_smoothing import build
from components.tokenizers.text.numeric import NumberTokens

V, IGNORED = 14, -100
DIGITS = NumberTokens(tuple(range(3, 13)), tuple(map(float, range(10))))


def test_the_loss_is_the_cross_entropy_with_hand_made_targets():
    logits = torch.randn(1, 4, V, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[3 + 4, 1, IGNORED, 3 + 9]])
    log_p = logits.double().log_softmax(-1)[0]

    def weights(label: int) -> list[float]:
        bell = [math.exp(-((value - label) ** 2) / (2 * 1.5**2)) for value in range(10)]
        return [height / sum(bell) for height in bell]

    def spread(position: int, label: int) -> float:
        return -sum(weight * log_p[position, 3 + value].item() for value, weight in enumerate(weights(label)))

    expected = (spread(0, 4) - log_p[1, 1].item() + spread(3, 9)) / 3
    assert build(DIGITS, V, 1.5)(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_a_narrow_gaussian_is_the_plain_label():
    logits = torch.randn(2, 5, V, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, V, (2, 5), generator=torch.Generator().manual_seed(2))
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert build(DIGITS, V, 0.05)(logits, labels).item() == pytest.approx(plain.item(), rel=1e-6)
    assert cross_entropy(logits, labels).item() == pytest.approx(plain.item(), rel=1e-6)


def test_its_best_prediction_is_the_bell_around_the_label_on_digits_alone():
    bell = torch.tensor([math.exp(-((value - 2) ** 2) / 2) for value in range(10)], dtype=torch.float64)
    best = torch.full((1, 1, V), -40.0, dtype=torch.float64)
    best[0, 0, 3:13] = bell.log()
    logits = best.clone().requires_grad_()
    loss = build(DIGITS, V, 1.0)
    label = torch.tensor([[3 + 2]])
    value = loss(logits, label)
    value.backward()
    assert logits.grad.abs().max() < 1e-6
    for token in (0, 3, 5, 7):
        moved = best.clone()
        moved[0, 0, token] += 1 if token > 2 else 45
        assert loss(moved, label) > value


def test_a_batch_without_labels_gives_zero_and_a_width_of_zero_is_refused():
    logits = torch.randn(1, 2, V, requires_grad=True)
    value = build(DIGITS, V, 1.0)(logits, torch.full((1, 2), IGNORED))
    value.backward()
    assert value.item() == 0
    with pytest.raises(TesseraError, match="expected a positive width"):
        build(DIGITS, V, 0.0)
