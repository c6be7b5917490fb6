"""Image tokens without a network: square patches of raw pixels, each named by the nearest of K codes.

Letters: `B` images, `H W` pixels, `P` cells of an image, `D` numbers of a patch, `K` codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.data.images import tile, untile
from components.data.pixels import to_unit
from components.errors import TesseraError
from components.quantizers.quantized import Quantizer


class PatchGridTokenizer(nn.Module):
    """Cuts an image into patches, row by row, and quantizes each patch by itself.

    Args:
        quantizer: Of vectors of width 3 * patch_side^2; learns in `start_from` (k-means does).
        image_side: H = W in pixels.
        patch_side: Side of a patch in pixels.

    Attributes:
        rows: Cells along a side.
        cells: P.
        codebook_sizes: How many codes each index of a cell can name.
    """

    def __init__(self, *, quantizer: Quantizer, image_side: int, patch_side: int) -> None:
        super().__init__()
        if image_side % patch_side or quantizer.code_dim != 3 * patch_side**2:
            raise TesseraError(
                f"images of {image_side} pixels, patches of {patch_side} and codes of width {quantizer.code_dim}; "
                f"expected patches that divide the side and codes of width 3 * {patch_side}^2 = {3 * patch_side**2}."
            )
        self.image_side, self.patch_side = image_side, patch_side
        self.rows = image_side // patch_side
        self.cells = self.rows**2
        self.codebook_sizes = quantizer.codebook_sizes
        self.quantizer = quantizer

    @property
    def codebook_size(self) -> int:
        """K, where one index names a cell's code."""
        return self.quantizer.codebook_size

    def latents(self, images: Tensor) -> Tensor:
        """Return the patches (B, P, D) of images (B, 3, H, W), uint8 or float in [0, 1]."""
        patches = tile(to_unit(images), self.patch_side).flatten(1)
        return patches.unflatten(0, (len(images), self.cells))

    def encode(self, images: Tensor) -> Tensor:
        """Return indices (B, P) of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.quantizer(self.latents(images)).indices

    def decode(self, indices: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of indices (B, P)."""
        patches = self.quantizer.decode(indices).flatten(0, 1)
        patches = patches.unflatten(1, (3, self.patch_side, self.patch_side))
        return untile(patches, self.image_side, self.image_side)

    @torch.no_grad()
    def start_from(self, images: Tensor, generator: torch.Generator) -> None:
        """Make the codebook from the patches of images (B, 3, H, W)."""
        self.quantizer.start_from(self.latents(images), generator)


# A description of a model names this module and calls `build` with its arguments.
build = PatchGridTokenizer
