"""From units to mel frames: embeddings of whatever streams there are, a speaker, ConvNeXt blocks, log-mel frames.

    units 50 Hz -- sum of the streams' embeddings + speaker -- every frame twice -- ConvNeXt -- log-mel 100 Hz

A mel vocoder renders the frames. A stream can be left out, and a speaker can be unknown: both happen in training.

Letters: `B` utterances, `T` frames of units, `C` streams, `D` width, `M` mel bands.

Sources: Polyak et al. 2021, "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations" (units and
a speaker decide the sound); Siuzdak 2023 (Vocos: the blocks).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from components.audio.convnext import ConvNextStack
from components.errors import TesseraError

_REPEAT = 2  # mel frames of a frame of units


class UnitVocoderError(TesseraError):
    """Units or speakers that a vocoder does not know."""


class UnitVocoder(nn.Module):
    """See the module.

    Args:
        codebook_sizes: Units of each stream.
        speakers: Names of the speakers it knows.
        bands: M.
        width: D, also of the ConvNeXt blocks.
        blocks: ConvNeXt blocks.

    Attributes:
        speakers: As given; speaker i of `forward` is speakers[i].
        unknown: Index of a speaker that is none of them.
    """

    def __init__(
        self,
        *,
        codebook_sizes: Sequence[int],
        speakers: Sequence[str],
        bands: int = 40,
        width: int = 128,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self.codebook_sizes, self.speakers = tuple(codebook_sizes), tuple(speakers)
        self.unknown = len(self.speakers)
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in self.codebook_sizes)
        self.speaker_embedding = nn.Embedding(len(self.speakers) + 1, width)
        self.body = ConvNextStack(width, width, blocks)
        self.output = nn.Linear(width, bands)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        for table in (*self.embeddings, self.speaker_embedding):
            nn.init.normal_(table.weight, std=width**-0.5)

    @torch.no_grad()
    def fit_scale(self, frames: Tensor) -> None:
        """Take mean and deviation of every band from log-mel frames (N, M) of the training set."""
        self.mean.copy_(frames.mean(0))
        self.deviation.copy_(frames.std(0).clamp(min=1e-3))

    def speaker_ids(self, names: Sequence[str]) -> Tensor:
        """Return the index of each speaker, that of the unknown one for a name that is not known, int64 (B,)."""
        places = {name: place for place, name in enumerate(self.speakers)}
        return torch.tensor([places.get(name, self.unknown) for name in names])

    def forward(self, units: Tensor, speakers: Tensor, present: Tensor | None = None) -> Tensor:
        """Return log-mel frames (B, 2 T, M) of units.

        Args:
            units: int64 (B, T, C); a negative one (the end of an utterance, a stream left out) adds nothing.
            speakers: int64 (B,).
            present: Which streams are used, bool (B, C); all where None.

        Raises:
            UnitVocoderError: There is another number of streams.
        """
        if units.dim() != 3 or units.shape[-1] != len(self.codebook_sizes):
            raise UnitVocoderError(f"units {list(units.shape)}; expected (B, T, {len(self.codebook_sizes)}).")
        used = units >= 0
        if present is not None:
            used = used & present[:, None]
        hidden = self.speaker_embedding(speakers)[:, None]
        for stream, embedding in enumerate(self.embeddings):
            hidden = hidden + embedding(units[..., stream].clamp(min=0)) * used[..., stream, None]
        hidden = self.body(hidden.repeat_interleave(_REPEAT, 1))
        return self.output(hidden).float() * self.deviation + self.mean


# A base describes its model by this module.
build = UnitVocoder
