"""Two streams through one transformer: what is known, and what is asked at places whose token is not known.

    start, tokens -- embed -------- content h --+-- attend (content mask) -- MLP --+-- ... (dropped at the end)
                                                |  keys, values of h               |
    one learned vector for all ---- query g ----+-- attend (query mask) ---- MLP --+-- ... -- norm -- linear -- logits

Both streams share all weights. A query knows its position (rotary angles), not its token, and queries do not see each
other; so the logits at a place depend on exactly the tokens that its row of the query mask, and from there the content
mask, lets through. The start token stands before the first position and is seen by all.

With ranks sigma (a permutation of 0..N-1 in each sequence), a prompt of the m lowest ranks and decoding at progress n:

    content  i attends to j  iff  sigma_j < max(sigma_i + 1, m)
    query    i attends to j  iff  sigma_j < max(min(sigma_i, n), m)  and  j != i

The prompt is seen whole by all. At n = N this is the *oracle* mask: the logits at rank r are those of
p(x_r | x_<r) for all ranks at once. At n < N it is the *draft* mask: all ranks from n on see the ranks below n only,
and at rank n itself the two agree.

Letters: B sequences, N tokens, Q queries of a sequence, D width, V tokens of the vocabulary.

Source: Yang et al. 2019, "XLNet", section 2.3 (two streams); Guo and Ermon 2025, "Reviving Any-Subset Autoregressive
Models with Principled Parallel Sampling and Speculative Decoding" (prompt, draft and oracle masks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.rotary import rotary_angles, rotate
from components.nn.transformer import Block, Transformer, TransformerConfig


class TwoStreamError(TesseraError):
    """A two-stream transformer was configured or called in a way that has no meaning."""


@dataclass(frozen=True)
class TwoStreamConfig:
    """Sizes of a two-stream transformer.

    Attributes:
        vocabulary_size: V, without the mask, whose id is V, and the start, whose id is V + 1.
        context: N, tokens of a sequence.
        width: D.
        layers: Transformer blocks, each passed by both streams.
        heads: Attention heads; the channels of one are even, since rotary positions turn pairs.
    """

    vocabulary_size: int
    context: int
    width: int
    layers: int
    heads: int

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise TwoStreamError(
                f"Rotary positions turn pairs of channels, but a head has {self.width} / {self.heads} of them; "
                "choose width and heads so that this is a whole and even number."
            )


def content_mask(ranks: Tensor, prompt: Tensor) -> Tensor:
    """Return which contents see which: `sigma_j < max(sigma_i + 1, m)`, bool (B, N, N).

    Args:
        ranks: sigma, int64 (B, N).
        prompt: m, tokens of each prompt, int64 (B,).
    """
    return ranks[:, None, :] < torch.maximum(ranks + 1, prompt[:, None])[:, :, None]


def query_mask(ranks: Tensor, prompt: Tensor, progress: Tensor | None = None, queries: Tensor | None = None) -> Tensor:
    """Return which contents queries see: `sigma_j < max(min(sigma_i, n), m)` and `j != i`, bool (B, Q, N).

    Args:
        ranks: sigma, int64 (B, N).
        prompt: m, int64 (B,).
        progress: n, ranks of each sequence that are decoded, prompt included, int64 (B,): the draft mask. None for N,
            the oracle mask.
        queries: Positions that are asked, int64 (B, Q); None for all N in their order.
    """
    places = torch.arange(ranks.shape[1], device=ranks.device)
    asked = ranks if queries is None else ranks.gather(1, queries)
    own = places[None, :, None] == places if queries is None else queries[:, :, None] == places
    limit = asked if progress is None else torch.minimum(asked, progress[:, None])
    return (ranks[:, None, :] < torch.maximum(limit, prompt[:, None])[:, :, None]) & ~own


class TwoStreamTransformer(nn.Module):
    """Logits of every asked token from the tokens that come before it in any order.

    Positions are rotary, in both streams; the output layer is the input embedding. Weights start as in `Transformer`.
    """

    def __init__(self, config: TwoStreamConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = self.mask_token_id = config.vocabulary_size
        self.embedding = nn.Embedding(config.vocabulary_size + 2, config.width)
        self.query = nn.Parameter(torch.empty(config.width))
        self.transformer = Transformer(TransformerConfig(config.width, config.layers, config.heads))
        for weight in (self.embedding.weight, self.query):
            nn.init.normal_(weight, std=0.02)
        angles = rotary_angles(torch.arange(config.context + 1), config.width // config.heads)
        self.register_buffer("angles", angles, persistent=False)  # [2, 1 + N, C / 2]; the start is at 0

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.embedding.weight.device

    def forward(self, tokens: Tensor, content: Tensor, query: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return logits over the V tokens at the asked positions, (B, Q, V).

        Args:
            tokens: int64 (B, N); `mask_token_id` where nothing is known (whatever no mask lets through is not read).
            content: Which contents each content sees, bool (B or 1, N, N).
            query: Which contents each query sees, bool (B or 1, Q, N).
            queries: Positions that are asked, int64 (B, Q); None for all N in their order.

        Raises:
            TwoStreamError: The sequences are longer than the context.
        """
        length = tokens.shape[1]
        if length > self.config.context:
            raise TwoStreamError(f"{length} tokens, but the model has {self.config.context} positions.")
        hidden = self.embedding(F.pad(tokens, (1, 0), value=self.vocabulary_size + 1))
        count = length if queries is None else queries.shape[1]
        asked = self.query.expand(len(tokens), count, -1)
        angles = self.angles[:, : length + 1]
        at = angles[:, 1:] if queries is None else angles[:, queries + 1][:, :, None]
        content, query = _with_start(content, start_row=True), _with_start(query, start_row=False)
        last = len(self.transformer.blocks) - 1
        for block in self.transformer.blocks:
            keys, values = block.attention.project(normed := block.attention_norm(hidden))
            keys = rotate(keys, angles)
            asked = _step(block, asked, block.attention_norm(asked), at, keys, values, query)
            # What the content becomes after the last block is read by nobody.
            if block.layer < last:
                hidden = _step(block, hidden, normed, angles, keys, values, content)
        return F.linear(self.transformer.norm(asked), self.embedding.weight[: self.vocabulary_size])


def _step(
    block: Block, stream: Tensor, normed: Tensor, angles: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> Tensor:
    """Pass one stream through a block whose keys and values are the content's."""
    queries = rotate(block.attention.queries(normed), angles)
    stream = stream + block.attention(queries, keys, values, mask, False)
    return stream + block.mlp(block.mlp_norm(stream))


def _with_start(mask: Tensor, *, start_row: bool) -> Tensor:
    """Let all see the start token, which sees only itself, (B, ., N) to (B, 1, ., 1 + N)."""
    mask = F.pad(mask, (1, 0), value=True)
    if start_row:
        mask = F.pad(mask, (0, 0, 1, 0), value=False)
        mask[:, 0, 0] = True
    return mask[:, None]


def build(**settings: Any) -> TwoStreamTransformer:
    """Build a model from the fields of TwoStreamConfig."""
    return TwoStreamTransformer(TwoStreamConfig(**settings))
