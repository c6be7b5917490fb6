"""One-dimensional image tokenizer: an image as a sequence of codes without spatial layout, of which any prefix decodes.

                                    training: k ~ drop law
                                             |
    image -- encoder -- N vectors -- quantizer -- first k codes -- decoder -- head -- image

With the drop law "none" it is a fixed-length tokenizer (TiTok); with tail drop the first codes learn to carry what
matters most (One-D-Piece). The encoder never sees k: codes of a shorter prefix are those of a longer one.

Letters: `B` images, `H W` pixels, `P` patches, `N` tokens, `k` tokens kept, `D` width, `C` width of a code, `M` indices
of a token, where its quantizer has several codebooks.

Sources: Yu et al. 2024 (TiTok), section 3; Miwa et al. 2025 (One-D-Piece), section 3.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from components.compression.tail_drop import DropLaw, draw_kept, keep_prefix
from components.data.pixels import to_unit
from components.nn.vit import LatentDecoder, LatentEncoder, patches_per_image, unpatchify
from components.quantizers.quantized import Quantized, Quantizer


class Reconstruction(NamedTuple):
    """The result of one forward pass of an image tokenizer.

    Attributes:
        images: Decoded images, float (B, 3, H, W), 0 to 1 but not clipped.
        codes: What was quantized, all N tokens: `values` (B, N, C), `indices` (B, N) or (B, N, M), `loss`.
        kept: k, the number of codes the decoder saw.
    """

    images: Tensor
    codes: Quantized
    kept: int


class Head(Protocol):
    """What turns patch features (B, P, D) into images (B, 3, H, W), and the number of patches it needs.

    Attributes:
        patches: P.
    """

    patches: int

    def __call__(self, features: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of features (B, P, D)."""
        ...


class PixelHead(nn.Module):
    """Patch features to pixels, one linear map per patch."""

    def __init__(self, image_side: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patches = patches_per_image(image_side, patch_size)
        self.to_pixels = nn.Linear(width, 3 * patch_size**2)

    def forward(self, features: Tensor) -> Tensor:
        """Return images (B, 3, H, W), 0 to 1 but not clipped, of features (B, P, D)."""
        return unpatchify(self.to_pixels(features), self.patch_size) * 0.5 + 0.5


class OneDTokenizer(nn.Module):
    """Encoder, quantizer and decoder over N tokens, with tail drop in training.

    Args:
        quantizer: Its `codebook_sizes` and `code_dim` are taken from it.
        head: From patch features to images; None is a PixelHead over the encoder's patches.
        image_side: H = W in pixels.
        patch_size: Side of an encoder patch in pixels.
        tokens: N.
        width: D.
        layers: Transformer blocks of the encoder, and again of the decoder.
        heads: Attention heads.
        drop: Law of the number of tokens kept in a training step.
    """

    def __init__(
        self,
        *,
        quantizer: Quantizer,
        head: nn.Module | None = None,
        image_side: int,
        patch_size: int,
        tokens: int,
        width: int,
        layers: int,
        heads: int,
        drop: DropLaw,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.drop = drop
        self.codebook_sizes = quantizer.codebook_sizes
        sizes = {"tokens": tokens, "code_dim": quantizer.code_dim, "width": width, "layers": layers, "heads": heads}
        self.encoder = LatentEncoder(image_side=image_side, patch_size=patch_size, **sizes)
        self.quantizer = quantizer
        self.head = PixelHead(image_side, patch_size, width) if head is None else head
        self.decoder = LatentDecoder(patches=self.head.patches, **sizes)

    @property
    def codebook_size(self) -> int:
        """K, where one index names a token's code."""
        return self.quantizer.codebook_size

    def draw_step(self, generator: torch.Generator) -> int:
        """Draw what is random in one training step: k, one for the whole batch."""
        return draw_kept(self.tokens, self.drop, generator)

    def forward(self, images: Tensor, kept: int | None = None) -> Reconstruction:
        """Encode, quantize, keep the first `kept` codes (all by default) and decode.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1].
            kept: k. The same code path in training and evaluation; only who draws k differs.
        """
        kept = self.tokens if kept is None else kept
        codes = self.quantizer(self.encoder(to_unit(images)))
        return Reconstruction(self.head(self.features(codes.values, kept)), codes, kept)

    def features(self, values: Tensor, kept: int) -> Tensor:
        """Return patch features (B, P, D) decoded from the first `kept` of the code vectors (B, N, C)."""
        return self.decoder(keep_prefix(values, kept))

    def encode(self, images: Tensor) -> Tensor:
        """Return code indices, (B, N) or (B, N, M), of images (B, 3, H, W), uint8 or float in [0, 1]."""
        return self.quantizer(self.encoder(to_unit(images))).indices

    def decode(self, indices: Tensor) -> Tensor:
        """Decode any prefix of the codes: indices (B, k), or (B, k, M), to images (B, 3, H, W), not clipped."""
        return self.head(self.decoder(self.quantizer.decode(indices)))

    @torch.no_grad()
    def start_from(self, images: Tensor, generator: torch.Generator) -> None:
        """Start the codebook from the vectors of a first batch of images (B, 3, H, W)."""
        self.quantizer.start_from(self.encoder(to_unit(images)), generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Let the quantizer move and restart its codes; call once after every optimiser step."""
        self.quantizer.after_step(step, generator)


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = OneDTokenizer
