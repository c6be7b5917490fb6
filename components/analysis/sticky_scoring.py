"""How far a token's insertion pulls sentences toward others: distance curves, the score of them, and verification.

    d_i      = 1 - cos(s_1, I(s_2, t, i))                      distance with i copies, d_0 without any
    fall     = sum_i max(0, d_{i-1} - d_i),  nf = number of falls;   rise, nr likewise
    score    = (fall + 0.1 nf + 0.1 D) / (rise + 0.05 nr + 0.01)   with D = 1 - cos(e_t, s_1)
    verified = [ mean_{i >= 1} d_i < d_0 ]

A token's score is the mean over pairs of 0.35 prefix + 0.35 suffix + 0.30 random; its verified fraction the mean over
other pairs of 4/11 prefix + 4/11 suffix + 3/11 random. D keeps a token that is merely a synonym of s_1 from winning.

Letters: T tokens, P pairs, M modes of insertion, K numbers of copies (0 first), D width.

Source: Chen et al. 2025, "Sticking to the Mean: Detecting Sticky Tokens in Text Embedding Models", stages 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.analysis.sticky_insertion import MODES, templates
from components.encoders.sentence import MAX_LENGTH, SentenceEncoder
from components.errors import TesseraError

SCORE_WEIGHTS = (0.35, 0.35, 0.30)
VERIFICATION_WEIGHTS = (4 / 11, 4 / 11, 3 / 11)
_BLOCK = 64  # tokens whose edited sentences are made and encoded together


class StickinessError(TesseraError):
    """A measurement of stickiness that would not mean what it says."""


@dataclass(frozen=True)
class Edits:
    """Pairs with the templates of their second sentence.

    Attributes:
        first: Unit vectors of the sentences that stay, (P, D).
        start: Distance of each pair before any edit, d_0, float64 (P,).
        pieces: Of each pair, mode and number of copies (without 0) the text between the gaps.
        lengths: Tokens of each second sentence, int64 (P,).
        counts: Numbers of copies without 0.
    """

    first: Tensor
    start: np.ndarray
    pieces: list[list[tuple[str, ...]]]
    lengths: np.ndarray
    counts: tuple[int, ...]


def prepare(
    encoder: SentenceEncoder,
    first: Sequence[str],
    second: Sequence[str],
    counts: Sequence[int],
    generator: np.random.Generator,
) -> Edits:
    """Encode pairs of sentences and draw where tokens will be inserted.

    Args:
        encoder: Encoder.
        first: Sentences that stay.
        second: Sentences that are edited.
        counts: Numbers of copies, increasing, from 0 or 1; 0 stands for the sentence itself.
        generator: Draws random places.
    """
    counts = tuple(count for count in counts if count)
    vectors = encoder.encode([*first, *second]).double()
    start = 1 - (vectors[: len(first)] * vectors[len(first) :]).sum(-1)
    rows = encoder.token_ids(second)
    pieces = [
        [template.pieces for template in templates(sentence, counts, generator)] if counts else []
        for sentence in second
    ]
    lengths = np.asarray([len(row) for row in rows])
    return Edits(vectors[: len(first)], start.cpu().numpy(), pieces, lengths, counts)


def distance_curves(
    encoder: SentenceEncoder,
    tokens: Sequence[str],
    edits: Edits,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Measure how each token moves the second sentence of each pair.

    Args:
        encoder: Encoder.
        tokens: Texts of T tokens.
        edits: From `prepare`.
        progress: Called with the tokens done and their number.

    Returns:
        Distances, float64 (T, P, M, K), of which k = 0 is the unedited pair; and the ids that one copy became in the
        edited sentences, averaged over modes and copies, float64 (T, P): 1 where the text was read as the token.

    Raises:
        StickinessError: An edited sentence is longer than the encoder reads, so that copies would be cut off.
    """
    pairs, modes, kinds = len(edits.start), len(MODES), len(edits.counts)
    distances = np.empty((len(tokens), pairs, modes, kinds + 1))
    distances[..., 0] = edits.start[:, None]
    realised = np.ones((len(tokens), pairs))
    if not kinds:
        return distances, realised
    copies = np.tile(edits.counts, modes)
    for begin in range(0, len(tokens), _BLOCK):
        block = tokens[begin : begin + _BLOCK]
        texts = [token.join(pieces) for token in block for pair in edits.pieces for pieces in pair]
        rows = encoder.token_ids(texts, max_length=MAX_LENGTH + 1)
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        if lengths.max() > MAX_LENGTH:
            raise StickinessError(
                f"{texts[int(lengths.argmax())][:80]!r} ... has more than {MAX_LENGTH} tokens; copies behind them "
                "would be cut off. Use shorter sentences or fewer copies."
            )
        added = lengths.reshape(len(block), pairs, -1) - edits.lengths[:, None]
        realised[begin : begin + len(block)] = (added / copies).mean(-1)
        vectors = encoder.encode_ids(rows).double().view(len(block), pairs, modes * kinds, -1)
        cosines = torch.einsum("tpkd,pd->tpk", vectors, edits.first.to(vectors.device))
        distances[begin : begin + len(block), :, :, 1:] = 1 - cosines.cpu().numpy().reshape(-1, pairs, modes, kinds)
        if progress is not None:
            progress(begin + len(block), len(tokens))
    return distances, realised


