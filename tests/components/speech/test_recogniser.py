"""The recogniser: padding never reaches an utterance, frames are counted right, and it learns one batch."""

import pytest
import torch

from components.speech.ctc import greedy, padded
from components.speech.recogniser import CTCRecogniser, RecogniserError
from components.speech.spec_augment import SpecAugment

NO_MASKS = SpecAugment(time_masks=0, band_masks=0)


def small(**sizes) -> CTCRecogniser:
    torch.manual_seed(0)
    return CTCRecogniser(**{"channels": 16, "hidden": 12, "bands": 20, "dropout": 0.0} | sizes).eval()


def spoken(lengths, seed=0):
    waveform = 0.1 * torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(seed))
    samples = torch.tensor(lengths)
    return waveform * (torch.arange(max(lengths)) < samples[:, None]), samples


@torch.no_grad()
def test_an_utterance_reads_the_same_alone_and_beside_a_longer_one():
    model = small()
    waveform, samples = spoken([3_010, 5_000, 777])
    model.fit_scale(waveform, samples)
    together, frames = model.log_probabilities(waveform, samples)
    for row, count in enumerate(samples.tolist()):
        alone, (length,) = model.log_probabilities(waveform[row : row + 1, :count], samples[row : row + 1])
        assert int(frames[row]) == int(length) == model.frames_of(count) == alone.shape[1]
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_normalised_is_the_frames_inside():
    model = small()
    waveform, samples = spoken([4_000, 1_600])
    model.fit_scale(waveform, samples)
    spectra, frames = model.spectra(waveform, samples)
    kept = torch.cat([spectra[row, :count] for row, count in enumerate(frames)])
    torch.testing.assert_close(kept.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(kept.std(0), torch.ones(20), atol=1e-3, rtol=0)
    assert not spectra[1, frames[1] :].any()


def test_it_learns_to_spell_one_batch():
    model = small(alphabet=" ab", hidden=24).train()
    waveform, samples = spoken([4_000, 3_200])
    labels, lengths = padded([model.spell("ab a"), model.spell("bb")])
    model.fit_scale(waveform, samples)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(50):
        loss = model.loss(waveform, samples, labels, lengths, torch.Generator(), NO_MASKS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    log_p, frames = model.eval().log_probabilities(waveform, samples)
    assert [model.text(each) for each in greedy(log_p, frames)] == ["ab a", "bb"]


def test_spelling_goes_both_ways_and_names_a_foreign_character():
    model = small()
    assert model.text(model.spell("it's nine")) == "it's nine"
    with pytest.raises(RecogniserError, match="'9'"):
        model.spell("9")
