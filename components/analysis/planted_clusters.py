"""Token sets with known clusters: centres far apart on the sphere, sizes from a Zipf law, tokens near their centres.

    p(cluster k) ~ 1 / k,      x_i = (u + noise g) / |u + noise g|,      u the centre of i's cluster, g ~ N(0, I / C)

A draw counts only if its cosines keep the margin: at least m inside clusters, at most m - gap between them.

Letters: `B` draws, `N` tokens, `K` clusters, `C` width of a token, `m` margin.

Source: Tran et al. 2024 (PiToMe), section 3.3: the assumptions of its theorem.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError

_ROUNDS = 200


class PlantingError(TesseraError):
    """No clusters of the kind that was asked for were found."""


class Planted(NamedTuple):
    """Tokens in random order, with what is known of them.

    Attributes:
        tokens: Unit vectors, (B, N, C).
        clusters: Cluster of each token, int64 (B, N).
    """

    tokens: Tensor
    clusters: Tensor


def planted(
    draws: int,
    tokens: int,
    clusters: int,
    width: int,
    noise: float,
    generator: torch.Generator,
    *,
    margin: float = 0.75,
    gap: float = 0.3,
) -> Planted:
    """Draw token sets whose clusters keep a margin.

    Args:
        draws: B.
        tokens: N.
        clusters: K.
        width: C.
        noise: Spread around a centre.
        generator: Source of randomness, on the CPU.
        margin: m.
        gap: By how much cosines between clusters stay below the margin.

    Raises:
        PlantingError: Of many draws too few kept the margin.
    """
    law = 1 / torch.arange(1, clusters + 1, dtype=torch.float64)
    found: list[Planted] = []
    missing = draws
    for _ in range(_ROUNDS):
        labels = torch.multinomial(law, missing * tokens, replacement=True, generator=generator).view(missing, tokens)
        centres = F.normalize(_normal((missing, clusters, width), generator), dim=-1)
        spread = _normal((missing, tokens, width), generator) * (noise / width**0.5)
        near = centres.gather(1, labels[..., None].expand(-1, -1, width))
        values = F.normalize(near + spread, dim=-1)
        cosine = values @ values.transpose(1, 2)
        same = labels[:, :, None] == labels[:, None]
        inside = cosine.masked_fill(~same, 1).amin((1, 2)) >= margin
        apart = cosine.masked_fill(same, -1).amax((1, 2)) <= margin - gap
        good = inside & apart
        found.append(Planted(values[good], labels[good]))
        missing -= int(good.sum())
        if not missing:
            return Planted(torch.cat([each.tokens for each in found]), torch.cat([each.clusters for each in found]))
    raise PlantingError(
        f"{missing} of {draws} draws of {tokens} tokens in {clusters} clusters of width {width} with noise {noise:g} "
        f"did not keep cosines >= {margin:g} inside and <= {margin - gap:g} between clusters; take more channels, "
        "fewer clusters or less noise."
    )


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
