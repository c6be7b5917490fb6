"""Speaker vectors: padding, pooled statistics, and the margin written out."""

import math

import pytest
import torch

from components.speech.speaker import AdditiveMarginSoftmax, SpeakerEncoder, SpeakerError, pooled_statistics
from tests.components.speech.test_recogniser import spoken


@torch.no_grad()
def test_a_vector_is_the_same_alone_and_beside_a_longer_utterance():
    torch.manual_seed(0)
    model = SpeakerEncoder(bands=20, channels=16, width=8).eval()
    waveform, samples = spoken([3_010, 5_000, 777])
    model.fit_scale(waveform, samples)
    together = model(waveform, samples)
    for row, count in enumerate(samples.tolist()):
        alone = model(waveform[row : row + 1, :count], samples[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-5)


def test_statistics_are_those_of_the_frames_inside():
    hidden = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    inside = (torch.arange(6) < torch.tensor([[6], [4]]))[..., None]
    found = pooled_statistics(hidden, inside)
    for row, count in enumerate((6, 4)):
        part = hidden[row, :count]
        expected = torch.cat([part.mean(0), part.std(0, unbiased=False)])
        torch.testing.assert_close(found[row], expected)


def test_the_loss_is_cross_entropy_of_cosines_with_the_right_one_made_smaller():
    head = AdditiveMarginSoftmax(2, 3, scale=5.0, margin=0.3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))
    angle = 0.4
    vector = 7 * torch.tensor([[math.cos(angle), math.sin(angle)]])
    right, others = 5 * (math.cos(angle) - 0.3), (5 * math.sin(angle), -5 * math.cos(angle))
    expected = -right + math.log(math.exp(right) + sum(map(math.exp, others)))
    assert float(head(vector, torch.tensor([0]))) == pytest.approx(expected, rel=1e-5)


def test_one_speaker_cannot_be_told_apart():
    with pytest.raises(SpeakerError, match="1 speakers"):
        AdditiveMarginSoftmax(2, 1)
