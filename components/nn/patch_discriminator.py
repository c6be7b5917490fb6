"""A patch discriminator with hinge loss and LeCam regularisation.

Letters: `B` images, `H W` pixels.

Sources: Isola et al. 2017 (PatchGAN, section 3.2.2); Lim and Ye 2017 (hinge loss); Tseng et al. 2021 (LeCam,
equations 3 and 4: regularisation against moving averages of the discriminator's outputs).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Strided convolutions to one logit per image patch.

    Args:
        width: Channels of the first layer; they double with every further one.
        layers: Strided layers; each halves the resolution.
        lecam_decay: Decay of the moving averages of the mean logits.
    """

    def __init__(self, width: int = 64, layers: int = 3, lecam_decay: float = 0.999) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers):
            outputs = width * 2**layer
            blocks += [
                nn.Conv2d(outputs // 2, outputs, 4, 2, 1, bias=False),
                nn.GroupNorm(min(32, outputs // 2), outputs),
                nn.LeakyReLU(0.2),
            ]
        self.net = nn.Sequential(*blocks, nn.Conv2d(width * 2 ** (layers - 1), 1, 3, 1, 1))
        self.lecam_decay = lecam_decay
        self.register_buffer("real_mean", torch.zeros(()))
        self.register_buffer("fake_mean", torch.zeros(()))
        self._recent: tuple[Tensor, Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) of images (B, 3, H, W) in [0, 1]; high means real."""
        return self.net(images * 2 - 1)

    def generator_loss(self, fakes: Tensor) -> Tensor:
        """Return -E D(fake); its gradient reaches the images and never the discriminator's weights."""
        weights = {name: tensor.detach() for name, tensor in self.named_parameters()}
        return -torch.func.functional_call(self, weights, (fakes,)).mean()

    def discriminator_loss(self, reals: Tensor, fakes: Tensor, lecam_weight: float) -> Tensor:
        """Return the hinge loss with LeCam regularisation; its gradient never reaches the images.

            L = (E relu(1 - D(real)) + E relu(1 + D(fake))) / 2
                + lecam_weight (relu(m_real - a_fake)^2 + relu(a_real - m_fake)^2)

        m: mean logits of this batch, a: their moving averages, which `after_step` moves.
        """
        real, fake = self(reals.detach()), self(fakes.detach())
        hinge = (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
        means = real.mean(), fake.mean()
        self._recent = means[0].detach(), means[1].detach()
        lecam = F.relu(means[0] - self.fake_mean).square() + F.relu(self.real_mean - means[1]).square()
        return hinge + lecam_weight * lecam

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the averages of the mean logits towards those of the last `discriminator_loss`; at most once a step."""
        if self._recent is not None:
            self.real_mean.lerp_(self._recent[0], 1 - self.lecam_decay)
            self.fake_mean.lerp_(self._recent[1], 1 - self.lecam_decay)
            self._recent = None
