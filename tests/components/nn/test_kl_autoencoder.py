"""The variational autoencoder: its divergence, its noise, and the scale of its latents."""

import pytest
import torch

from components.nn.kl_autoencoder import KLAutoencoder, LatentScaleError, gaussian_kl


def autoencoder() -> KLAutoencoder:
    torch.manual_seed(0)
    return KLAutoencoder(image_side=16, channels=(4, 8), latent_dim=3)


def test_the_divergence_is_that_of_two_normals():
    mean, log_variance = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    first = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(first, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)
    assert float(gaussian_kl(torch.zeros(1), torch.zeros(1))) == 0


def test_a_training_pass_samples_around_the_mean_and_its_divergence_sums_over_channels():
    model, images = autoencoder(), torch.rand(4, 3, 16, 16)
    mean, log_variance = model.posterior(images)
    assert mean.shape == log_variance.shape == (4, 16, 3)
    result = model(images, torch.Generator().manual_seed(0))
    torch.testing.assert_close(result.kl, gaussian_kl(mean, log_variance).sum(-1).mean())
    again = model(images, torch.Generator().manual_seed(0))
    assert torch.equal(result.images, again.images)
    assert not torch.equal(result.images, model(images, torch.Generator().manual_seed(1)).images)


def test_the_sample_has_the_deviation_that_the_log_variance_says():
    model, seen = autoencoder(), []
    with torch.no_grad():
        head = model.encoder.layers[-1]
        head.weight.zero_()
        head.bias[:3].fill_(0.5)
        head.bias[3:].fill_(2 * torch.log(torch.tensor(3.0)))
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.rand(400, 3, 16, 16), torch.Generator().manual_seed(0))
    assert float(seen[0].mean()) == pytest.approx(0.5, abs=0.1)
    assert float(seen[0].std()) == pytest.approx(3.0, abs=0.1)


def test_with_no_variance_left_the_sample_is_the_mean():
    model, images = autoencoder(), torch.rand(4, 3, 16, 16)
    with torch.no_grad():
        head = model.encoder.layers[-1]
        head.weight[3:].zero_()
        head.bias[3:].fill_(-100.0)
    model.mean.uniform_(), model.deviation.fill_(2.5)
    expected = model.decode_values(model.latents(images))
    torch.testing.assert_close(model(images).images, expected, atol=1e-3, rtol=0)


def test_measured_latents_have_unit_deviation_over_any_split_into_batches():
    model, images = autoencoder(), torch.rand(12, 3, 16, 16)
    channels = model.measure(images.split(5))
    with torch.no_grad():
        latents = model.latents(images).double()
    torch.testing.assert_close(latents.mean((0, 1)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.square().mean((0, 1)).sqrt(), channels, atol=1e-5, rtol=0)
    assert float(channels.square().mean()) == pytest.approx(1)
    first = model.mean.clone()
    model.measure([images])
    torch.testing.assert_close(model.mean, first)


def test_latents_that_never_vary_have_no_scale():
    model = autoencoder()
    with torch.no_grad():
        model.encoder.layers[-1].weight.zero_()
    with pytest.raises(LatentScaleError, match="train the autoencoder first"):
        model.measure([torch.rand(2, 3, 16, 16)])
