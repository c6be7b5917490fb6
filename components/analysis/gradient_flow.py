"""How well a gradient passes a quantizer: how large it arrives at the encoder, and what it promises against what is.

A quantizer is piecewise constant, so its own derivative is zero almost everywhere and what a codec trains with is an
estimate g of the gradient with respect to the latents z. Along its own direction u = g / ||g|| the estimate promises
the slope ||g||; the slope there really is, over a step h to both sides, is measured:

    realised share = (L(z + h u) - L(z - h u)) / (2 h ||g||),        bias = |realised share - 1|

1 is the share of a true gradient of a smooth L as h falls to 0; 0 says that the step changes nothing.

Letters: `B` items, `...` axes of a latent.

Source: Bengio, Leonard, Courville 2013 (the straight-through estimator is biased); central differences along a
direction are our check of it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from components.errors import TesseraError


class GradientFlowError(TesseraError):
    """Nothing flows where it was to be watched."""


class ArrivingGradient:
    """The length of the gradient that arrives at a module's output in each backward pass.

    Args:
        module: The encoder; its output is one tensor.

    Attributes:
        norm: Length in the last backward pass, a scalar tensor. The tensor that `record` returned is filled in the
            backward pass after it, so it may be handed to a log before that.
    """

    def __init__(self, module: nn.Module) -> None:
        self.norm: Tensor | None = None
        self._handle = module.register_forward_hook(self._watch)

    def record(self) -> Tensor:
        """Return the scalar that the next backward pass fills, after the module's forward pass."""
        if self.norm is None:
            raise GradientFlowError("No forward pass with gradients was watched; call record behind the forward pass.")
        return self.norm

    def close(self) -> None:
        """Stop watching."""
        self._handle.remove()

    def _watch(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if not output.requires_grad:
            return
        self.norm = norm = torch.zeros((), device=output.device)

        def fill(gradient: Tensor) -> None:
            norm.copy_(gradient.detach().float().norm())

        output.register_hook(fill)


def realised_share(loss: Callable[[Tensor], Tensor], latents: Tensor, step: float) -> Tensor:
    """Return what share of the slope that the gradient estimate promises is really there; see the module.

    Args:
        loss: Loss of each item, (B,), of latents (B, ...); its backward pass gives the estimate. An item's loss
            depends on its own latents alone.
        latents: z, (B, ...).
        step: h as a share of the length of each item's latents.

    Returns:
        float64 (B,); 0 where the estimate is zero.
    """
    latents = latents.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(latents).sum(), latents)
    flat = gradient.flatten(1)
    length = flat.norm(dim=1)
    direction = (flat / length.clamp(min=torch.finfo(flat.dtype).tiny).unsqueeze(1)).view_as(latents)
    size = step * latents.detach().flatten(1).norm(dim=1)
    move = direction * size.view(-1, *[1] * (latents.dim() - 1))
    with torch.no_grad():
        rise = loss(latents + move).double() - loss(latents - move).double()
    promised = 2 * size.double() * length.double()
    return torch.where(promised > 0, rise / promised.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
