"""An image encoder and a text tower that agree: pictures and their captions get close vectors.

    picture -- PatchViT -- CLS ------- linear -- unit sphere --+
                             |                                 +-- cosine / temperature
    caption -- text tower -- mean ---- linear -- unit sphere --+
                             patches - linear per attribute -- what each patch shows

Letters: `B` pairs, `T` words of a caption, `P` patches, `D` width, `E` width of the shared space.

Source: Radford et al. 2021 (CLIP), section 2.3; van den Oord, Li and Vinyals 2018 (InfoNCE).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.data.pixels import to_unit
from components.multimodal.patch_labels import ATTRIBUTES
from components.multimodal.words import WordVocabulary
from components.nn.transformer import Transformer, TransformerConfig
from components.nn.vit import PatchViT

_LEAST_TEMPERATURE = 0.01


class TextTower(nn.Module):
    """Captions to one vector: a bidirectional transformer, averaged over words.

    Args:
        vocabulary_size: Words.
        context: Most words of a caption.
        width: D.
        layers: Transformer blocks.
        heads: Attention heads.
    """

    def __init__(self, *, vocabulary_size: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Embedding(context, width)
        self.transformer = Transformer(TransformerConfig(width=width, layers=layers, heads=heads))
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=width**-0.5)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return vectors (B, D) of word ids int64 (B, T), of which the first `lengths` (B,) count."""
        inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        words = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        states = self.transformer(words, mask=inside[:, None, None])
        return (states * inside[..., None]).sum(1) / lengths[:, None]


class ContrastiveViT(nn.Module):
    """The base `shapes-vit`; see the module.

    Args:
        words: Every word by its id, without the special tokens.
        image_side: H = W in pixels.
        patch_size: Side of a patch in pixels.
        width: D of both towers, and E.
        layers: Blocks of the image encoder.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the image encoder's MLPs over D.
        text_layers: Blocks of the text tower.
        context: Most words of a caption.
        label_sizes: Classes of each of `patch_labels.ATTRIBUTES`.
        temperature: Of the cosines, at the start.
    """

    def __init__(
        self,
        *,
        words: list[str],
        image_side: int,
        patch_size: int,
        width: int,
        layers: int,
        heads: int,
        mlp_ratio: float,
        text_layers: int,
        context: int,
        label_sizes: Sequence[int],
        temperature: float,
    ) -> None:
        super().__init__()
        self.words = WordVocabulary(words)
        self.encoder = PatchViT(
            image_side=image_side, patch_size=patch_size, width=width, layers=layers, heads=heads, mlp_ratio=mlp_ratio
        )
        self.text = TextTower(
            vocabulary_size=len(self.words), context=context, width=width, layers=text_layers, heads=heads
        )
        self.image_output = nn.Linear(width, width, bias=False)
        self.text_output = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.patch_heads = PatchHeads(width, label_sizes)

    def image_vectors(self, tokens: Tensor) -> Tensor:
        """Return unit vectors (B, E) of the encoder's normalised tokens (B, 1 + P, D)."""
        return F.normalize(self.image_output(tokens[:, 0]), dim=-1)

    def text_vectors(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return unit vectors (B, E) of captions, int64 (B, T) of `lengths` (B,) words."""
        return F.normalize(self.text_output(self.text(tokens, lengths)), dim=-1)

    def similarities(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return cosines over the temperature, (B, B'), of unit vectors (B, E) and (B', E)."""
        scale = self.log_scale.clamp(max=-math.log(_LEAST_TEMPERATURE)).exp()
        return scale * images @ texts.T

    def forward(self, pictures: Tensor) -> Tensor:
        """Return normalised tokens (B, 1 + P, D) of pictures (B, 3, H, W), uint8 or in [0, 1]."""
        return self.encoder(to_unit(pictures))


class PatchHeads(nn.Module):
    """One linear classifier per attribute of a patch.

    Args:
        width: Width of what they read.
        label_sizes: Classes of each attribute.
        patches: Patches that one vector speaks of.
    """

    def __init__(self, width: int, label_sizes: Sequence[int], patches: int = 1) -> None:
        super().__init__()
        self.label_sizes, self.patches = tuple(label_sizes), patches
        self.linear = nn.Linear(width, patches * sum(label_sizes))

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return the logits (..., patches, classes) of every attribute, of tokens (..., D)."""
        logits = self.linear(tokens).unflatten(-1, (self.patches, -1))
        return logits.split(self.label_sizes, dim=-1)

    def loss(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy in nats, summed over attributes.

        Patches that show something and those that show nothing weigh one half each, however many there are:

            sum_a 1/2 mean_{i: y_ai > 0} -ln p_a(y_ai) + 1/2 mean_{i: y_ai = 0} -ln p_a(0)

        Args:
            tokens: (..., D).
            labels: Classes, int64 (..., patches, attributes).
        """
        total = tokens.new_zeros((), dtype=torch.float32)
        for logits, label in zip(self(tokens), labels.unbind(-1), strict=True):
            nats = F.cross_entropy(logits.flatten(0, -2).float(), label.flatten(), reduction="none")
            for group in (label.flatten() > 0, label.flatten() == 0):
                total = total + (nats * group).sum() / group.sum().clamp_min(1) / 2
        return total


def info_nce(similarities: Tensor) -> Tensor:
    """Return the mean cross-entropy of finding the partner, in nats, from both sides.

        -1/2B sum_i [ln softmax_j(S_ij)_i + ln softmax_j(S_ji)_i]

    Args:
        similarities: (B, B), partners on the diagonal.
    """
    partner = torch.arange(len(similarities), device=similarities.device)
    return (F.cross_entropy(similarities, partner) + F.cross_entropy(similarities.T, partner)) / 2


def found_first(images: Tensor, texts: Tensor, same: Tensor | None = None) -> Tensor:
    """Return for each picture whether its own caption is the closest of all, bool (B,).

    Args:
        images: Unit vectors (B, E).
        texts: Unit vectors (B, E) of the captions, in the same order.
        same: Number of each caption's wording, int64 (B,): equal captions count as one. All differ where None.
    """
    closest = (images @ texts.T).argmax(1)
    names = torch.arange(len(texts), device=texts.device) if same is None else same
    return names[closest] == names


def attribute_accuracy(logits: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Return, by attribute, whether patches that show something are classified rightly, bool (patches shown,).

    Args:
        logits: Of every attribute, (..., classes).
        labels: Classes, int64 (..., attributes); 0 where a patch shows nothing.
    """
    right = {}
    for name, each, label in zip(ATTRIBUTES, logits, labels.unbind(-1), strict=True):
        shown = label > 0
        right[name] = each.argmax(-1)[shown] == label[shown]
    return right


def build(**settings: Any) -> ContrastiveViT:
    """Build a model from the arguments of ContrastiveViT."""
    return ContrastiveViT(**settings)
