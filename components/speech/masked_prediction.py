"""Masked prediction of units: spans of frames are hidden, and their cluster is predicted from what is around.

    p(c | h) = softmax_c(cos(A h, e_c) / tau),      L = -mean over masked frames of ln p(z_t | h_t)

Frames that are not masked do not count: predicting what one sees teaches to copy.

Letters: `B` utterances, `T` frames, `D` width, `E` width of a code's vector, `K` codes.

Source: Hsu et al. 2021, "HuBERT", sections II-B and II-C (loss on masked frames only, cosine scores); spans: Baevski et
al. 2020, "wav2vec 2.0", section 3.1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError


class MaskingError(TesseraError):
    """Spans were asked for that have no meaning."""


def span_mask(frames: Tensor, size: int, *, start: float, span: int, generator: torch.Generator) -> Tensor:
    """Draw which frames are hidden, bool (B, T): every frame starts a span with probability `start`.

    Spans overlap, and end with the utterance. An utterance that no span would hit gets one that starts anywhere, so
    that every utterance is learned from.

    Args:
        frames: Frames of each utterance, int64 (B,).
        size: T.
        start: Probability of a start.
        span: Frames of a span.
        generator: On the device of `frames`.

    Raises:
        MaskingError: The probability or the span is out of range.
    """
    if not 0 < start <= 1 or span < 1:
        raise MaskingError(f"start is {start}, span {span}; expected a probability above 0 and at least one frame.")
    draws = torch.rand(len(frames), size + 1, generator=generator, device=frames.device)
    places = torch.arange(size, device=frames.device)
    inside = places < frames[:, None]
    starts = (draws[:, :size] < start) & inside
    fallback = (draws[:, size] * frames).long()
    starts |= ~starts.any(1, keepdim=True) & (places == fallback[:, None]) & inside
    # A frame is hidden where a span started at most `span - 1` frames before.
    reached = F.max_pool1d(F.pad(starts.float(), (span - 1, 0))[:, None], span, stride=1)[:, 0] > 0
    return reached & inside


class MaskedUnitHead(nn.Module):
    """Cosine scores of frames to the codes; see the module.

    Args:
        width: D.
        codes: K.
        code_width: E.
        temperature: tau.
    """

    def __init__(self, width: int, codes: int, *, code_width: int = 64, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.projection = nn.Linear(width, code_width)
        self.codes = nn.Parameter(torch.randn(codes, code_width) * code_width**-0.5)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores (..., K) of frames (..., D)."""
        projected = F.normalize(self.projection(hidden).float(), dim=-1)
        return projected @ F.normalize(self.codes.float(), dim=-1).t() / self.temperature

    def forward(self, hidden: Tensor, units: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss over masked frames, nats, and the share of them that is predicted right.

        Args:
            hidden: (B, T, D).
            units: int64 (B, T); any number where a frame is not masked.
            masked: bool (B, T).
        """
        logits = self.logits(hidden)
        counted = masked.float()
        total = counted.sum().clamp(min=1)
        units = torch.where(masked, units, 0)
        nats = -logits.log_softmax(-1).gather(-1, units[..., None])[..., 0]
        right = (logits.argmax(-1) == units).float()
        return (nats * counted).sum() / total, (right * counted).sum() / total
