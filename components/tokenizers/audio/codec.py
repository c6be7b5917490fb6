"""The speech codec: a waveform to a few codes every 20 ms, and back, whatever quantizer stands in the middle.

    waveform -- STFT (log magnitude, phase) -- stride 2 -- ConvNeXt -- P vectors -- quantizer
    waveform -- inverse STFT -- magnitudes, phases -- x 2 -- ConvNeXt -- P vectors --'

With a residual quantizer every vector has M indices, of which the first m are a coarser code; any subset of them can be
decoded, which shows what the others add. Decoding in a stream gives the same waveform as decoding at once.

Letters: `B` utterances, `S` samples, `P` vectors (one per `samples_per_vector` samples), `C` width of a vector, `M`
indices per vector, `m` of them used.

Sources: Zeghidour et al. 2021 (SoundStream: residual codes of a waveform, quantizer dropout); Siuzdak 2023 (Vocos: the
decoder predicts a spectrum at the rate of its frames); Liu et al. 2022 (ConvNeXt).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.convnext import ConvNextStack, Double, Halve
from components.audio.istft_head import IstftHead
from components.audio.spectra import Stft
from components.compression.tail_drop import DropLaw, draw_kept
from components.errors import TesseraError
from components.quantizers.quantized import Quantized, Quantizer
from components.quantizers.rvq import ResidualQuantizer

SAMPLE_RATE = 8_000
_FRAMES = 2  # frames of a vector
_FLOOR = 1e-4


class CodecError(TesseraError):
    """A speech codec was configured in a way, or given something, that it cannot work with."""


class SpeechReconstruction(NamedTuple):
    """What a training step needs: waveforms (B, S) or frames (B, T, M), codes, and codebooks used."""

    decoded: Tensor
    codes: Quantized
    kept: int


class QuantizedSpeech(nn.Module, ABC):
    """What codecs of speech share: a quantizer, how many of its codebooks a training step uses, and bit rates.

    Args:
        quantizer: Its width is that of the latent vectors.
        drop: Law of the number of codebooks used in a training step; other than "none" for residual quantizers only.
        vectors_per_second: Rate of the latent vectors, Hz.
    """

    def __init__(self, quantizer: Quantizer, drop: DropLaw, vectors_per_second: float) -> None:
        super().__init__()
        if drop != "none" and not isinstance(quantizer, ResidualQuantizer):
            raise CodecError(
                f"drop is {drop!r}, but {type(quantizer).__name__} has no coarser code in its first indices; use a "
                "residual quantizer, or drop 'none'."
            )
        self.quantizer = quantizer
        self.drop = drop
        self.codebook_sizes = quantizer.codebook_sizes
        self.vectors_per_second = vectors_per_second

    @abstractmethod
    def latents(self, signals: Tensor) -> Tensor:
        """Return the vectors (B, P, C) before quantization."""

    @abstractmethod
    def decode_values(self, values: Tensor) -> Tensor:
        """Return the signals of vectors (B, P, C)."""

    def draw_step(self, generator: torch.Generator) -> int:
        """Draw what is random in one training step: m, one for the whole batch."""
        return draw_kept(len(self.codebook_sizes), self.drop, generator)

    def forward(self, signals: Tensor, kept: int | None = None) -> SpeechReconstruction:
        """Encode, quantize and decode, with the first `kept` codebooks of a residual quantizer, or all."""
        total = len(self.codebook_sizes)
        kept = total if kept is None else kept
        latents = self.latents(signals)
        codes = self.quantizer(latents) if kept == total else self.quantizer(latents, kept)
        return SpeechReconstruction(self.decode_values(codes.values), codes, kept)

    def encode(self, signals: Tensor) -> Tensor:
        """Return indices (B, P), or (B, P, M)."""
        return self.quantizer(self.latents(signals)).indices

    def values(self, indices: Tensor, streams: Sequence[int] | None = None) -> Tensor:
        """Return the vectors (B, P, C) that indices name.

        Args:
            indices: (B, P), or (B, P, m).
            streams: The codebooks, of those of a residual quantizer, that the m indices belong to, in any order and
                each at most once; the first m by default.

        Raises:
            CodecError: The streams do not exist, or are not as many as the indices.
        """
        if streams is None:
            return self.quantizer.decode(indices)
        if not isinstance(self.quantizer, ResidualQuantizer):
            raise CodecError(f"{type(self.quantizer).__name__} has no streams to choose from; leave streams out.")
        total = len(self.codebook_sizes)
        known = len(set(streams)) == len(streams) and all(0 <= stream < total for stream in streams)
        if not streams or not known or indices.shape[-1] != len(streams):
            raise CodecError(
                f"streams {list(streams)} for indices {list(indices.shape)}; expected (B, P, m) and m different "
                f"numbers from 0 to {total - 1}."
            )
        chosen = [self.quantizer.codebooks[stream].lookup(indices[..., at]) for at, stream in enumerate(streams)]
        return torch.stack(chosen).sum(0)

    def decode(self, indices: Tensor, streams: Sequence[int] | None = None) -> Tensor:
        """Return the signals that indices (B, P), or (B, P, m), name; `streams` as for `values`."""
        return self.decode_values(self.values(indices, streams))

    def bits_per_second(self, kept: int | None = None) -> float:
        """Return the nominal bit rate with the first `kept` codebooks, or all: rate x sum_m log2 K_m."""
        sizes = torch.tensor(self.codebook_sizes[:kept], dtype=torch.float64)
        return float(self.vectors_per_second * sizes.log2().sum())

    @torch.no_grad()
    def start_from(self, signals: Tensor, generator: torch.Generator) -> None:
        """Start the codebooks from the vectors of a first batch."""
        self.quantizer.start_from(self.latents(signals), generator)

    def after_step(self, step: int, generator: torch.Generator) -> None:
        """Let the quantizer move and restart its codes; call once after every optimiser step."""
        self.quantizer.after_step(step, generator)


class SpeechCodec(QuantizedSpeech):
    """Encoder, quantizer and decoder of waveforms at 8 kHz; see the module.

    Args:
        quantizer: Its width is that of the latent vectors.
        width: Channels of the ConvNeXt blocks.
        blocks: Blocks of the encoder, and of the decoder.
        window: Samples of a frame of both transforms.
        hop: Samples between frames; a vector covers two hops.
        drop: Law of the number of codebooks used in a training step.

    Attributes:
        samples_per_vector: Samples that a vector stands for.
        reach: Vectors on either side that a decoded sample depends on.
    """

    def __init__(
        self,
        *,
        quantizer: Quantizer,
        width: int = 96,
        blocks: int = 4,
        window: int = 320,
        hop: int = 80,
        drop: DropLaw = "none",
    ) -> None:
        super().__init__(quantizer, drop, SAMPLE_RATE / (_FRAMES * hop))
        self.samples_per_vector = _FRAMES * hop
        self.stft = Stft(window, hop)
        self.downsample = Halve(3 * self.stft.bins, width)
        self.encoder = ConvNextStack(width, width, blocks)
        self.leave = nn.Linear(width, quantizer.code_dim)
        self.decoder = ConvNextStack(quantizer.code_dim, width, blocks)
        self.upsample = Double(width, width)
        self.head = IstftHead(width, window, hop)
        self.reach = self.decoder.reach + -(-self.stft.margin // self.samples_per_vector)

    def features(self, waveforms: Tensor) -> Tensor:
        """Return log magnitudes and the cosine and sine of phases, (B, 2 P, 3 N), of waveforms (B, S)."""
        if waveforms.dim() != 2 or not waveforms.is_floating_point() or not waveforms.shape[1]:
            raise CodecError(
                f"waveforms {str(waveforms.dtype).removeprefix('torch.')} {list(waveforms.shape)}; expected "
                "floating-point (B, S) in [-1, 1], at least one sample."
            )
        spectra = self.stft(F.pad(waveforms, (0, -waveforms.shape[1] % self.samples_per_vector)))
        magnitude = spectra.abs()
        floor = _FLOOR * float(self.stft.size) / 2
        direction = spectra / magnitude.clamp(min=floor)
        return torch.cat([magnitude.clamp(min=floor).log(), direction.real, direction.imag], -1)

    def latents(self, signals: Tensor) -> Tensor:
        """Return the vectors (B, P, C) before quantization of waveforms (B, S), P = ceil(S / samples_per_vector)."""
        return self.leave(self.encoder(self.downsample(self.features(signals))))

    def decode_values(self, values: Tensor) -> Tensor:
        """Return waveforms (B, P samples_per_vector) of vectors (B, P, C)."""
        return self.head(self.upsample(self.decoder(values)))

    def stream(self) -> StreamingDecoder:
        """Return a decoder to which vectors or codes are given as they arrive."""
        return StreamingDecoder(self.decode_values, self.reach, self.samples_per_vector)


class StreamingDecoder:
    """Decodes vectors as they arrive; all chunks together are the waveform that decoding at once gives.

    A sample is given out when the `reach` vectors after it are there, and the `reach` vectors before it are kept.

    Args:
        decode_values: Waveforms (B, P L) of vectors (B, P, C).
        reach: Vectors on either side that a sample depends on.
        samples_per_vector: L.
    """

    def __init__(self, decode_values: Callable[[Tensor], Tensor], reach: int, samples_per_vector: int) -> None:
        self._decode, self._reach, self._samples = decode_values, reach, samples_per_vector
        self._vectors: Tensor | None = None
        self._given = 0

    def push(self, values: Tensor) -> Tensor:
        """Take vectors (B, P, C) and return the samples (B, .) that are ready, none at first."""
        self._vectors = values if self._vectors is None else torch.cat([self._vectors, values], 1)
        ready = self._vectors.shape[1] - self._reach
        if ready <= self._given:
            return values.new_zeros(len(values), 0)
        decoded = self._decode(self._vectors)[:, self._given * self._samples : ready * self._samples]
        behind = max(0, ready - self._reach)
        self._vectors, self._given = self._vectors[:, behind:], ready - behind
        return decoded

    def finish(self) -> Tensor:
        """Return the samples (B, .) that are left, and begin anew.

        Raises:
            CodecError: Nothing was pushed.
        """
        if self._vectors is None:
            raise CodecError("a stream was finished that no vectors were given to; push some first.")
        decoded = self._decode(self._vectors)[:, self._given * self._samples :]
        self._vectors, self._given = None, 0
        return decoded


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = SpeechCodec
