"""Log-spectral distance where it can be written down."""

import numpy as np
import pytest
import torch

from components.metrics.audio import AudioMetricError, log_spectral_distance


def test_it_is_the_root_mean_square_over_bands_of_each_frame():
    values = np.random.default_rng(0).normal(-50, 10, (2, 3, 4, 5))
    distances = log_spectral_distance(torch.from_numpy(values[0]), torch.from_numpy(values[1]))
    assert distances.shape == (3, 4)
    for block in range(3):
        for frame in range(4):
            squares = (values[0, block, frame] - values[1, block, frame]) ** 2
            assert float(distances[block, frame]) == pytest.approx((sum(squares) / 5) ** 0.5)


def test_a_change_of_loudness_is_its_decibels_and_a_copy_is_0():
    spectra = torch.randn(7, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_spectral_distance(spectra + 3, spectra), torch.full((7,), 3.0))
    assert torch.equal(log_spectral_distance(spectra, spectra), torch.zeros(7))


def test_other_shapes_are_refused():
    with pytest.raises(AudioMetricError, match="differ in shape"):
        log_spectral_distance(torch.zeros(3, 40), torch.zeros(4, 40))
