"""Image metrics against closed forms and scikit-image."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from components.data.pixels import to_bytes
from components.metrics.image import PERFECT_PSNR, ImageMetricError, ms_ssim, psnr, ssim


def pictures(count=3, side=32, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def test_a_copy_is_perfect_in_every_metric():
    images = pictures(side=192)
    assert torch.equal(psnr(images, images), torch.full((3,), PERFECT_PSNR))
    torch.testing.assert_close(ssim(images, images), torch.ones(3))
    torch.testing.assert_close(ms_ssim(images, images), torch.ones(3))


def test_the_smallest_difference_that_bytes_allow_is_below_perfect():
    images = to_bytes(pictures(count=1, side=256))
    other = images.clone()
    other[0, 0, 0, 0] ^= 1
    value = float(psnr(images, other))
    assert value == pytest.approx(10 * math.log10(255**2 * images.numel()), abs=1e-3)
    assert value < PERFECT_PSNR


@pytest.mark.parametrize("shift", [0.01, 0.1])
def test_psnr_of_a_constant_error_is_the_closed_form(shift):
    images = pictures() * 0.5
    torch.testing.assert_close(
        psnr(images + shift, images), torch.full((3,), -20 * math.log10(shift)), atol=1e-3, rtol=0
    )


def test_psnr_of_gaussian_noise_is_its_variance():
    images = torch.full((4, 3, 128, 128), 0.5)
    noise = 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(psnr(images + noise, images), torch.full((4,), -20 * math.log10(0.05)), atol=0.1, rtol=0)


def test_psnr_agrees_with_scikit_image():
    images, others = to_bytes(pictures()), to_bytes(pictures(seed=1))
    for index in range(3):
        peer = peak_signal_noise_ratio(images[index].numpy(), others[index].numpy(), data_range=255)
        assert float(psnr(images, others)[index]) == pytest.approx(peer, abs=1e-4)


def test_ssim_agrees_with_scikit_image():
    images = pictures(side=48)
    others = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    for index in range(3):
        peer = structural_similarity(
            images[index].double().numpy(),
            others[index].double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert float(ssim(others, images)[index]) == pytest.approx(peer, abs=1e-4)


def test_more_noise_is_worse_in_every_metric():
    images = pictures(side=192)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    for metric in (psnr, ssim, ms_ssim):
        little, much = metric(images + 0.02 * noise, images), metric(images + 0.2 * noise, images)
        assert bool((little > much).all())


def test_images_that_do_not_pair_are_refused():
    with pytest.raises(ImageMetricError, match="same"):
        psnr(pictures(), pictures(count=2))
    with pytest.raises(ImageMetricError, match="161"):
        ms_ssim(pictures(side=128), pictures(side=128))
