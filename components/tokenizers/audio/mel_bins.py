"""Speech tokens without training: every mel channel of every frame, rounded to one of a few evenly spaced levels.

    delta = (upper - lower) / (2^K - 1),   C_i = lower + i delta,   S = argmin_i |M - C_i|,   M' = C_S

Inside [lower, upper] a decoded value is at most delta / 2 away; what lies outside is clipped first. A frame is N small
integers; beginning, end and padding are whole frames of ids behind the levels.

Letters: `F` frames, `N` mel channels, `K` bits of a channel, `Q` values that a range is taken from.

Source: Bai et al. 2024, "dMel: Speech Tokenization made Simple", section 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.errors import TesseraError

_SPECIALS = ("padding", "begin", "end")
_QUANTILE_VALUES = 1 << 24  # most values that torch.quantile takes


class MelBinsError(TesseraError):
    """Bins were set up, or given spectra or indices, that they cannot work with."""


class MelBins(nn.Module):
    """Levels of log-mel values, one range for all channels or one for each.

    Args:
        bands: N.
        bits: K.
        lower: Value of the lowest level, in the unit of the spectra.
        upper: Value of the highest level.

    Attributes:
        codebook_size: 2^K levels of a channel, special ids not counted.
        padding: Id, in every channel, of a frame that is not there.
        begin: Id, in every channel, of the frame before the first.
        end: Id, in every channel, of the frame after the last.
    """

    def __init__(self, *, bands: int = 40, bits: int = 4, lower: float = -7.0, upper: float = 2.0) -> None:
        super().__init__()
        if bits < 1 or bands < 1:
            raise MelBinsError(f"bands is {bands}, bits is {bits}; expected at least 1 of each.")
        self.bands, self.bits = bands, bits
        self.codebook_size = 2**bits
        self.padding, self.begin, self.end = range(self.codebook_size, self.codebook_size + len(_SPECIALS))
        # Float64: the quotient decides on which side of a half a value lies.
        self.register_buffer("lower", torch.full((bands,), lower, dtype=torch.float64))
        self.register_buffer("upper", torch.full((bands,), upper, dtype=torch.float64))
        self._check_range()

    @property
    def vocabulary_size(self) -> int:
        """Ids of a channel: levels and special frames."""
        return self.codebook_size + len(_SPECIALS)

    @property
    def bits_per_frame(self) -> int:
        """N K, before entropy coding."""
        return self.bands * self.bits

    @property
    def step(self) -> Tensor:
        """delta of each channel, (N,)."""
        return (self.upper - self.lower) / (self.codebook_size - 1)

    @torch.no_grad()
    def fit_range(self, spectra: Tensor, *, outside: float = 0.0, per_channel: bool = False) -> None:
        """Take the range from training spectra.

        Args:
            spectra: (..., N).
            outside: Share of the values below the lowest level, and as many above the highest; 0 for the minimum and
                the maximum.
            per_channel: One range for each channel.

        Raises:
            MelBinsError: All values of a range are the same.
        """
        values = self._checked(spectra).reshape(-1, self.bands).double()
        if outside == 0:
            low, high = values.amin(0), values.amax(0)
            if not per_channel:
                low, high = low.min().expand(self.bands), high.max().expand(self.bands)
        else:
            values = values if per_channel else values.reshape(-1, 1)
            # The library's limit: of more values every so-manyth is taken.
            values = values[:: -(-len(values) // _QUANTILE_VALUES)]
            low, high = (values.quantile(share, 0).expand(self.bands) for share in (outside, 1 - outside))
        self.lower.copy_(low)
        self.upper.copy_(high)
        self._check_range()

    @torch.no_grad()
    def encode(self, spectra: Tensor) -> Tensor:
        """Return levels (..., F, N), int64, of spectra (..., F, N); halfway between two the lower one."""
        clipped = torch.minimum(torch.maximum(self._checked(spectra).double(), self.lower), self.upper)
        return ((clipped - self.lower) / self.step - 0.5).ceil().long().clamp(0, self.codebook_size - 1)

    def decode(self, indices: Tensor) -> Tensor:
        """Return spectra (..., F, N) of levels (..., F, N).

        Raises:
            MelBinsError: An index is no level; cut special frames off first. Checked on the CPU only.
        """
        self._checked(indices)
        if indices.device.type == "cpu" and indices.numel():
            least, most = int(indices.min()), int(indices.max())
            if least < 0 or most >= self.codebook_size:
                raise MelBinsError(
                    f"Indices {least} to {most}; expected 0 to {self.codebook_size - 1}. Cut special frames off."
                )
        return (self.lower + indices * self.step).float()

    def _checked(self, frames: Tensor) -> Tensor:
        if not frames.dim() or frames.shape[-1] != self.bands:
            raise MelBinsError(f"frames {list(frames.shape)}; expected (..., {self.bands}).")
        return frames

    def _check_range(self) -> None:
        if not bool((self.lower < self.upper).all()):
            raise MelBinsError(
                f"The range is {float(self.lower[0]):g} to {float(self.upper[0]):g} in channel 0; expected lower < "
                "upper in every channel."
            )


# A study names this module in its parameters and calls `build` with those of its fields that the signature names.
build = MelBins
