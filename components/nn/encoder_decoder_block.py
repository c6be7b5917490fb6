"""Networks of block diffusion: one pass reads clean tokens, another denoises, and they share one attention.

    clean x   -- embed -- encoder (under a mask, or behind a cache) -- h
                                                                     |  keys and values
    noisy x_t -- embed -- decoder: attention over [what was read | its own block] -- logits over V words

There is no cross-attention: every decoder layer attends once, to keys of clean and of noisy tokens joined. Where the
clean ones come from makes three networks:

    EncoderDecoderBlock   from the encoder's last state h, by the decoder layer's own norm and projections
    TiedBlock             from the same layer of the encoder: the decoder is its top layers, with the same weights
    TiedBlock, all layers decoder-only block diffusion (BD3LM): trained on clean and noisy tokens as one sequence

Positions are rotary, and a noisy token has that of its clean twin.

Letters: B sequences, P tokens of the prompt, N noisy tokens, T tokens read, D width, H heads, C = D / H, V words.

Source: Arriola et al. 2025, "Encoder-Decoder Diffusion Language Models for Efficient Training and Inference", section 3
and appendix on the design of the decoder; BD3LM: Arriola et al. 2025, "Block Diffusion", appendix B.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.nn.rotary import rotary_angles, rotate
from components.nn.transformer import KeyValueCache, Transformer, TransformerConfig

if TYPE_CHECKING:
    from components.diffusion.block import BlockMasks

Memory = dict[int, tuple[Tensor, Tensor]]
"""Keys and values [B, H, T, C] of clean tokens by decoder layer."""


class BlockNetworkError(TesseraError):
    """A network of block diffusion was configured or called in a way that has no meaning."""


class _Recorder:
    """Stands where a transformer extends its cache and keeps keys and values with their gradients."""

    def __init__(self) -> None:
        self.length = 0
        self.kept: Memory = {}

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.kept[layer] = (keys, values)
        return keys, values


class _Joined:
    """Stands where a transformer extends its cache and puts what was read in front, with its gradients."""

    def __init__(self, memory: Memory) -> None:
        self.length = 0
        self._memory = memory

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        clean_keys, clean_values = self._memory[layer]
        return torch.cat([clean_keys, keys], 2), torch.cat([clean_values, values], 2)


@dataclass(frozen=True)
class BlockCache:
    """What was read: by the encoder for itself, and as the decoder sees it; one and the same where weights are tied."""

    reading: KeyValueCache
    denoising: KeyValueCache


class _BlockNetwork(nn.Module, ABC):
    """Embedding, rotary positions and output of all of them.

    Args:
        words: V, tokens that may be predicted; ids 0 .. V - 1.
        special: Further ids that are only read (the mask, a start), V .. V + special - 1.
        context: P + N, most tokens of a sequence.
        width: D.
        heads: H.
        tied_output: The output matrix is the embedding of the words.
    """

    def __init__(self, words: int, special: int, context: int, width: int, heads: int, tied_output: bool) -> None:
        super().__init__()
        if width % heads or width // heads % 2:
            raise BlockNetworkError(
                f"Rotary positions turn pairs of channels, but width {width} gives {heads} heads of {width / heads:g} "
                "channels; choose width and heads so that this is an even number."
            )
        self.words, self.context, self.width, self.heads = words, context, width, heads
        self.embedding = nn.Embedding(words + special, width)
        self.output = None if tied_output else nn.Linear(width, words, bias=False)
        for table in (self.embedding, self.output):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)
        angles = rotary_angles(torch.arange(context, device="cpu"), width // heads)
        self.register_buffer("angles", angles, persistent=False)  # [2, P + N, C / 2]

    def _places(self, start: int, count: int) -> Tensor:
        if start + count > self.context:
            raise BlockNetworkError(
                f"{start + count} tokens were given to a network of {self.context} positions; shorten them, or build "
                "it with a longer context."
            )
        return self.angles[:, start : start + count]

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of states (..., D)."""
        return F.linear(hidden, self.embedding.weight[: self.words] if self.output is None else self.output.weight)

    @abstractmethod
    def remember(self, clean: Tensor, masks: BlockMasks) -> Memory:
        """Read clean tokens, int64 (B, P + N), all blocks at once, and return what the decoder sees of them."""

    @abstractmethod
    def _decode(self, hidden: Tensor, mask: Tensor | None, angles: Tensor, cache: Any) -> Tensor: ...

    def recall(self, noisy: Tensor, memory: Memory, masks: BlockMasks) -> Tensor:
        """Return logits (B, N, V) of noisy tokens, int64 (B, N), given what was read."""
        angles = self._places(masks.prompt, noisy.shape[1])
        return self.logits(self._decode(self.embedding(noisy), masks.denoising, angles, _Joined(memory)))

    def forward(self, clean: Tensor, noisy: Tensor, masks: BlockMasks) -> Tensor:
        """Return logits (B, N, V) of noisy tokens (B, N) given clean ones (B, P + N): the pass of training."""
        return self.recall(noisy, self.remember(clean, masks), masks)

    def denoise(self, noisy: Tensor, cache: BlockCache) -> Tensor:
        """Return the states (B, S, D) of a noisy block behind what is cached, and leave the cache as it is."""
        kept = cache.denoising.length
        hidden = self._decode(self.embedding(noisy), None, self._places(kept, noisy.shape[1]), cache.denoising)
        cache.denoising.truncate(kept)
        return hidden


