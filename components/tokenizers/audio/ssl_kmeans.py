"""Semantic tokens: clusters of the features of a speech encoder, one stream for each layer and number of clusters.

    waveform -- encoder, layer l -- nearest of K centres -- stream (l, K) of units, 50 a second

Letters: `B` utterances, `S` samples, `T` frames, `D` width, `C` streams, `K` clusters.

Source: Hsu et al. 2021, "HuBERT"; of several layers: Mousavi et al. 2024, "DASB", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.errors import TesseraError
from components.quantizers.minibatch_kmeans import minibatch_kmeans
from components.quantizers.nearest import nearest_codes
from components.speech.ssl_encoder import SSLEncoder
from components.training.determinism import derive_seed

NOTHING = -1
"""Index behind the end of an utterance."""

Stream = tuple[int, int]


class SSLKMeansError(TesseraError):
    """Streams were asked for that a tokenizer does not have, or centres that cannot be made."""


class SSLKMeans(nn.Module):
    """A frozen encoder and the centres of its streams; see the module.

    Args:
        encoder: Gives features of layers.
        streams: Layer and number of clusters of each stream, in the order of the indices' last axis.
    """

    def __init__(self, *, encoder: SSLEncoder, streams: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.streams: tuple[Stream, ...] = tuple((int(layer), int(size)) for layer, size in streams)
        if len(set(self.streams)) < len(self.streams) or not self.streams:
            raise SSLKMeansError(f"streams {self.streams}; expected at least one, and each once.")
        self.encoder = encoder.requires_grad_(False)
        for layer, size in self.streams:
            self.register_buffer(_name(layer, size), torch.zeros(size, encoder.width))

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of each stream."""
        return tuple(size for _, size in self.streams)

    @property
    def bits_per_second(self) -> float:
        """Frame rate times the sum of log2 K, bits a second."""
        return self.encoder.frame_rate * sum(math.log2(size) for size in self.codebook_sizes)

    def only(self, streams: Sequence[Stream]) -> SSLKMeans:
        """Return a tokenizer of some of the streams, in the order given, with the same encoder and centres.

        Raises:
            SSLKMeansError: There is no such stream.
        """
        kept = [tuple(stream) for stream in streams]
        if absent := [stream for stream in kept if stream not in self.streams]:
            raise SSLKMeansError(f"There is no stream (layer, K) = {absent[0]}; there are {self.streams}.")
        part = SSLKMeans(encoder=self.encoder, streams=kept)
        for stream in kept:
            getattr(part, _name(*stream)).copy_(self.centres(*stream))
        return part.to(self.centres(*kept[0]).device).train(self.training)

    def centres(self, layer: int, size: int) -> Tensor:
        """Return the centres (K, D) of a stream."""
        return getattr(self, _name(layer, size))

    @torch.no_grad()
    def fit_layer(self, layer: int, features: Tensor, seed: int) -> None:
        """Make the centres of all streams of a layer from its features (N, D), training audio only.

        Raises:
            SSLKMeansError: No stream uses this layer.
        """
        sizes = [size for at, size in self.streams if at == layer]
        if not sizes:
            raise SSLKMeansError(f"No stream uses layer {layer}; there are {self.streams}.")
        for size in sizes:
            made = minibatch_kmeans(features, size, seed=derive_seed(seed, layer, size))
            self.centres(layer, size).copy_(made)

    @torch.no_grad()
    def encode(self, waveform: Tensor, samples: Tensor) -> Tensor:
        """Return units (B, T, C), int64, NOTHING behind the end, of waveforms (B, S) with their samples (B,)."""
        layers = tuple(sorted({layer for layer, _ in self.streams}))
        features, frames = self.encoder.features(waveform, samples, layers)
        indices = torch.stack(
            [nearest_codes(features[layers.index(layer)], self.centres(layer, size)) for layer, size in self.streams],
            -1,
        )
        inside = torch.arange(indices.shape[1], device=frames.device) < frames[:, None]
        return indices.masked_fill(~inside[..., None], NOTHING)


def _name(layer: int, size: int) -> str:
    return f"centres_{layer}_{size}"


# A base describes its model by this module.
build = SSLKMeans
