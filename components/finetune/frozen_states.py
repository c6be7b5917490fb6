"""What a frozen part of an encoder makes of many texts, computed once and kept without padding.

Letters: N texts, T tokens of all texts, B texts of a batch, S positions of the longest, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from components.encoders.sentence import SentenceEncoder, length_sorted_batches
from components.errors import TesseraError


class FrozenStatesError(TesseraError):
    """States are asked for that were never made."""


class FrozenStates:
    """Hidden states of N texts of different lengths, one behind the other.

    Args:
        states: States of all tokens, (T, D).
        lengths: Tokens of each text, int64 (N,), T in all.
    """

    def __init__(self, states: Tensor, lengths: Tensor) -> None:
        if int(lengths.sum()) != len(states):
            raise FrozenStatesError(f"texts of {int(lengths.sum())} tokens in all, but {len(states)} states.")
        self.states = states
        self.lengths = lengths
        self._starts = lengths.cumsum(0) - lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the states (B, S, D) of some texts, zeros behind each, and the mask (B, S), True at tokens.

        Args:
            rows: Numbers of the texts, int64 (B,).
            width: S; the longest of them by default.
        """
        lengths = self.lengths[rows]
        places = torch.arange(int(lengths.max()) if width is None else width)
        mask = places < lengths[:, None]
        at = torch.where(mask, self._starts[rows][:, None] + places, 0)
        return self.states[at] * mask[..., None], mask


@torch.no_grad()
def frozen_states(
    encoder: SentenceEncoder,
    texts: Sequence[Sequence[int]],
    stop: int,
    *,
    batch_size: int = 128,
    progress: Callable[[int, int], None] | None = None,
) -> FrozenStates:
    """Compute what layer `stop` reads of texts.

    Args:
        encoder: Its layers 0 to `stop - 1` are run.
        texts: Token ids of each text.
        stop: First layer that is not run.
        batch_size: Texts of a batch; texts of about equal length are computed together.
        progress: Called with the texts done and their number, after each batch.

    Returns:
        States on the CPU, in the order of the texts.

    Raises:
        FrozenStatesError: There are no texts.
    """
    if not texts:
        raise FrozenStatesError("no texts; expected at least one.")
    lengths = torch.tensor([len(text) for text in texts])
    starts = lengths.cumsum(0) - lengths
    states, done = torch.empty(int(lengths.sum()), encoder.config.width), 0
    for places, tokens in length_sorted_batches(texts, batch_size):
        mask = tokens.mask.to(encoder.device)
        hidden = encoder.layers_from(encoder.embed_tokens(tokens.ids.to(encoder.device)), mask, 0, stop)
        chosen = torch.from_numpy(places)
        at = (starts[chosen][:, None] + torch.arange(tokens.mask.shape[1]))[tokens.mask]
        states[at] = hidden[mask].cpu()
        done += len(places)
        if progress is not None:
            progress(done, len(texts))
    return FrozenStates(states, lengths)