class EncoderDecoderBlock(_BlockNetwork):
    """Encoder and decoder of their own; every decoder layer sees the encoder's last state.

    Args:
        words, special, context, width, heads, tied_output: As above.
        encoder_layers: Layers that run once per finished block.
        decoder_layers: Layers that run in every denoising step.
        feed_forward: Hidden channels of the MLPs.
        norm, activation, bias: As in `TransformerConfig`.
    """

    def __init__(
        self,
        *,
        words: int,
        special: int,
        context: int,
        width: int,
        heads: int,
        feed_forward: int,
        encoder_layers: int,
        decoder_layers: int,
        tied_output: bool = False,
        norm: Literal["layer", "rms"] = "layer",
        activation: Literal["gelu", "swiglu"] = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__(words, special, context, width, heads, tied_output)
        style = {"norm": norm, "activation": activation, "bias": bias}
        self.encoder, self.decoder = (
            Transformer(TransformerConfig(width, layers, heads, feed_forward / width, **style))
            for layers in (encoder_layers, decoder_layers)
        )

    def _projected(self, states: Tensor, angles: Tensor) -> Memory:
        """Return keys and values of the encoder's last state (B, T, D) as every decoder layer sees them."""
        memory = {}
        for block in self.decoder.blocks:
            keys, values = block.attention.project(block.attention_norm(states))
            memory[block.layer] = (rotate(keys, angles), values)
        return memory

    def remember(self, clean: Tensor, masks: BlockMasks) -> Memory:
        """Read clean tokens, int64 (B, P + N), all blocks at once, and return what the decoder sees of them."""
        angles = self._places(0, clean.shape[1])
        return self._projected(self.encoder(self.embedding(clean), mask=masks.reading, angles=angles), angles)

    def _decode(self, hidden: Tensor, mask: Tensor | None, angles: Tensor, cache: Any) -> Tensor:
        return self.decoder(hidden, mask=mask, angles=angles, cache=cache)

    def new_cache(self, capacity: int) -> BlockCache:
        """Return an empty cache for so many tokens."""
        return BlockCache(KeyValueCache(capacity), KeyValueCache(capacity))

    def read(self, tokens: Tensor, cache: BlockCache) -> None:
        """Read the next clean tokens, int64 (B, T), and keep what the decoder sees of them."""
        angles = self._places(cache.reading.length, tokens.shape[1])
        states = self.encoder(self.embedding(tokens), angles=angles, cache=cache.reading)
        for layer, (keys, values) in self._projected(states, angles).items():
            cache.denoising.extend(layer, keys, values)
        cache.denoising.length += tokens.shape[1]


class TiedBlock(_BlockNetwork):
    """One stack that reads with all its layers and denoises with the top ones, each seeing what it read itself.

    Args:
        words, special, context, width, heads, tied_output: As above.
        layers: Of the stack.
        decoder_layers: Top layers that denoise; None for all, which is decoder-only block diffusion.
        feed_forward: Hidden channels of the MLPs.
        norm, activation, bias: As in `TransformerConfig`.
    """

    def __init__(
        self,
        *,
        words: int,
        special: int,
        context: int,
        width: int,
        heads: int,
        feed_forward: int,
        layers: int,
        decoder_layers: int | None = None,
        tied_output: bool = False,
        norm: Literal["layer", "rms"] = "layer",
        activation: Literal["gelu", "swiglu"] = "gelu",
        bias: bool = True,
    ) -> None:
        super().__init__(words, special, context, width, heads, tied_output)
        self.decoder_layers = layers if decoder_layers is None else decoder_layers
        if not 1 <= self.decoder_layers <= layers:
            raise BlockNetworkError(f"{decoder_layers} of {layers} layers denoise; expected 1 to {layers}.")
        style = {"norm": norm, "activation": activation, "bias": bias}
        self.stack = Transformer(TransformerConfig(width, layers, heads, feed_forward / width, **style))

    @property
    def decoder_only(self) -> bool:
        """Whether all layers denoise."""
        return self.decoder_layers == len(self.stack.blocks)

    def remember(self, clean: Tensor, masks: BlockMasks) -> Memory:
        """Read clean tokens, int64 (B, P + N), all blocks at once, and return what the decoder sees of them."""
        recorder = _Recorder()
        self.stack(self.embedding(clean), mask=masks.reading, angles=self._places(0, clean.shape[1]), cache=recorder)
        return recorder.kept

    def _decode(self, hidden: Tensor, mask: Tensor | None, angles: Tensor, cache: Any) -> Tensor:
        for block in self.stack.blocks[-self.decoder_layers :]:
            hidden = block(hidden, mask, False, angles, None, None, cache)
        return self.stack.norm(hidden)

    def forward(self, clean: Tensor, noisy: Tensor, masks: BlockMasks) -> Tensor:
        """Return logits (B, N, V) of noisy tokens (B, N) given clean ones (B, P + N): the pass of training.

        Where all layers denoise, clean and noisy tokens are one sequence (B, P + 2 N) under one mask.
        """
        if not self.decoder_only:
            return super().forward(clean, noisy, masks)
        length = clean.shape[1]
        angles = torch.cat([self._places(0, length), self._places(masks.prompt, noisy.shape[1])], 1)
        hidden = self.stack(self.embedding(torch.cat([clean, noisy], 1)), mask=masks.doubled, angles=angles)
        return self.logits(hidden[:, length:])

    def parallel(self, tokens: Tensor) -> Tensor:
        """Return the states (B, T, D) of tokens that all see each other: masked diffusion without blocks (MDLM).

        Source: Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models", section 3.
        """
        return self.stack(self.embedding(tokens), angles=self._places(0, tokens.shape[1]))

    def new_cache(self, capacity: int) -> BlockCache:
        """Return an empty cache for so many tokens."""
        cache = KeyValueCache(capacity)
        return BlockCache(cache, cache)

    def read(self, tokens: Tensor, cache: BlockCache) -> None:
        """Read the next clean tokens, int64 (B, T), and keep what the decoder sees of them."""
        angles = self._places(cache.reading.length, tokens.shape[1])
        self.stack(self.embedding(tokens), angles=angles, cache=cache.reading)


def build(**sizes: Any) -> EncoderDecoderBlock | TiedBlock:
    """Build a network: with `encoder_layers` an `EncoderDecoderBlock`, with `layers` a `TiedBlock`."""
    return EncoderDecoderBlock(**sizes) if "encoder_layers" in sizes else TiedBlock(**sizes)
