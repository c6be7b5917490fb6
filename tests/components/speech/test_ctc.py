"""CTC against the sum over every path, torch's own kernel, and a collapse written out."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.speech.ctc import BLANK, CTCError, ctc_loss, ctc_recursion, greedy, needed_frames, padded


def collapse(path) -> tuple[int, ...]:
    return tuple(label for label, _ in itertools.groupby(path) if label != BLANK)


def enumerated(log_probabilities) -> dict[tuple[int, ...], float]:
    """Probability of every transcript, from every path of (T, K)."""
    frames, size = log_probabilities.shape
    law: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(size), repeat=frames):
        nats = sum(float(log_probabilities[t, label]) for t, label in enumerate(path))
        law[collapse(path)] = law.get(collapse(path), 0.0) + math.exp(nats)
    return law


def drawn(frames, size, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(count, frames, size, generator=generator, dtype=torch.float64)).log_softmax(-1)


@settings(deadline=None, max_examples=20)
@given(frames=st.integers(1, 5), seed=st.integers(0, 99))
def test_both_losses_are_the_sum_over_every_alignment(frames, seed):
    log_probabilities = drawn(frames, 3, seed)
    law = enumerated(log_probabilities[0])
    assert sum(law.values()) == pytest.approx(1)
    for transcript, probability in law.items():
        labels, lengths = padded([transcript])
        arguments = (log_probabilities, torch.tensor([frames]), labels, lengths)
        assert float(ctc_loss(*arguments)) == pytest.approx(-math.log(probability))
        assert float(ctc_recursion(*arguments)) == pytest.approx(-math.log(probability))


def test_the_recursion_has_the_values_and_gradients_of_the_kernel_in_a_ragged_batch():
    log_probabilities = drawn(9, 4, count=3).requires_grad_()
    labels, lengths = padded([[1, 1, 2], [3], [2, 3, 3, 1]])
    frames = torch.tensor([9, 4, 7])
    found = []
    for loss in (ctc_loss, ctc_recursion):
        values = loss(log_probabilities, frames, labels, lengths)
        # Through a softmax: the kernel's own gradient is only right for normalised inputs.
        scores = log_probabilities.detach().clone().requires_grad_()
        loss(scores.log_softmax(-1), frames, labels, lengths).sum().backward()
        found.append((values.detach(), scores.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_frames_behind_the_end_change_nothing_and_get_no_gradient():
    log_probabilities = drawn(8, 4)
    labels, lengths = padded([[1, 2, 2]])
    short = ctc_recursion(log_probabilities[:, :5], torch.tensor([5]), labels, lengths)
    long = log_probabilities.clone().requires_grad_()
    loss = ctc_recursion(long, torch.tensor([5]), labels, lengths)
    loss.sum().backward()
    torch.testing.assert_close(loss, short)
    assert not long.grad[:, 5:].any()


@settings(deadline=None)
@given(st.lists(st.integers(1, 2), max_size=4))
def test_the_fewest_frames_are_those_of_the_shortest_path_that_spells_the_labels(labels):
    shortest = next(
        frames
        for frames in range(12)
        if any(collapse(path) == tuple(labels) for path in itertools.product(range(3), repeat=frames))
    )
    assert needed_frames(labels) == shortest


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=4))
def test_greedy_decoding_collapses_the_best_path_up_to_the_end(paths):
    width = max(map(len, paths))
    table = torch.tensor([path + [1] * (width - len(path)) for path in paths])
    scores = torch.nn.functional.one_hot(table, 3).float().log()
    frames = torch.tensor([len(path) for path in paths])
    assert greedy(scores, frames) == [list(collapse(path)) for path in paths]


def test_a_transcript_may_not_hold_the_blank():
    with pytest.raises(CTCError, match="label 0"):
        padded([[1, 0]])
