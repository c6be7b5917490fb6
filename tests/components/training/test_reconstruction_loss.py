"""The reconstruction loss by its equations."""

import torch
from torch import nn

from components.training.reconstruction_loss import feature_error, pixel_error


class Network(nn.Module):
    def features(self, images):
        return images.mean((2, 3)) * torch.tensor([1.0, 2.0, 3.0])


def test_pixel_error_is_the_squared_error_of_pixels_from_minus_one_to_one():
    images, references = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    expected = ((2 * images - 1) - (2 * references - 1)).square().mean()
    torch.testing.assert_close(pixel_error(images, references), expected)


def test_feature_error_is_the_squared_distance_per_feature_averaged_over_images():
    images, references = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    network = Network()
    distances = (network.features(images) - network.features(references)).square().sum(1) / 3
    torch.testing.assert_close(feature_error(network, images, references), distances.mean())


def test_gradients_reach_the_reconstruction_and_not_the_original():
    images, references = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4, requires_grad=True)
    feature_error(Network(), images, references).backward()
    assert images.grad is not None
    assert references.grad is None
