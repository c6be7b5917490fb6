"""The path that a sentence's representation takes from its reference, at any layer of a sentence encoder.

The reference of a text of S tokens is a text that says nothing: first token, S - 2 paddings, last token, all of them
attended to. At layer l both are what that layer reads, and the encoder is what is above it:

    ids ---------> embedding, layers 0 .. l-1 --> x         reference + t (x - reference) --> layers l .. --> mean --> e
    [CLS] [PAD] .. [PAD] [SEP] -- the same -----> reference

Letters: B texts of a batch, S tokens, D width, E width of the embedding (here E = D).

Source: Moeller, Nikolaev and Pado 2023, "An Attribution Method for Siamese Encoders", section 3.2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from components.analysis.attribution import AttributionError
from components.encoders.sentence import SentenceEncoder

_PADDING = ("[PAD]", "<pad>")


class Ends(NamedTuple):
    """Both ends of an encoder's path.

    Attributes:
        x: Representations of the texts, (B, S, D).
        reference: Those of their references, (B, S, D).
    """

    x: Tensor
    reference: Tensor


class EncoderPath:
    """A sentence encoder seen from one of its layers.

    Args:
        encoder: In evaluation mode.
        layer: Layer at whose input the path lies, 0-based; 0 for the embeddings.

    Raises:
        AttributionError: There is no such layer, the encoder is in training mode, or its tokenizer has no padding.
    """

    def __init__(self, encoder: SentenceEncoder, layer: int) -> None:
        layers = len(encoder.layers)
        if not 0 <= layer < layers:
            raise AttributionError(f"layer is {layer}; expected one of 0 to {layers - 1}, counted from 0.")
        if encoder.training:
            raise AttributionError("the encoder is in training mode, where results may be random; call encoder.eval().")
        self.encoder = encoder
        self.layer = layer
        self._first, self._last, self._padding = special_ids(encoder)

    def reference_ids(self, lengths: Tensor, width: int | None = None) -> Tensor:
        """Return the reference of each length, int64 (B, S), padded to `width` or the longest."""
        return reference_ids(lengths, (self._first, self._last, self._padding), width)

    @torch.no_grad()
    def ends(self, ids: Tensor, mask: Tensor | None = None) -> Ends:
        """Return what the layer reads of texts (B, S) and of their references.

        Args:
            ids: Tokens, those at both ends included.
            mask: True at tokens; None where nothing is padded. A reference has the mask of its text.
        """
        lengths = torch.full(ids.shape[:1], ids.shape[1], device=ids.device) if mask is None else mask.sum(1)
        references = self.reference_ids(lengths, ids.shape[1])
        return Ends(*(self._read(tokens, mask) for tokens in (ids, references)))

    def embed(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors (B, E), not scaled to unit length, of what the layer reads (B, S, D)."""
        final = self.final(hidden, mask)
        return self.encoder.pool(final, mask)

    def final(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last layer's token vectors (B, S, E) of what the layer reads (B, S, D)."""
        return self.encoder.layers_from(hidden, mask, self.layer, plain=True)

    def _read(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        return self.encoder.layers_from(self.encoder.embed_tokens(ids), mask, 0, self.layer, plain=True)


def special_ids(encoder: SentenceEncoder) -> tuple[int, int, int]:
    """Return the ids of an encoder's first token, last token and padding.

    Raises:
        AttributionError: Its tokenizer adds no two tokens around a text, or knows no padding.
    """
    ends = encoder.token_ids([""])[0]
    padding = next((found for name in _PADDING if (found := encoder.tokenizer.token_to_id(name)) is not None), None)
    if len(ends) != 2 or padding is None:
        raise AttributionError(
            f"the tokenizer makes {len(ends)} tokens of an empty text and has "
            f"{'no padding' if padding is None else 'padding'}; a reference needs a first token, a last token and one "
            f"of {', '.join(_PADDING)}."
        )
    return ends[0], ends[1], padding


def reference_ids(lengths: Tensor, specials: tuple[int, int, int], width: int | None = None) -> Tensor:
    """Return first token, paddings, last token for each of B lengths, int64 (B, S), padded to `width` or the longest.

    Raises:
        AttributionError: A text has fewer than the two tokens at its ends.
    """
    if bool((lengths < 2).any()):
        raise AttributionError(f"a text has {int(lengths.min())} tokens; expected at least those at both ends.")
    first, last, padding = specials
    places = torch.arange(int(lengths.max()) if width is None else width, device=lengths.device)
    ids = torch.full((len(lengths), len(places)), padding, device=lengths.device)
    ids[:, 0] = first
    return torch.where(places == lengths[:, None] - 1, last, ids)
