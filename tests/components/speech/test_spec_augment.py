"""Masks: where they lie, how wide they get, and what they leave alone."""

import pytest
import torch

from components.errors import TesseraError
from components.speech.spec_augment import SpecAugment


def test_masked_places_are_whole_frames_or_whole_bands_inside_the_utterance():
    spectra = torch.ones(200, 60, 12)
    frames = torch.randint(20, 61, (200,), generator=torch.Generator().manual_seed(1))
    augment = SpecAugment(time_masks=2, time_width=6, time_share=0.5, band_masks=1, band_width=4)
    masked = augment(spectra, frames, torch.Generator().manual_seed(0)) == 0
    whole_frames, whole_bands = masked.all(2), masked.all(1)
    assert torch.equal(masked, whole_frames[:, :, None] | whole_bands[:, None])
    behind = torch.arange(60) >= frames[:, None]
    assert not (whole_frames & behind).any()
    assert int(whole_frames.sum(1).max()) <= 12
    assert set(whole_bands.sum(1).tolist()) == set(range(5))
    # Every band and every early frame is masked by some draw.
    assert whole_bands.any(0).all()
    assert whole_frames[:, :20].any(0).all()


def test_short_utterances_lose_at_most_their_share():
    augment = SpecAugment(time_masks=1, time_width=50, time_share=0.2, band_masks=0)
    masked = augment(torch.ones(100, 40, 8), torch.full((100,), 10), torch.Generator().manual_seed(0)) == 0
    assert int(masked.all(2).sum(1).max()) == 2


def test_equal_generators_mask_alike_and_a_mask_wider_than_all_bands_is_refused():
    one, two = (
        SpecAugment()(torch.ones(3, 50, 40), torch.full((3,), 50), torch.Generator().manual_seed(4)) for _ in range(2)
    )
    assert torch.equal(one, two)
    with pytest.raises(TesseraError, match="3 bands"):
        SpecAugment()(torch.ones(1, 9, 3), torch.tensor([9]), torch.Generator())