def curve_scores(distances: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return the score of each distance curve.

    Args:
        distances: d_0 to d_n along the last axis, (..., K).
        apart: D of each curve, broadcast against (...).
    """
    steps = np.diff(distances, axis=-1)
    fall, rise = np.maximum(-steps, 0).sum(-1), np.maximum(steps, 0).sum(-1)
    return (fall + 0.1 * (steps < 0).sum(-1) + 0.1 * apart) / (rise + 0.05 * (steps > 0).sum(-1) + 0.01)


def token_scores(distances: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return the stage-3 score of each token, (T,).

    Args:
        distances: From `distance_curves`, (T, P, M, K).
        apart: D of each token and pair, (T, P); zeros leave the term out.
    """
    return curve_scores(distances, apart[..., None]).mean(1) @ np.asarray(SCORE_WEIGHTS)


def moved_fractions(distances: np.ndarray, *, toward_first: bool = True) -> np.ndarray:
    """Return, for each token and pair, the weighted share of modes in which insertion moves similarity to the mean.

    Args:
        distances: From `distance_curves`, (T, P, M, K).
        toward_first: The pairs lie below u, so that a move to it lowers distance; False for pairs above u.

    Returns:
        (T, P), 0 to 1; 0 where no copies were inserted.
    """
    if distances.shape[-1] == 1:
        return np.zeros(distances.shape[:2])
    mean, start = distances[..., 1:].mean(-1), distances[..., 0]
    return (mean < start if toward_first else mean > start) @ np.asarray(VERIFICATION_WEIGHTS)


def spread_ratio(distances: np.ndarray) -> float:
    """Return the standard deviation of cosine over pairs after the last insertion, over that before any.

    The mean over tokens, and over modes with the weights of verification.

    Args:
        distances: From `distance_curves`, (T, P, M, K).

    Raises:
        StickinessError: There are fewer than two pairs.
    """
    if distances.shape[1] < 2:
        raise StickinessError(f"the spread over {distances.shape[1]} pairs is undefined; expected at least 2.")
    after, before = distances[..., -1].std(1), distances[..., 0].std(1)
    return float(((after / before) @ np.asarray(VERIFICATION_WEIGHTS)).mean())


def token_distances(encoder: SentenceEncoder, tokens: Sequence[str], first: Tensor) -> np.ndarray:
    """Return D: the distance of each token alone from each sentence that stays, (T, P).

    Args:
        encoder: Encoder.
        tokens: Texts of T tokens.
        first: Unit vectors (P, D).
    """
    vectors = encoder.encode(list(tokens)).double()
    return 1 - (vectors @ first.to(vectors.device).t()).cpu().numpy()
