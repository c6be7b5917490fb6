"""A pre-norm transformer: encoder, decoder, or decoder with cross-attention to a context.

    x --+-- norm -- self-attention --(+)--+-- norm -- cross-attention --(+)--+-- norm -- MLP --(+)-- ... -- norm
        |_____________________________|   |______(only with context)_____|   |_________________|

Positions are the caller's: learned ones are added to the input, rotary ones are passed as `angles`.

Shapes: B batch, T tokens, S tokens attended to, D width, H heads, C = D / H channels of one head.

Source: Vaswani et al. 2017, "Attention Is All You Need", section 3; pre-norm and scaled residual initialisation:
Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.rotary import rotate


class TransformerError(TesseraError):
    """A transformer was configured or called in a way that has no meaning."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a transformer.

    Attributes:
        width: D, channels of a token.
        layers: Number of blocks.
        heads: H, attention heads; divides the width.
        mlp_ratio: Hidden channels of the MLP over D (a gated MLP has three matrices: 8/3 costs what 4 costs without).
        causal: Token t attends to tokens up to t only.
        norm: LayerNorm or RMSNorm (Zhang and Sennrich 2019).
        activation: GELU or the gated SwiGLU (Shazeer 2020).
        bias: Linear layers have biases.
        dropout: Share of attention weights and of residual updates dropped in training.
        context_width: Channels of the context that every block attends to, None for no cross-attention.
    """

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    causal: bool = False
    norm: Literal["layer", "rms"] = "layer"
    activation: Literal["gelu", "swiglu"] = "gelu"
    bias: bool = True
    dropout: float = 0.0
    context_width: int | None = None

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise TransformerError(f"width {self.width} is not a multiple of heads {self.heads}.")
        if self.norm not in ("layer", "rms"):
            raise TransformerError(f"norm is {self.norm!r}; expected 'layer' or 'rms'.")
        if self.activation not in ("gelu", "swiglu"):
            raise TransformerError(f"activation is {self.activation!r}; expected 'gelu' or 'swiglu'.")


class KeyValueCache:
    """Keys and values of tokens already seen, so that decoding one more token costs one token.

    Start one cache per batch of sequences and pass it to every call of `Transformer.forward`; it is filled in place
    and meant for use without gradients.

    Args:
        capacity: Most tokens that it can hold; memory is taken at the first call.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._tokens: dict[int, tuple[Tensor, Tensor]] = {}
        self._context: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values [B, H, T, C] behind `length` tokens; return all of them [B, H, length + T, C]."""
        end = self.length + keys.shape[2]
        if end > self.capacity:
            raise TransformerError(f"The cache holds {self.capacity} tokens, {end} were given; make it larger.")
        if layer not in self._tokens:
            shape = (*keys.shape[:2], self.capacity, keys.shape[3])
            self._tokens[layer] = (keys.new_empty(shape), values.new_empty(shape))
        for store, new in zip(self._tokens[layer], (keys, values), strict=True):
            store[:, :, self.length : end] = new
        return tuple(store[:, :, :end] for store in self._tokens[layer])

    def keep(self, places: Tensor, after: int = 0) -> None:
        """Keep the first `after` tokens where they are, and of the others only some, in the order given.

        What stays of a draft when a part of it is refused; only the kept draft is moved.

        Args:
            places: Places among the `length` tokens, (T,) int64 on the cache's device.
            after: Tokens at the front that stay.

        Raises:
            TransformerError: A place lies outside the cached tokens behind the first `after`. Checked on the CPU only:
                elsewhere it would make the caller wait for the device.
        """
        if places.device.type == "cpu" and bool(((places < after) | (places >= self.length)).any()):
            raise TransformerError(
                f"The cache holds {self.length} tokens; {places.tolist()} are not all among those from {after} on."
            )
        end = after + len(places)
        for store in (each for pair in self._tokens.values() for each in pair):
            store[:, :, after:end] = store[:, :, places]
        self.length = end

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first `length`.

        Raises:
            TransformerError: There are fewer.
        """
        if not 0 <= length <= self.length:
            raise TransformerError(f"The cache holds {self.length} tokens; it cannot be cut to {length}.")
        self.length = length

    def context(self, layer: int) -> tuple[Tensor, Tensor] | None:
        """Return the context's keys and values of a layer, None before they are kept."""
        return self._context.get(layer)

    def keep_context(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Keep the context's keys and values of a layer; the context may not change while the cache lives."""
        self._context[layer] = (keys, values)


class Attention(nn.Module):
    """Multi-head attention, softmax(q k^T / sqrt(C) + mask) v, of tokens to themselves or to a context.

    Args:
        width: D.
        heads: H.
        context_width: Channels of what is attended to; D for self-attention.
        bias: Projections have biases.
        dropout: Share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, context_width: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.key_value = nn.Linear(context_width, 2 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [B, H, S, C] of a context [B, S, D']."""
        keys, values = self.key_value(context).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, T, D] -> [B, H, T, C]

    def queries(self, tokens: Tensor) -> Tensor:
        """Return queries [B, H, T, C] of tokens [B, T, D]."""
        return self._split(self.query(tokens))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """Return the attended tokens [B, T, D]; `causal` may be set only without a mask and with S = T."""
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(queries, keys, values, mask, dropout, is_causal=causal)
        return self.output(heads.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """Two-layer perceptron on each token: W2 gelu(W1 x), or gated, W2 (silu(Wg x) * W1 x)."""

    def __init__(self, width: int, hidden: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        self.input = nn.Linear(width, 2 * hidden if self.gated else hidden, bias=bias)
        self.output = nn.Linear(hidden, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens [B, T, D] to [B, T, D]."""
        hidden = self.input(tokens)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            return self.output(F.silu(gate) * value)
        return self.output(F.gelu(hidden))


class Block(nn.Module):
    """Self-attention, cross-attention if there is a context, MLP; each normalised before and added to its input."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention_norm = _norm(config)
        self.attention = Attention(config.width, config.heads, config.width, config.bias, config.dropout)
        self.cross = config.context_width is not None
        if config.context_width is not None:
            self.cross_norm = _norm(config)
            self.cross_attention = Attention(
                config.width, config.heads, config.context_width, config.bias, config.dropout
            )
        self.mlp_norm = _norm(config)
        self.mlp = MLP(config.width, round(config.mlp_ratio * config.width), config.activation, config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        causal: bool,
        angles: Tensor | None,
        context: Tensor | None,
        context_mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Map tokens [B, T, D] to [B, T, D]; arguments as in `Transformer.forward`, masks already 4-D."""
        normed = self.attention_norm(tokens)
        queries = self.attention.queries(normed)
        keys, values = self.attention.project(normed)
        if angles is not None:
            queries, keys = rotate(queries, angles), rotate(keys, angles)
        if cache is not None:
            keys, values = cache.extend(self.layer, keys, values)
        tokens = tokens + self.dropout(self.attention(queries, keys, values, mask, causal))
        if self.cross:
            queries = self.cross_attention.queries(self.cross_norm(tokens))
            keys, values = self._context(context, cache)
            tokens = tokens + self.dropout(self.cross_attention(queries, keys, values, context_mask, False))
        return tokens + self.dropout(self.mlp(self.mlp_norm(tokens)))

    def _context(self, context: Tensor, cache: KeyValueCache | None) -> tuple[Tensor, Tensor]:
        if cache is None:
            return self.cross_attention.project(context)
        if cache.context(self.layer) is None:
            cache.keep_context(self.layer, *self.cross_attention.project(context))
        return cache.context(self.layer)


class Transformer(nn.Module):
    """A stack of pre-norm blocks with a final norm.

    Weights start normal with standard deviation 1 / sqrt(3 D) (GPT-2's 0.02 at D = 768), those that write into the
    residual stream divided by the square root of their number, so that its variance does not grow with depth.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = _norm(config)
        deviation = 1 / math.sqrt(3 * config.width)
        writers = config.layers * (2 if config.context_width is None else 3)
        for name, parameter in self.named_parameters():
            if name.endswith("output.weight"):
                nn.init.normal_(parameter, std=deviation / math.sqrt(writers))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=deviation)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        angles: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Transform tokens.

        Args:
            tokens: [B, T, D]; with a cache, those after the tokens it holds.
            mask: [T, S] or broadcastable to [B, H, T, S]. Boolean, True where a query may attend, or floats added to
                the scores. In a causal model the causal mask applies as well. S counts the cached tokens, too.
            angles: Rotary table of the T positions (components.nn.rotary.rotary_angles).
            context: [B, S', D'] that the blocks cross-attend to; exactly when `context_width` is set.
            context_mask: As `mask`, for the context: [T, S'] or broadcastable to [B, H, T, S'].
            cache: Keys and values of the tokens before; extended in place.

        Returns:
            Tokens [B, T, D], normalised.

        Raises:
            TransformerError: A mask has another number of axes than 2 or 4, a context is given to a model without
                cross-attention or missing in one with it, or the cache is full.
        """
        if (context is None) != (self.config.context_width is None):
            raise TransformerError("A context must be given exactly when the config has a context_width.")
        length = tokens.shape[1]
        past = 0 if cache is None else cache.length
        mask, context_mask = _four_axes(mask), _four_axes(context_mask)
        causal = self.config.causal and length > 1
        if causal and (mask is not None or past):
            mask, causal = _with_causal(mask, length, past, tokens.device), False
        for block in self.blocks:
            tokens = block(tokens, mask, causal, angles, context, context_mask, cache)
        if cache is not None:
            cache.length += length
        return self.norm(tokens)


def _norm(config: TransformerConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.width, eps=1e-6)
    return nn.LayerNorm(config.width, bias=config.bias)


def _four_axes(mask: Tensor | None) -> Tensor | None:
    # A mask [B, T, S] would silently be read as [H, T, S].
    if mask is not None and mask.dim() not in (2, 4):
        raise TransformerError(f"A mask has shape {list(mask.shape)}; expected [T, S] or [B or 1, H or 1, T, S].")
    return mask


def _with_causal(mask: Tensor | None, length: int, past: int, device: torch.device) -> Tensor:
    allowed = torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
    if mask is None:
        return allowed
    return mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -math.inf)
