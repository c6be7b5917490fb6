"""Units: nearest centres by search, streams by layer, the end of an utterance, and the rate."""

import math

import pytest
import torch

from components.tokenizers.audio.ssl_kmeans import NOTHING, SSLKMeans, SSLKMeansError
from tests.components.speech.test_recogniser import spoken
from tests.components.speech.test_ssl_encoder import small

STREAMS = ((1, 5), (2, 8), (2, 3))


@torch.no_grad()
def fitted():
    model = SSLKMeans(encoder=small(), streams=STREAMS).eval()
    waveform, samples = spoken([8_000, 5_000])
    features, frames = model.encoder.features(waveform, samples, (1, 2))
    inside = torch.arange(features[0].shape[1]) < frames[:, None]
    for layer, each in zip((1, 2), features, strict=True):
        model.fit_layer(layer, each[inside], seed=0)
    return model, waveform, samples, features, inside


def test_units_are_the_nearest_centres_of_their_layer_and_nothing_behind_the_end():
    model, waveform, samples, features, inside = fitted()
    units = model.encode(waveform, samples)
    assert units.shape == (2, 50, 3)
    assert (units[~inside] == NOTHING).all()
    for place, (layer, size) in enumerate(STREAMS):
        distances = torch.cdist(features[layer - 1], model.centres(layer, size).expand(2, -1, -1))
        assert torch.equal(units[..., place][inside], distances.argmin(-1)[inside])
        assert set(units[..., place][inside].tolist()) <= set(range(size))


def test_some_of_the_streams_are_the_same_units():
    model, waveform, samples, *_ = fitted()
    part = model.only([(2, 3), (1, 5)])
    assert torch.equal(part.encode(waveform, samples), model.encode(waveform, samples)[..., [2, 0]])
    assert part.bits_per_second == pytest.approx(50 * (math.log2(3) + math.log2(5)))
    with pytest.raises(SSLKMeansError, match=r"\(3, 5\)"):
        model.only([(3, 5)])


def test_no_gradient_reaches_the_encoder_and_a_layer_without_a_stream_is_named():
    model, *_ = fitted()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(SSLKMeansError, match="layer 0"):
        model.fit_layer(0, torch.zeros(9, 16), seed=0)
