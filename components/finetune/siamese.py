"""Fine-tuning of a siamese encoder's upper layers, plain or with the reference mapped to zero.

    states of text -----------> upper layers --> mean --> e(x)
                                                            | e~(x) = e(x) - e(r_x)      (plain: e~ = e)
    states of its reference --> upper layers --> mean --> e(r_x)

    loss = mean over pairs (cos(e~(a), e~(b)) - target)^2

The reference r_x has the length of x, so a batch needs one for each length that occurs in it. Gradients flow through
both branches. With e~(r) = 0 the reference terms of an attribution vanish (components.analysis.attribution).

Letters: B pairs of a batch, R lengths that occur in it, S positions of the longest text, D width.

Source: Moeller, Nikolaev and Pado 2023, "An Attribution Method for Siamese Encoders", sections 3.3 and 4.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.analysis.attribution_path import reference_ids, special_ids
from components.encoders.sentence import SentenceEncoder
from components.errors import TesseraError
from components.finetune.frozen_states import FrozenStates, frozen_states


class SiameseError(TesseraError):
    """Layers or lengths that a siamese encoder does not have."""


class Side(NamedTuple):
    """One text of each pair, or all of both, as the upper layers read them.

    Attributes:
        states: (B, S, D).
        mask: True at tokens, (B, S).
        reference: Row of each text's reference in `References`, int64 (B,).
    """

    states: Tensor
    mask: Tensor
    reference: Tensor


class References(NamedTuple):
    """One reference of each length that occurs in a batch.

    Attributes:
        states: (R, S, D).
        mask: True at tokens, (R, S).
    """

    states: Tensor
    mask: Tensor


class Batch(NamedTuple):
    """Pairs of texts and how alike they are.

    Attributes:
        texts: The first texts of all pairs, then the second ones, 2 B in all.
        references: Their references.
        target: Similarity of each pair, (B,).
    """

    texts: Side
    references: References
    target: Tensor


class UpperLayers(nn.Module):
    """The layers `start` and above of a sentence encoder, as a model of its own that trains.

    Args:
        encoder: Encoder whose layers are copied.
        start: First layer that is part of it, 0-based.
        shifted: Whether the reference's embedding is subtracted.
    """

    def __init__(self, encoder: SentenceEncoder, start: int, *, shifted: bool) -> None:
        super().__init__()
        if not 0 <= start < len(encoder.layers):
            raise SiameseError(f"start is {start}; expected one of the layers 0 to {len(encoder.layers) - 1}.")
        self.layers = copy.deepcopy(encoder.layers[start:]).requires_grad_(True)
        self.start, self.shifted = start, shifted
        self._pool = encoder.pool

    def embed(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return e (B, D) of the states that the first of these layers reads, (B, S, D)."""
        for layer in self.layers:
            states, _ = layer(states, mask)
        return self._pool(states, mask)

    def forward(self, texts: Side, references: References) -> Tensor:
        """Return e~ (B, D)."""
        embedded = self.embed(texts.states, texts.mask)
        if not self.shifted:
            return embedded
        return embedded - self.embed(*references)[texts.reference]

    def into(self, encoder: SentenceEncoder) -> SentenceEncoder:
        """Return a copy of an encoder with these layers in the place of its own, frozen."""
        tuned = copy.deepcopy(encoder)
        tuned.layers[self.start :].load_state_dict(self.layers.state_dict())
        return tuned.eval().requires_grad_(False)


class SiameseBatches:
    """Draws the batches of a training from texts whose frozen states are known.

    Args:
        encoder: The frozen encoder.
        first: Token ids of the first text of each pair.
        second: Token ids of the second.
        target: Similarity of each pair, (N,).
        start: First layer that is trained.
        states: Frozen states of the first texts, then the second ones; computed here by default.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        first: Sequence[Sequence[int]],
        second: Sequence[Sequence[int]],
        target: Tensor,
        start: int,
        states: FrozenStates | None = None,
    ) -> None:
        if not len(first) == len(second) == len(target):
            raise SiameseError(f"{len(first)} first texts, {len(second)} second ones and {len(target)} targets.")
        self._target = target
        self._texts = frozen_states(encoder, [*first, *second], start) if states is None else states
        self._references, self._row_of_length = reference_states(encoder, self._texts.lengths, start)

    def __len__(self) -> int:
        return len(self._target)

    def batch(self, rows: Tensor) -> Batch:
        """Return some pairs, int64 (B,)."""
        chosen = torch.cat([rows, rows + len(self._target)])
        states, mask = self._texts.batch(chosen)
        lengths, place = self._texts.lengths[chosen].unique(return_inverse=True)
        references = References(*self._references.batch(self._row_of_length[lengths], states.shape[1]))
        return Batch(Side(states, mask, place), references, self._target[rows])


def reference_texts(encoder: SentenceEncoder, lengths: Tensor) -> list[list[int]]:
    """Return the token ids of the reference of each length, int64 (R,)."""
    ids = reference_ids(lengths, special_ids(encoder))
    return [row[:length].tolist() for row, length in zip(ids, lengths.tolist(), strict=True)]


def reference_states(encoder: SentenceEncoder, lengths: Tensor, stop: int) -> tuple[FrozenStates, Tensor]:
    """Compute what layer `stop` reads of the reference of each length that occurs.

    Returns:
        States, and the row of each length in them: int64 (longest + 1,), -1 for lengths that do not occur.
    """
    occurring = lengths.unique()
    texts = reference_texts(encoder, occurring)
    rows = torch.full((int(occurring.max()) + 1,), -1)
    rows[occurring] = torch.arange(len(occurring))
    return frozen_states(encoder, texts, stop), rows


def siamese_loss(model: UpperLayers, batch: Batch) -> Tensor:
    """Return the mean squared distance of the pairs' cosines from their targets."""
    first, second = model(batch.texts, batch.references).chunk(2)
    return F.mse_loss(F.cosine_similarity(first, second, dim=-1), batch.target)


@torch.no_grad()
def shifted_vectors(
    encoder: SentenceEncoder, texts: Sequence[Sequence[int]], *, shifted: bool, batch_size: int = 128
) -> Tensor:
    """Return e~ (N, D) of texts by their token ids, not scaled to unit length; plain e without `shifted`.

    Args:
        encoder: The whole encoder.
        texts: Token ids of each text.
        shifted: Whether the embedding of a reference of the same length is subtracted.
        batch_size: Texts of a batch.
    """
    # The states behind the last layer, averaged, are the vectors.
    layers = len(encoder.layers)
    vectors = _means(frozen_states(encoder, texts, layers, batch_size=batch_size))
    if shifted:
        lengths = torch.tensor([len(text) for text in texts])
        references, rows = reference_states(encoder, lengths, layers)
        vectors = vectors - _means(references)[rows[lengths]]
    return vectors


def _means(states: FrozenStates) -> Tensor:
    owner = torch.repeat_interleave(torch.arange(len(states)), states.lengths)
    sums = torch.zeros(len(states), states.states.shape[1], dtype=torch.float64).index_add_(
        0, owner, states.states.double()
    )
    return (sums / states.lengths[:, None]).float()
