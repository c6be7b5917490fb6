"""The encoder: padding changes no feature, hidden frames are not seen, layers are those asked for."""

import pytest
import torch

from components.speech.ssl_encoder import SSLEncoder, SSLEncoderError
from tests.components.speech.test_recogniser import spoken


def small() -> SSLEncoder:
    torch.manual_seed(0)
    return SSLEncoder(bands=20, width=16, layers=2, heads=2, feed_forward=32, position_kernel=7, position_groups=4)


@torch.no_grad()
def test_features_are_the_same_alone_and_beside_a_longer_utterance():
    model = small().eval()
    waveform, samples = spoken([3_010, 5_000, 777])
    model.fit_scale(waveform, samples)
    together, frames = model.features(waveform, samples, (0, 2))
    for row, count in enumerate(samples.tolist()):
        alone, (length,) = model.features(waveform[row : row + 1, :count], samples[row : row + 1], (0, 2))
        assert int(frames[row]) == int(length) == -(-count // 160) == alone[0].shape[1]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[row, :length], other[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_is_hidden_is_not_seen_and_what_is_not_hidden_is():
    model = small().eval()
    stacked, frames = torch.randn(1, 9, 40), torch.tensor([9])
    masked = torch.tensor([[False] * 4 + [True] * 2 + [False] * 3])
    changed = torch.where(masked[..., None], torch.randn(1, 9, 40), stacked)
    one, other = (model(each, frames, masked)[-1] for each in (stacked, changed))
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, model(stacked + 0.1, frames, masked)[-1])
    assert not torch.allclose(one, model(stacked, frames)[-1])


def test_a_layer_that_is_not_there_is_named():
    waveform, samples = spoken([800])
    with pytest.raises(SSLEncoderError, match="layer 3"):
        small().features(waveform, samples, (3,))
