"""Connectionist temporal classification: labels without times, by the sum over all alignments.

    p(y | x) = sum over paths a of T frames with collapse(a) = y of prod_t p_t(a_t)

`collapse` merges equal neighbours and then drops blanks, so that a repeated label needs a blank between.

Letters: `B` utterances, `T` frames, `K` labels with the blank as label 0, `L` labels of a transcript.

Source: Graves et al. 2006, "Connectionist Temporal Classification", sections 3 and 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError
from components.quantizers.precision import without_autocast

BLANK = 0
_IMPOSSIBLE = -1e30  # stands for log 0: its gradient is a number


class CTCError(TesseraError):
    """Labels or frames that no alignment joins."""


def needed_frames(labels: Sequence[int]) -> int:
    """Return the fewest frames that spell labels: one each, and a blank between equal neighbours."""
    return len(labels) + sum(first == second for first, second in itertools.pairwise(labels))


def ctc_loss(log_probabilities: Tensor, frames: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Return -ln p(y | x) of every utterance, nats, (B,).

    An utterance with fewer frames than `needed_frames` has no alignment: its loss is infinite on the CPU, huge
    elsewhere. torch's kernel serves on the CPU; its CUDA backward sums in no fixed order, so other devices run the
    forward recursion as tensor operations.

    Args:
        log_probabilities: ln p_t, (B, T, K).
        frames: Frames of each utterance, int64 (B,).
        labels: Transcripts, padded with any label, int64 (B, L).
        lengths: Labels of each transcript, int64 (B,).
    """
    if log_probabilities.device.type == "cpu":
        return F.ctc_loss(log_probabilities.transpose(0, 1), labels, frames, lengths, blank=BLANK, reduction="none")
    return ctc_recursion(log_probabilities, frames, labels, lengths)


def ctc_recursion(log_probabilities: Tensor, frames: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
    """Return what `ctc_loss` returns, by the forward variables of the paper, in the same order on every device.

        alpha_t(s) = (alpha_{t-1}(s) + alpha_{t-1}(s-1) + [l_s no blank, l_s != l_{s-2}] alpha_{t-1}(s-2)) p_t(l_s)

    over l = (blank, y_1, blank, ..., y_L, blank); the likelihood is the sum of the last two at the last frame.
    """
    with without_autocast(log_probabilities.device):
        count, size = labels.shape
        extended = labels.new_full((count, 2 * size + 1), BLANK)
        extended[:, 1::2] = labels
        # A product with one-hot rows: gathering has no deterministic backward on CUDA.
        spelled = F.one_hot(extended, log_probabilities.shape[-1]).transpose(1, 2).to(log_probabilities)
        emitted = log_probabilities @ spelled  # (B, T, 2 L + 1)
        skips = torch.zeros_like(extended, dtype=torch.bool)
        skips[:, 2:] = (extended[:, 2:] != BLANK) & (extended[:, 2:] != extended[:, :-2])
        alpha = torch.full_like(emitted[:, 0], _IMPOSSIBLE)
        alpha = torch.cat([emitted[:, 0, :2], alpha[:, 2:]], 1)
        for frame in range(1, emitted.shape[1]):
            one = F.pad(alpha[:, :-1], (1, 0), value=_IMPOSSIBLE)
            two = F.pad(alpha[:, :-2], (2, 0), value=_IMPOSSIBLE).masked_fill(~skips, _IMPOSSIBLE)
            stepped = torch.stack([alpha, one, two]).logsumexp(0) + emitted[:, frame]
            alpha = torch.where((frame < frames)[:, None], stepped, alpha)
        places = torch.arange(extended.shape[1], device=labels.device)
        final = (places >= 2 * lengths[:, None] - 1) & (places <= 2 * lengths[:, None])
        return -alpha.masked_fill(~final, _IMPOSSIBLE).logsumexp(1)


def greedy(log_probabilities: Tensor, frames: Tensor) -> list[list[int]]:
    """Return the collapsed most likely path of every utterance: labels without blanks.

    Args:
        log_probabilities: (B, T, K).
        frames: int64 (B,).
    """
    best = log_probabilities.argmax(-1)
    kept = best != BLANK
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    kept &= torch.arange(best.shape[1], device=best.device) < frames.to(best.device)[:, None]
    best, kept = best.cpu(), kept.cpu()
    return [row[mask].tolist() for row, mask in zip(best, kept, strict=True)]


def padded(transcripts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return transcripts as a table filled up with blanks, int64 (B, L), and their lengths (B,).

    Raises:
        CTCError: A transcript holds the blank.
    """
    if any(BLANK in transcript for transcript in transcripts):
        raise CTCError(f"A transcript holds label {BLANK}, the blank; labels start at {BLANK + 1}.")
    width = max(1, max(map(len, transcripts)))
    rows = [[*transcript, *[BLANK] * (width - len(transcript))] for transcript in transcripts]
    return torch.tensor(rows), torch.tensor([len(transcript) for transcript in transcripts])
