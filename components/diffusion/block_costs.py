"""What block diffusion costs, by formula: matrix multiplications, and layers that tokens pass.

A multiply-add counts as two operations. For each token a layer needs 2 (4 D^2) operations in its projections and
2 M D F in its MLP (M = 2 matrices, 3 where gated), for each pair of a query and a key it sees 4 D; a masked pair
is computed and counts. Training costs three times the forward pass: each product has two gradients.

    training   encoder-decoder  N_enc (P + N) + N_dec N      decoder-only  L (P + 2 N)      token-layers of a sequence
    a block    encoder-decoder  T N_dec S + N_enc S          decoder-only  T L S + L S      token-layers, cached

Letters: P tokens of the prompt, N behind it, S of a block, T denoising steps of a block, D width, F hidden channels of
an MLP, V words, L layers of one stack.

Source: Arriola et al. 2025, "Encoder-Decoder Diffusion Language Models for Efficient Training and Inference", section
on computational cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from components.errors import TesseraError

Kind = Literal["encoder_decoder", "shared_keys", "decoder_only", "bidirectional", "causal"]


class UnknownNetwork(TesseraError):
    """Costs were asked for a network that there is no formula for."""


@dataclass(frozen=True)
class BlockCosts:
    """Costs of one sequence.

    Attributes:
        kind: Which network.
        reading_layers: Layers that read clean tokens; of one stack, all its layers.
        denoising_layers: Layers that denoise.
        width: D.
        feed_forward: F.
        gated: Whether the MLP has three matrices.
        words: V.
        prompt: P.
        length: N.
        block: S.
    """

    kind: Kind
    reading_layers: int
    denoising_layers: int
    width: int
    feed_forward: int
    gated: bool
    words: int
    prompt: int
    length: int
    block: int

    def __post_init__(self) -> None:
        if self.kind not in ("encoder_decoder", "shared_keys", "decoder_only", "bidirectional", "causal"):
            raise UnknownNetwork(f"kind is {self.kind!r}; expected one of {', '.join(Kind.__args__)}.")

    def _layer(self, queries: int, keys: int) -> int:
        """Operations of one layer on so many queries that attend to so many keys, each query's own among them."""
        matrices = 3 if self.gated else 2
        token = 8 * self.width**2 + 2 * matrices * self.width * self.feed_forward
        return queries * token + 4 * self.width * queries * keys

    def _output(self, positions: int) -> int:
        return 2 * self.width * self.words * positions

    def _projection(self, tokens: int) -> int:
        """Operations of the keys and values that every decoder layer makes of encoder states."""
        return self.denoising_layers * 4 * self.width**2 * tokens if self.kind == "encoder_decoder" else 0

    def forward(self) -> int:
        """Return the operations of the forward pass of training."""
        prompt, length, both = self.prompt, self.length, self.prompt + self.length
        if self.kind == "causal":
            return self.reading_layers * self._layer(length, length) + self._output(length)
        if self.kind == "bidirectional":
            return self.reading_layers * self._layer(both, both) + self._output(length)
        if self.kind == "decoder_only":
            return self.reading_layers * self._layer(both + length, both + length) + self._output(length)
        reading = self.reading_layers * self._layer(both, both) + self._projection(both)
        return reading + self.denoising_layers * self._layer(length, prompt + 2 * length) + self._output(length)

    def training(self) -> int:
        """Return the operations of forward and backward pass of a training step.

        Of shared keys the top layer's reading gives keys and values only; what it makes of them has no gradient.
        """
        unused = 0
        if self.kind == "shared_keys":
            both = self.prompt + self.length
            unused = 2 * (self._layer(both, both) - 4 * self.width**2 * both)
        return 3 * self.forward() - unused

    def training_token_layers(self) -> int:
        """Return how many layers the tokens of a sequence pass in training, clean and noisy copies together."""
        both = self.prompt + self.length
        if self.kind == "causal":
            return self.reading_layers * self.length
        if self.kind == "bidirectional":
            return self.reading_layers * both
        denoising = self.reading_layers if self.kind == "decoder_only" else self.denoising_layers
        return self.reading_layers * both + denoising * self.length

    def sampling_token_layers(self, steps: int) -> int:
        """Return how many layers tokens pass while N tokens are written, T steps a block; the prompt is read, too."""
        if self.kind == "causal":
            return self.reading_layers * self.length
        if self.kind == "bidirectional":
            return steps * self.reading_layers * (self.prompt + self.length)
        denoising = self.reading_layers if self.kind == "decoder_only" else self.denoising_layers
        return steps * denoising * self.length + self.reading_layers * (self.prompt + self.length)

    def sampling(self, steps: int, positions: int) -> int:
        """Return the operations of writing N tokens with cached keys.

        Args:
            steps: T.
            positions: Predictions computed in all, each a product with the output matrix.
        """
        length, prompt = self.length, self.prompt
        if self.kind == "causal":
            stack = sum(self.reading_layers * self._layer(1, place + 1) for place in range(length))
            return stack + self._output(positions)
        if self.kind == "bidirectional":
            both = prompt + length
            return steps * self.reading_layers * self._layer(both, both) + self._output(positions)
        denoising = self.reading_layers if self.kind == "decoder_only" else self.denoising_layers
        total = self.reading_layers * self._layer(prompt, prompt) + self._projection(prompt + length)
        for past in range(prompt, prompt + length, self.block):
            step = self._layer(self.block, past + self.block)
            total += (steps * denoising + self.reading_layers) * step
        return total + self._output(positions)
