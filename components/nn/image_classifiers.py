"""Two small convolutional classifiers of unlike design, whose penultimate features serve losses and metrics.

One is for losses, the other for metrics: a metric on the network that a training was rewarded by would only measure
the reward.

Letters: `B` images, `H W` pixels, `F` width of the penultimate features, `L` classes.

Sources: He et al. 2016 (ResNet, section 4.2: the CIFAR form with 16, 32, 64 channels); Simonyan and Zisserman 2015
(VGG: plain stacks of 3 x 3 convolutions); Ioffe and Szegedy 2015 (batch normalisation).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from components.data.pixels import to_unit


class _Convolution(nn.Sequential):
    """A convolution and its batch normalisation."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False),
            nn.BatchNorm2d(outputs),
        )


class _Residual(nn.Module):
    """relu(x' + BN conv relu BN conv x); x' is x, or x through a strided 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _Convolution(inputs, outputs, stride=stride)
        self.second = _Convolution(outputs, outputs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = _Convolution(inputs, outputs, side=1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(F.relu(self.first(x))))


class _Classifier(nn.Module):
    """Convolutional stages, global mean, linear classifier.

    Attributes:
        feature_dim: F.
    """

    feature_dim: int
    stages: nn.Module
    classifier: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Return penultimate features (B, F) of images (B, 3, H, W), uint8 or float in [0, 1]."""
        # Channels last is what the CPU's and the GPU's convolutions are fastest at.
        pixels = (to_unit(images) * 4 - 2).contiguous(memory_format=torch.channels_last)
        return self.stages(pixels).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits (B, L) of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.classifier(self.features(images))


class ResidualClassifier(_Classifier):
    """A residual network: one stage per entry of `channels`, each but the first halves the resolution.

    Args:
        channels: Channels of the stages; the last is F.
        classes: L.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_Convolution(3, channels[0]), nn.ReLU()]
        inputs = channels[0]
        for stage, outputs in enumerate(channels):
            blocks.append(_Residual(inputs, outputs, stride=1 if stage == 0 else 2))
            inputs = outputs
        self.feature_dim = inputs
        self.stages = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, classes)
        self.to(memory_format=torch.channels_last)


class PlainClassifier(_Classifier):
    """A plain network: 3 x 3 convolutions without shortcuts, max pooling between groups.

    Args:
        groups: Channels of the convolutions of each group; the last channel count is F.
        classes: L.
    """

    def __init__(self, groups: Sequence[Sequence[int]], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for position, group in enumerate(groups):
            if position:
                layers.append(nn.MaxPool2d(2))
            for outputs in group:
                layers += [_Convolution(inputs, outputs), nn.ReLU()]
                inputs = outputs
        self.feature_dim = inputs
        self.stages = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        self.to(memory_format=torch.channels_last)


def frozen(classifier: _Classifier) -> _Classifier:
    """Prepare a trained classifier, in place, for use as a fixed measuring device.

    It is put into evaluation mode without gradients for its weights, and its batch normalisations, which are then
    affine, are folded into their convolutions: the same function, up to rounding, in two thirds of the time.
    """
    classifier.eval()
    for parent in list(classifier.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _Convolution):
                setattr(parent, name, fuse_conv_bn_eval(child[0], child[1]))
    return classifier.requires_grad_(False).to(memory_format=torch.channels_last)


def build(*, design: str, channels: Sequence[int] | Sequence[Sequence[int]], classes: int) -> _Classifier:
    """Build a classifier from its saved description: design "residual" or "plain"."""
    return {"residual": ResidualClassifier, "plain": PlainClassifier}[design](channels, classes)
