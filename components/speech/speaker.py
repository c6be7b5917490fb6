"""A vector for who speaks: dilated convolutions over log-mel frames, mean and deviation over time, a linear map.

Letters: `B` utterances, `S` samples, `F` frames, `M` mel bands, `D` width of the vector, `C` speakers.

Sources: Snyder et al. 2018, "X-Vectors: Robust DNN Embeddings for Speaker Recognition", section 2 (frame layers and
statistics pooling); Wang et al. 2018, "Additive Margin Softmax for Face Verification", equation 6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.audio.spectra import LogMelFrames
from components.errors import TesseraError
from components.quantizers.precision import without_autocast

_LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1))  # kernel, dilation
_VARIANCE_FLOOR = 1e-5


class SpeakerError(TesseraError):
    """A speaker encoder was set up in a way that has no meaning."""


class SpeakerEncoder(nn.Module):
    """See the module.

    Args:
        sample_rate: Hz.
        bands: M.
        channels: Of the convolutions.
        width: D.
    """

    def __init__(self, *, sample_rate: int = 8_000, bands: int = 40, channels: int = 128, width: int = 64) -> None:
        super().__init__()
        self.width = width
        self.mel = LogMelFrames(sample_rate=sample_rate, bands=bands)
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(channels if layer else bands, channels, kernel, padding="same", dilation=dilation)
            for layer, (kernel, dilation) in enumerate(_LAYERS)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in _LAYERS)
        self.output = nn.Linear(2 * channels, width)

    @torch.no_grad()
    def fit_scale(self, waveform: Tensor, samples: Tensor) -> None:
        """Take mean and deviation of every band from utterances (B, S) of the training set with their samples (B,)."""
        spectra, inside = self.mel(waveform), self._inside(samples, waveform)
        kept = spectra[inside]
        self.mean.copy_(kept.mean(0))
        self.deviation.copy_(kept.std(0).clamp(min=1e-3))

    def forward(self, waveform: Tensor, samples: Tensor) -> Tensor:
        """Return vectors (B, D) of utterances (B, S) with their samples (B,); their cosine says how alike they are."""
        inside = self._inside(samples, waveform)[..., None]
        with without_autocast(waveform.device):
            hidden = ((self.mel(waveform) - self.mean) / self.deviation).masked_fill(~inside, 0.0)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.relu(norm(convolution(hidden.transpose(1, 2)).transpose(1, 2))).masked_fill(~inside, 0.0)
        return self.output(pooled_statistics(hidden, inside))

    def _inside(self, samples: Tensor, waveform: Tensor) -> Tensor:
        frames = (samples + self.mel.hop - 1) // self.mel.hop
        count = -(-waveform.shape[1] // self.mel.hop)
        return torch.arange(count, device=waveform.device) < frames[:, None]


def pooled_statistics(hidden: Tensor, inside: Tensor) -> Tensor:
    """Return mean and standard deviation over the frames inside, side by side, (B, 2 D).

    Args:
        hidden: (B, F, D).
        inside: Which frames count, bool (B, F, 1).
    """
    hidden = hidden.float()
    count = inside.sum(1).clamp(min=1)
    mean = (hidden * inside).sum(1) / count
    variance = ((hidden - mean[:, None]).square() * inside).sum(1) / count
    return torch.cat([mean, variance.clamp(min=_VARIANCE_FLOOR).sqrt()], 1)


class AdditiveMarginSoftmax(nn.Module):
    """Cross entropy over cosines, the right one made smaller by a margin.

        L = -ln exp(s (cos_y - m)) / (exp(s (cos_y - m)) + sum_{j != y} exp(s cos_j))

    Args:
        width: D.
        speakers: C.
        scale: s.
        margin: m.
    """

    def __init__(self, width: int, speakers: int, *, scale: float = 20.0, margin: float = 0.2) -> None:
        super().__init__()
        if speakers < 2:
            raise SpeakerError(f"There are {speakers} speakers; expected at least 2 to tell apart.")
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(torch.randn(speakers, width) * width**-0.5)

    def cosines(self, vectors: Tensor) -> Tensor:
        """Return the cosine of every vector (B, D) to every speaker, (B, C)."""
        return F.linear(F.normalize(vectors.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))

    def forward(self, vectors: Tensor, speakers: Tensor) -> Tensor:
        """Return the mean loss, nats, of vectors (B, D) and their speakers, int64 (B,)."""
        cosines = self.cosines(vectors)
        margin = self.margin * F.one_hot(speakers, cosines.shape[1])
        return F.cross_entropy(self.scale * (cosines - margin), speakers)


# A base describes its model by this module.
build = SpeakerEncoder
