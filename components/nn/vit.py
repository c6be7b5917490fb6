"""Vision transformers: of patches beside a class token, and between images and sequences of latent tokens.

Letters: `B` images, `H W` pixels, `P` patches of an image, `N` latent tokens, `k` latent tokens kept, `D` width,
`C` width of a code.

Sources: Dosovitskiy et al. 2021 (patches and a class token as tokens); Yu et al. 2024 (TiTok, section 3: latent tokens
beside patches in the encoder, mask tokens beside codes in the decoder).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import Transformer, TransformerConfig


class PatchError(TesseraError):
    """An image side is no multiple of the patch side."""


def patches_per_image(image_side: int, patch_size: int) -> int:
    """Return P, the number of square patches of a square image.

    Raises:
        PatchError: The patch side does not divide the image side.
    """
    if image_side % patch_size:
        raise PatchError(f"patch_size {patch_size} does not divide image_side {image_side}; choose a divisor.")
    return (image_side // patch_size) ** 2


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (B, 3, H, W) into flat patches (B, P, 3 * patch_size**2), row by row."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    parts = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """Undo `patchify` for square images: (B, P, 3 * patch_size**2) to (B, 3, H, W)."""
    batch, count, values = patches.shape
    rows = round(count**0.5)
    parts = patches.reshape(batch, rows, rows, values // patch_size**2, patch_size, patch_size)
    side = rows * patch_size
    return parts.permute(0, 3, 1, 4, 2, 5).reshape(batch, values // patch_size**2, side, side)


def embedding(count: int, width: int) -> nn.Parameter:
    """Return `count` learned vectors (count, D), normal with standard deviation D**-0.5."""
    return nn.Parameter(torch.randn(count, width) * width**-0.5)


class PatchViT(nn.Module):
    """Image to one vector for the whole (CLS, the first token) and one for each patch, row by row behind it.

        patches -- linear, + 2D positions --+
                                            +-- block 1 -- block 2 -- ... -- block L -- norm
        CLS, + its position ----------------+

    Every stage is open to whoever reduces tokens: `embed` gives the tokens before the first block, `blocks` are the
    blocks themselves, `norm` is what follows the last, and `hidden` gives the tokens between two blocks.

    Args:
        image_side: H = W in pixels.
        patch_size: Side of a patch in pixels.
        width: D.
        layers: L, transformer blocks.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP over D.
    """

    def __init__(
        self, *, image_side: int, patch_size: int, width: int, layers: int, heads: int, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        self.image_side, self.patch_size = image_side, patch_size
        self.patches = patches_per_image(image_side, patch_size)
        self.patch_embedding = nn.Linear(3 * patch_size**2, width)
        self.positions = embedding(1 + self.patches, width)
        self.class_token = embedding(1, width)
        self.transformer = Transformer(TransformerConfig(width=width, layers=layers, heads=heads, mlp_ratio=mlp_ratio))

    @property
    def rows(self) -> int:
        """Rows, and columns, of the grid of patches."""
        return self.image_side // self.patch_size

    @property
    def width(self) -> int:
        """D."""
        return self.transformer.config.width

    @property
    def layers(self) -> int:
        """L."""
        return self.transformer.config.layers

    @property
    def blocks(self) -> nn.ModuleList:
        """The L blocks, in order."""
        return self.transformer.blocks

    @property
    def norm(self) -> nn.Module:
        """The norm behind the last block."""
        return self.transformer.norm

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, 1 + P, D) that the first block reads, of float images (B, 3, H, W) in [0, 1].

        Raises:
            PatchError: The images have another side.
        """
        if images.shape[-2:] != (self.image_side, self.image_side):
            raise PatchError(
                f"images are {images.shape[-1]} x {images.shape[-2]} pixels; this network reads {self.image_side} x "
                f"{self.image_side}. Resize them."
            )
        patches = self.patch_embedding(patchify(images * 2 - 1, self.patch_size))
        tokens = torch.cat([self.class_token.expand(len(images), 1, -1), patches], dim=1)
        return tokens + self.positions

    def hidden(self, images: Tensor, layers: int) -> Tensor:
        """Return the tokens (B, 1 + P, D) behind the first `layers` blocks, not normalised.

        `layers = L - 1` is what LLaVA calls the penultimate layer.

        Raises:
            PatchError: There are fewer blocks.
        """
        if not 0 <= layers <= self.layers:
            raise PatchError(f"layers is {layers}; expected 0 to {self.layers}.")
        tokens = self.embed(images)
        for block in self.blocks[:layers]:
            tokens = block(tokens, None, False, None, None, None, None)
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised tokens (B, 1 + P, D) of float images (B, 3, H, W) in [0, 1]."""
        return self.norm(self.hidden(images, self.layers))


class LatentEncoder(nn.Module):
    """Image to N vectors without spatial layout.

        patches -- linear, + 2D positions --+
                                            +-- transformer -- keep the N latent outputs -- norm, linear D -> C
        N learned latents + 1D positions ---+

    Args:
        image_side: H = W in pixels.
        patch_size: Side of a patch in pixels.
        tokens: N.
        code_dim: C.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
    """

    def __init__(
        self, *, image_side: int, patch_size: int, tokens: int, code_dim: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patches = patches_per_image(image_side, patch_size)
        self.patch_embedding = nn.Linear(3 * patch_size**2, width)
        self.patch_positions = embedding(self.patches, width)
        self.latents = embedding(tokens, width)
        self.latent_positions = embedding(tokens, width)
        self.transformer = Transformer(TransformerConfig(width=width, layers=layers, heads=heads))
        self.to_code = nn.Linear(width, code_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Encode float images (B, 3, H, W) in [0, 1] to (B, N, C)."""
        patches = self.patch_embedding(patchify(images * 2 - 1, self.patch_size)) + self.patch_positions
        latents = (self.latents + self.latent_positions).expand(images.shape[0], -1, -1)
        sequence = self.transformer(torch.cat([patches, latents], dim=1))
        # Taken after the transformer's final layer norm, which works on each token by itself.
        return self.to_code(sequence[:, self.patches :])


class LatentDecoder(nn.Module):
    """Any prefix of the N codes to one feature vector per patch.

        P copies of one mask token + 2D positions ---+
                                                     +-- transformer -- norm -- keep the P mask outputs
        k codes -- linear C -> D, + 1D positions ----+

    Args:
        patches: P.
        tokens: N, the most codes it can be given.
        code_dim: C.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
    """

    def __init__(self, *, patches: int, tokens: int, code_dim: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.patches = patches
        self.mask_token = embedding(1, width)
        self.patch_positions = embedding(patches, width)
        self.from_code = nn.Linear(code_dim, width)
        self.token_positions = embedding(tokens, width)
        self.transformer = Transformer(TransformerConfig(width=width, layers=layers, heads=heads))

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (B, k, C), k from 1 to N, to patch features (B, P, D)."""
        kept = codes.shape[1]
        queries = (self.mask_token + self.patch_positions).expand(codes.shape[0], -1, -1)
        tokens = self.from_code(codes) + self.token_positions[:kept]
        return self.transformer(torch.cat([queries, tokens], dim=1))[:, : self.patches]
