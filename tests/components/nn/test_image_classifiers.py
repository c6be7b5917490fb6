"""Classifiers as measuring devices."""

import pytest
import torch

from components.nn.image_classifiers import build, frozen

DESIGNS = {"residual": [4, 8], "plain": [[4], [6, 8]]}


def classifier(design: str):
    torch.manual_seed(0)
    model = build(design=design, channels=DESIGNS[design], classes=3)
    model.train()
    for _ in range(3):
        model(torch.rand(16, 3, 16, 16))
    return model.eval()


@pytest.mark.parametrize("design", DESIGNS)
def test_freezing_changes_speed_and_not_the_function(design):
    model, images = classifier(design), torch.rand(5, 3, 16, 16)
    before = model.features(images), model(images)
    fixed = frozen(model)
    torch.testing.assert_close(fixed.features(images), before[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fixed(images), before[1], rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fixed.modules())
    assert not any(parameter.requires_grad for parameter in fixed.parameters())


@pytest.mark.parametrize("design", DESIGNS)
def test_features_are_as_wide_as_declared_and_carry_gradients_to_the_image(design):
    model = frozen(classifier(design))
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    features = model.features(images)
    assert features.shape == (2, model.feature_dim) == (2, 8)
    features.sum().backward()
    assert float(images.grad.abs().sum()) > 0


@pytest.mark.parametrize("design", DESIGNS)
def test_bytes_and_unit_floats_are_the_same_image(design):
    model = classifier(design)
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert torch.equal(model(images), model(images.float() / 255))


def test_the_two_designs_of_the_family_have_the_promised_features():
    assert build(design="residual", channels=[16, 32, 64], classes=10).feature_dim == 64
    assert build(design="plain", channels=[[24], [48, 48], [96, 128]], classes=10).feature_dim == 128
