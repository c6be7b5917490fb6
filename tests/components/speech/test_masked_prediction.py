"""Masked prediction: spans where they were asked for, and a loss that sees masked frames only."""

import pytest
import torch

from components.speech.masked_prediction import MaskedUnitHead, MaskingError, span_mask


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_hidden_frames_are_spans_inside_utterances_as_often_as_starts_say():
    frames = torch.randint(30, 101, (600,), generator=generator(1))
    mask = span_mask(frames, 100, start=0.08, span=10, generator=generator())
    assert not (mask & (torch.arange(100) >= frames[:, None])).any()
    assert mask.any(1).all()
    # Deep inside an utterance a frame is hidden unless none of ten frames started a span.
    inner = mask[:, 12:28].float().mean()
    assert float(inner) == pytest.approx(1 - 0.92**10, abs=0.02)
    # A run is a whole span at least, unless the utterance ends in it.
    row, count = mask[0], int(frames[0])
    edges = torch.cat([torch.tensor([0]), row.int(), torch.tensor([0])]).diff()
    for first, last in zip((edges == 1).nonzero(), (edges == -1).nonzero(), strict=True):
        assert int(last - first) >= 10 or int(last) == count


def test_a_short_utterance_is_still_learned_from():
    mask = span_mask(torch.tensor([1, 3] * 50), 3, start=1e-6, span=10, generator=generator())
    assert mask.any(1).all()
    assert not mask[::2, 1:].any()


def test_only_masked_frames_count():
    torch.manual_seed(0)
    head = MaskedUnitHead(6, 5, code_width=4)
    hidden = torch.randn(2, 7, 6, requires_grad=True)
    units = torch.randint(5, (2, 7))
    masked = torch.rand(2, 7) < 0.4
    loss, right = head(hidden, units, masked)
    loss.backward()
    assert not hidden.grad[~masked].any()
    assert hidden.grad[masked].any(-1).all()
    logits = head.logits(hidden.detach()[masked])
    assert float(loss) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, units[masked])), rel=1e-5)
    assert float(right) == pytest.approx(float((logits.argmax(-1) == units[masked]).float().mean()))
    other = torch.where(masked, units, (units + 1) % 5)
    assert float(head(hidden, other, masked)[0]) == pytest.approx(float(loss))


def test_scores_are_cosines_over_the_temperature():
    head = MaskedUnitHead(3, 4, code_width=2, temperature=0.25)
    logits = head.logits(torch.randn(10, 3))
    assert float(logits.abs().max()) <= 4 + 1e-5
    torch.testing.assert_close(head.logits(torch.zeros(1, 3)), head.logits(torch.zeros(1, 3)))


def test_a_probability_of_zero_is_refused():
    with pytest.raises(MaskingError, match="start is 0"):
        span_mask(torch.tensor([3]), 3, start=0, span=1, generator=generator())
