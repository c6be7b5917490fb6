"""What each position of a token sequence contributes to the decoded image.

Letters: `B` images, `N` tokens, `K` codebook size, `L` classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from components.data.pixels import to_bytes
from components.errors import TesseraError


class ContributionError(TesseraError):
    """Token sequences that cannot be analysed."""


@torch.no_grad()
def token_contribution(
    decode: Callable[[Tensor], Tensor],
    indices: Tensor,
    codebook_size: int,
    *,
    draws: int,
    generator: torch.Generator,
    batch_size: int = 64,
) -> Tensor:
    """Return how far the image moves when one token is replaced at random.

        c_i = E over random codes j of  mean over pixels |decode(z with z_i = j) - decode(z)|

    Args:
        decode: Indices (B, N) to images (B, 3, H, W) in [0, 1].
        indices: Codes of the images (B, N).
        codebook_size: K; the new code is uniform on all K, the old one included.
        draws: Random codes per image and position.
        generator: Source of the codes.
        batch_size: Sequences decoded at once.

    Returns:
        Mean absolute pixel change in grey levels (0 to 255), float64 (B, N): one value per image and position.

    Source: Miwa et al. 2025 (One-D-Piece), analysis of token contribution.
    """
    images, tokens = indices.shape
    if images == 0 or tokens == 0:
        raise ContributionError(
            f"indices have shape {tuple(indices.shape)}; expected at least one image and one token."
        )
    total = torch.zeros(images, tokens, dtype=torch.float64)
    for start in range(0, images, batch_size):
        rows = indices[start : start + batch_size]
        original = to_bytes(decode(rows)).short()
        for position in range(tokens):
            for _ in range(draws):
                changed = rows.clone()
                source = generator.device
                codes = torch.randint(codebook_size, (len(rows),), generator=generator, device=source)
                changed[:, position] = codes.to(rows.device)
                moved = (to_bytes(decode(changed)).short() - original).abs().flatten(1).double().mean(1)
                total[start : start + batch_size, position] += moved.cpu()
    return total / draws


def class_information(indices: Tensor, labels: Tensor, *, shuffles: int, generator: torch.Generator) -> Tensor:
    """Return how much the code at each position tells about the class of the image, in bits.

    Mutual information of code and class, estimated from counts. Counts of finitely many images overstate it, so the
    mean over `shuffles` random permutations of the labels, where it is truly zero, is taken off.

    Args:
        indices: Codes (B, N).
        labels: Classes (B,), integers from 0.
        shuffles: Permutations of the labels.
        generator: Source of the permutations.

    Returns:
        float64 (N,); 0 for a position that knows nothing, up to log2 L, slightly negative by chance.
    """
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(shuffles)]
    information = []
    for codes in indices.unbind(1):
        # Only codes that occur count, however large the codebook.
        present = codes.unique(return_inverse=True)[1]
        chance = sum(_mutual_information(present, labels[order]) for order in orders) / shuffles
        information.append(_mutual_information(present, labels) - chance)
    return torch.tensor(information, dtype=torch.float64)


def _mutual_information(codes: Tensor, labels: Tensor) -> float:
    """I(code; class) = H(code) + H(class) - H(code, class) in bits, from counts."""
    classes = int(labels.max()) + 1
    joint = torch.bincount(codes * classes + labels, minlength=(int(codes.max()) + 1) * classes).double() / len(labels)
    joint = joint.view(-1, classes)
    code, label, both = (float(torch.special.entr(shares).sum()) for shares in (joint.sum(1), joint.sum(0), joint))
    return (code + label - both) / math.log(2)
