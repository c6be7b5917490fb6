"""An encoder-decoder transformer over one vocabulary: the source is read once, the target is predicted from it.

    source -- embed + position -- encoder -- memory
    target -- embed + position -- decoder (self-attention, cross-attention to memory) -- logits over V words

Words, source and target share one embedding, which is the output matrix, too. Ids from V on (mask, padding, start) are
read and never predicted. The decoder looks both ways (denoising) or back only (autoregression).

Letters: B sequences, S source tokens, N target tokens, P positions asked for, D width, V words.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3; the non-causal decoder: Ghazvininejad et al. 2019,
"Mask-Predict", section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.transformer import Transformer, TransformerConfig


class SequenceTooLong(TesseraError):
    """A sequence has more tokens than the network has positions."""


class EncoderDecoder(nn.Module):
    """See the module.

    Args:
        words: V, tokens that may be predicted; ids 0 .. V - 1.
        special: Further ids that are only read, V .. V + special - 1.
        context: Most tokens of a source and of a target.
        width: D.
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
        heads: Attention heads.
        feed_forward: Hidden channels of the MLPs.
        dropout: Share of attention weights and of residual updates dropped in training.
        causal: The decoder looks back only.
    """

    def __init__(
        self,
        *,
        words: int,
        special: int,
        context: int,
        width: int,
        encoder_layers: int,
        decoder_layers: int,
        heads: int,
        feed_forward: int,
        dropout: float = 0.0,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.words, self.context = words, context
        self.embedding = nn.Embedding(words + special, width)
        self.source_positions = nn.Embedding(context, width)
        self.target_positions = nn.Embedding(context, width)
        ratio = feed_forward / width
        self.encoder = Transformer(TransformerConfig(width, encoder_layers, heads, ratio, dropout=dropout))
        self.decoder = Transformer(
            TransformerConfig(width, decoder_layers, heads, ratio, causal, dropout=dropout, context_width=width)
        )
        self.output_bias = nn.Parameter(torch.zeros(words))
        self.dropout = nn.Dropout(dropout)
        for table in (self.embedding, self.source_positions, self.target_positions):
            nn.init.normal_(table.weight, std=width**-0.5)

    def _embed(self, tokens: Tensor, positions: nn.Embedding) -> Tensor:
        if tokens.shape[1] > self.context:
            raise SequenceTooLong(f"{tokens.shape[1]} tokens were given to a network of {self.context} positions.")
        return self.dropout(self.embedding(tokens) + positions.weight[: tokens.shape[1]])

    def encode(self, source: Tensor, present: Tensor) -> Tensor:
        """Return the memory (B, S, D) of sources.

        Args:
            source: int64 (B, S).
            present: Which of its tokens are no padding, bool (B, S).
        """
        return self.encoder(self._embed(source, self.source_positions), mask=present[:, None, None])

    def hidden(self, target: Tensor, present: Tensor, memory: Tensor, memory_present: Tensor) -> Tensor:
        """Return the decoder's states (B, N, D).

        Args:
            target: Noisy tokens, or those before, int64 (B, N).
            present: Which of them are no padding, bool (B, N).
            memory: From `encode`, (B, S, D).
            memory_present: Which tokens of the source are no padding, bool (B, S).
        """
        return self.decoder(
            self._embed(target, self.target_positions),
            mask=present[:, None, None],
            context=memory,
            context_mask=memory_present[:, None, None],
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of states (..., D)."""
        return F.linear(hidden, self.embedding.weight[: self.words], self.output_bias)

    def forward(self, source: Tensor, source_present: Tensor, target: Tensor, target_present: Tensor) -> Tensor:
        """Return logits (B, N, V); arguments as in `encode` and `hidden`."""
        return self.logits(self.hidden(target, target_present, self.encode(source, source_present), source_present))


def build(**sizes: int | float | bool) -> EncoderDecoder:
    """Build the network; arguments as for `EncoderDecoder`."""
    return EncoderDecoder(**sizes)
