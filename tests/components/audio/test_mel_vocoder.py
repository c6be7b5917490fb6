"""The vocoder, its blocks and its head: shapes, locality, bounds of magnitudes, and one batch learnt."""

import pytest
import torch

from components.audio.convnext import ConvNextBlock, ConvNextStack, Double, Halve
from components.audio.istft_head import IstftHead
from components.audio.mel_vocoder import MelVocoder, MelVocoderError
from components.audio.spectral_loss import SpectralLoss, SpectralLossError, draw_windows


def test_frames_become_as_many_hops_of_samples():
    vocoder = MelVocoder(width=8, blocks=1)
    waves = 0.1 * torch.randn(2, 1_600)
    assert vocoder.spectra(waves).shape == (2, 20, 40)
    assert vocoder(vocoder.spectra(waves)).shape == (2, 1_600)
    with pytest.raises(MelVocoderError, match="as this vocoder's `spectra` gives them"):
        vocoder(torch.zeros(2, 20, 41))


@torch.no_grad()
def test_a_sample_depends_on_the_frames_within_reach_only():
    torch.manual_seed(0)
    vocoder = MelVocoder(width=8, blocks=2).eval()
    frames = torch.randn(1, 80, 40) - 5
    other = frames.clone()
    other[:, 40] += 3
    changed = (vocoder(frames) != vocoder(other)).view(-1, 80).any(1).nonzero().flatten()
    assert 40 - vocoder.reach <= changed.min() < 40 < changed.max() <= 40 + vocoder.reach


def test_magnitudes_are_bounded_and_phases_are_free():
    head = IstftHead(4, 320, 80, largest=10.0)
    with torch.no_grad():
        head.linear.bias[: head.stft.bins] = 50.0
    spectra = head.spectra(torch.randn(1, 6, 4))
    torch.testing.assert_close(spectra.abs(), torch.full((1, 6, 161), 10.0))
    assert spectra.angle().std() > 0.1
    assert head(torch.randn(1, 6, 4)).shape == (1, 480)


@torch.no_grad()
def test_a_block_is_its_equation_and_a_stack_reaches_as_far_as_it_says():
    torch.manual_seed(0)
    block = ConvNextBlock(6)
    x = torch.randn(2, 30, 6)
    place, kernel = 12, block.depthwise.weight[:, 0]
    window = x[0, place - 3 : place + 4]
    hidden = (window * kernel.t()).sum(0) + block.depthwise.bias
    branch = block.narrow(torch.nn.functional.gelu(block.widen(block.norm(hidden))))
    torch.testing.assert_close(block(x)[0, place], x[0, place] + block.gamma * branch)
    stack = ConvNextStack(3, 8, 2)
    one, other = torch.randn(2, 1, 60, 3)
    other[:, :] = one
    other[:, 30] += 1
    changed = (stack(one) != stack(other)).any(-1).flatten().nonzero().flatten()
    assert (changed.min(), changed.max()) == (30 - stack.reach, 30 + stack.reach)


def test_rates_are_halved_and_doubled():
    assert Halve(3, 5)(torch.randn(2, 8, 3)).shape == (2, 4, 5)
    double = Double(3, 5)
    x = torch.randn(2, 4, 3)
    both = double(x)
    assert both.shape == (2, 8, 5)
    torch.testing.assert_close(both[:, 6:8].flatten(1), double.linear(x[:, 3]))


def test_spectral_errors_are_zero_for_a_copy_and_the_logarithm_of_a_gain():
    errors = SpectralLoss()
    waves = 0.3 * torch.randn(2, 4_000, generator=torch.Generator().manual_seed(0))
    same = errors(waves, waves)
    assert (float(same.mel), float(same.stft)) == (0, 0)
    louder = errors(waves * torch.e, waves, (256, 1024))
    assert float(louder.mel) == pytest.approx(1, abs=1e-3)
    assert float(louder.stft) == pytest.approx(1, abs=0.02)
    with pytest.raises(SpectralLossError, match="windows \\[100\\]"):
        errors(waves, waves, (100,))
    with pytest.raises(SpectralLossError, match="cut both alike"):
        errors(waves, waves[:, 1:])


def test_two_windows_are_drawn_each_as_often():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_windows(generator) for _ in range(400)]
    assert all(len(set(windows)) == 2 for windows in drawn)
    for window in (128, 256, 512, 1024):
        assert sum(window in windows for windows in drawn) == pytest.approx(200, abs=40)


def test_one_batch_can_be_learnt():
    torch.manual_seed(0)
    vocoder, errors = MelVocoder(width=24, blocks=1), SpectralLoss()
    time = torch.arange(4_000) / 8_000
    waves = torch.stack([0.3 * torch.sin(2 * torch.pi * hertz * time) for hertz in (200, 700)])
    frames = vocoder.spectra(waves)
    optimiser = torch.optim.AdamW(vocoder.parameters(), 5e-3)
    reached = []
    for _ in range(100):
        found = errors(vocoder(frames), waves, (256,))
        optimiser.zero_grad()
        (15 * found.mel + found.stft).backward()
        optimiser.step()
        reached.append(float(found.mel.detach()))
    assert reached[-1] < 0.4 * reached[0]
