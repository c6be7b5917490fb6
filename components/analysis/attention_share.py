"""What attention does with inserted tokens: the mass they receive, and how far the other tokens' maps move.

    share_l    = mean over heads and query positions of sum_{j inserted} A_l[i, j]
    distance_l = || A_l(original) - A_l(edited)[kept, kept] ||_F,  mean over heads

Letters: L layers, H heads, S positions of the original text, E of the edited one, B texts.

Source: Chen et al. 2025, "Sticking to the Mean: Detecting Sticky Tokens in Text Embedding Models", on attention.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.encoders.sentence import SentenceEncoder
from components.errors import TesseraError


class AttentionShareError(TesseraError):
    """Maps that do not fit the positions said to be inserted."""


def received_share(attention: Tensor, inserted: Tensor) -> Tensor:
    """Return the share of attention that goes to inserted positions, 0 to 1, (B,).

    Args:
        attention: Maps whose rows sum to 1, (B, H, E, E).
        inserted: Bool (E,).
    """
    _check(attention, inserted)
    return attention[..., inserted].sum(-1).mean((1, 2))


def map_distance(original: Tensor, edited: Tensor, inserted: Tensor) -> Tensor:
    """Return the Frobenius distance of the maps between kept positions, mean over heads, (B,).

    What attention the inserted positions draw away is missing in the edited map and so counts as distance.

    Args:
        original: (B, H, S, S).
        edited: (B, H, E, E).
        inserted: Bool (E,), False at S positions.
    """
    _check(edited, inserted)
    kept = ~inserted
    if int(kept.sum()) != original.shape[-1]:
        raise AttentionShareError(f"{int(kept.sum())} positions are kept, the original has {original.shape[-1]}.")
    return (original - edited[..., kept, :][..., kept]).square().sum((-2, -1)).sqrt().mean(1)


def _check(attention: Tensor, inserted: Tensor) -> None:
    if attention.shape[-2:] != (len(inserted), len(inserted)):
        raise AttentionShareError(f"maps {tuple(attention.shape)} and {len(inserted)} positions do not fit.")


@torch.inference_mode()
def prefix_attention(
    encoder: SentenceEncoder, sentence: str, tokens: Sequence[str], copies: int
) -> tuple[Tensor, Tensor]:
    """Measure each layer's attention to copies of each token in front of a sentence.

    Args:
        encoder: Encoder.
        sentence: Original text.
        tokens: Texts of B tokens that are each read as one token.
        copies: Copies in front.

    Returns:
        Shares (B, L) and distances (B, L), on the CPU.

    Raises:
        AttentionShareError: A token's text is read as another number of tokens.
    """
    (plain,) = encoder.token_ids([sentence])
    edited = [" ".join([token] * copies) + " " + sentence for token in tokens]
    rows = encoder.token_ids(edited)
    if strange := [token for token, row in zip(tokens, rows, strict=True) if len(row) != len(plain) + copies]:
        raise AttentionShareError(f"{strange[0]!r} is not read as one token in front of {sentence[:40]!r}.")
    inserted = torch.zeros(len(plain) + copies, dtype=torch.bool, device=encoder.device)
    inserted[1 : 1 + copies] = True  # behind the token that begins every text
    maps = [
        encoder.layers_from(encoder.embed_tokens(torch.tensor(ids, device=encoder.device)), None, attentions=True)[1]
        for ids in ([plain], rows)
    ]
    pairs = list(zip(*maps, strict=True))
    shares = torch.stack([received_share(after, inserted) for _, after in pairs], -1)
    distances = torch.stack([map_distance(before, after, inserted) for before, after in pairs], -1)
    return shares.cpu(), distances.cpu()
