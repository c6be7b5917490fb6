"""Features of speech: log-mel frames beside torch's own transform, and an encoder beside its network alone.

A minute of noise at 8 kHz; what a waveform says does not change what it costs. One thread.
"""

from __future__ import annotations

import limits
import pytest
import torch
import torch.nn.functional as F
import turns

from components.audio.spectra import LogMelFrames
from components.speech.ssl_encoder import SSLEncoder

pytestmark = pytest.mark.benchmark_bar

SAMPLE_RATE, SECONDS, UTTERANCES, LAYER = 8_000, 60, 12, 4
BAR, NETWORK_BAR = 0.8, 0.85


@pytest.fixture(scope="module")
def waveforms() -> torch.Tensor:
    """A minute of sound in utterances of five seconds."""
    shape = (UTTERANCES, SECONDS * SAMPLE_RATE // UTTERANCES)
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_log_mel_frames_beside_torchs_own_transform(one_thread, waveforms, benchmark):
    frames = LogMelFrames()
    window, hop, transform = frames.stft.size, frames.stft.hop, frames.stft.transform
    # torch.stft pads windows to the length of the transform on both sides, so frames begin earlier by that.
    margin = (window - hop) // 2 + (transform - window) // 2

    def plain() -> torch.Tensor:
        padded = F.pad(waveforms, (margin, margin))
        spectra = torch.stft(
            padded, transform, hop, window, frames.stft.window, center=False, return_complex=True
        ).transpose(1, 2)  # fmt: skip
        return (spectra.abs() @ frames.triangles).clamp(min=frames.floor).log()

    torch.testing.assert_close(frames(waveforms), plain(), rtol=1e-4, atol=1e-4)
    times = turns.in_turns(benchmark, {"ours": lambda: frames(waveforms), "peer": plain}, rounds=15)
    found = turns.facts(times["ours"], times["peer"], amount=SECONDS)
    benchmark.extra_info.update(found, real_time_factor=1 / found["ours"])
    print(benchmark.extra_info)
    assert found["ratio"] >= BAR


@torch.inference_mode()
def test_features_of_speech_cost_little_more_than_the_network_alone(one_thread, waveforms, benchmark):
    torch.manual_seed(0)
    encoder = SSLEncoder().eval()
    samples = torch.full((UTTERANCES,), waveforms.shape[1])
    stacked, frames = encoder.stacked(waveforms, samples)

    def network() -> torch.Tensor:
        return F.layer_norm(encoder(stacked, frames)[LAYER], (encoder.width,))

    torch.testing.assert_close(encoder.features(waveforms, samples, (LAYER,))[0][0], network())
    works = {"ours": lambda: encoder.features(waveforms, samples, (LAYER,)), "peer": network}
    times = turns.in_turns(benchmark, works, rounds=9)
    found = turns.facts(times["ours"], times["peer"], amount=SECONDS)
    operations = _operations(encoder, stacked.shape[1])
    benchmark.extra_info.update(found, limit=SECONDS * limits.products_per_second() / operations)
    print(benchmark.extra_info)
    assert found["ratio"] >= NETWORK_BAR


def _operations(encoder: SSLEncoder, length: int) -> int:
    """Return the operations of the matrix products on all utterances: weights, and queries with keys and values."""
    weights = sum(parameter.numel() for parameter in encoder.parameters() if parameter.dim() >= 2)
    return UTTERANCES * length * (2 * weights + encoder.layers * 4 * length * encoder.width)
