"""ROUGE-L of token sequences, all pairs of a batch at once.

Letters: B pairs, N tokens of a candidate, M tokens of a reference.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.errors import TesseraError


def common_subsequence(candidates: Tensor, references: Tensor) -> Tensor:
    """Return the length of the longest common subsequence of each pair, int64 (B,).

    By rows of the table of Wagner and Fischer, `l(i, j) = max(l(i-1, j), l(i, j-1), l(i-1, j-1) + [equal])`. The second
    of these is a running maximum of the other two, so a row is one operation.

    Args:
        candidates: int64 (B, N).
        references: int64 (B, M).
    """
    longest = torch.zeros(len(references), references.shape[1] + 1, dtype=torch.int64, device=references.device)
    for token in candidates.T:
        diagonal = longest[:, :-1] + (references == token[:, None])
        longest[:, 1:] = torch.maximum(longest[:, 1:], diagonal).cummax(1).values
    return longest[:, -1]


def rouge_l(candidates: Tensor, references: Tensor) -> Tensor:
    """Return the F1 of the longest common subsequence, 2 L / (N + M), float64 (B,).

    Args:
        candidates: int64 (B, N).
        references: int64 (B, M).

    Raises:
        TesseraError: The two are not as many, or all are empty.
    """
    if len(candidates) != len(references) or not candidates.shape[1] + references.shape[1]:
        raise TesseraError(
            f"Candidates are {list(candidates.shape)} and references {list(references.shape)}; expected as many of "
            "both, with at least one token."
        )
    return 2 * common_subsequence(candidates, references).double() / (candidates.shape[1] + references.shape[1])
