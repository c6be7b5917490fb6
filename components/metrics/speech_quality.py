"""How close reconstructed speech is to the original: spectra, pitch, waveform, intelligibility, voice.

Every measure takes one utterance, waveform and reference (S,) at 8 kHz in [-1, 1], of equal length, and gives a float.
Codecs that are not trained on waveforms lose the phase: their signal-to-distortion ratio is low although they sound
alike, while `mel_distance` and `stoi` do not hear phase.

Letters: `S` samples, `T` frames, `M` bands.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from components.audio.spectra import LogMelFrames
from components.errors import TesseraError

SAMPLE_RATE = 8_000
_CEPSTRA = 13
_NEPER_DECIBELS = 20 / math.log(10)
_PITCH_WINDOW, _PITCH_HOP = 320, 80
_LOWEST_HZ, _HIGHEST_HZ = 60, 400
_PERIODIC = 0.5  # least normalised autocorrelation of a voiced frame
_AUDIBLE = 1e-3  # least root mean square of a voiced frame
_SILENCE = 1e-10
_SHORTEST_STOI = 4_000  # samples: intelligibility compares stretches of 384 ms of speech


class SpeechQualityError(TesseraError):
    """Two waveforms cannot be compared."""


class PitchErrors(NamedTuple):
    """Errors of pitch.

    Attributes:
        cents: Root mean square over frames that are voiced in both, in cents; NaN where there is none.
        voicing: Share of frames that are voiced in one and not in the other.
    """

    cents: float
    voicing: float


def mel_distance(waveform: Tensor, reference: Tensor, frames: LogMelFrames) -> float:
    """Return the mean absolute difference of log-mel frames in dB: mean_tm 20 / ln 10 |y - x|."""
    one, other = _frames(waveform, reference, frames)
    return _NEPER_DECIBELS * float((one - other).abs().mean())


def mel_cepstral_distortion(waveform: Tensor, reference: Tensor, frames: LogMelFrames) -> float:
    """Return the mel cepstral distortion in dB, mean over frames.

        MCD = mean_t 20 / ln 10 sqrt(2 sum_k=1..13 (c_tk - c'_tk)^2),    c_tk = 1/M sum_m y_tm cos(pi k (m + 1/2) / M)

    y are log amplitudes, whose level c_t0 is left out: loudness does not count.

    Source: Kubichek 1993 (mel-cepstral distance measure for objective speech quality assessment).
    """
    one, other = _frames(waveform, reference, frames)
    bands = one.shape[-1]
    order = torch.arange(1, _CEPSTRA + 1, dtype=torch.float64).unsqueeze(1)
    cosines = torch.cos(math.pi * order * (torch.arange(bands, dtype=torch.float64) + 0.5) / bands) / bands
    cepstra = (one - other).cpu().double() @ cosines.t()
    return _NEPER_DECIBELS * float((2 * cepstra.square().sum(-1)).sqrt().mean())


def si_sdr(waveform: Tensor, reference: Tensor) -> float:
    """Return the scale-invariant signal-to-distortion ratio in dB.

        s = <y, x> / <x, x> x,      SI-SDR = 10 log10(|s|^2 / |y - s|^2),      x, y without their means

    Values are kept between -100 (silence, too) and 100 dB (a copy).

    Source: Le Roux et al. 2019 (SDR - half-baked or well done?).
    """
    waveform, reference = (each - each.mean() for each in _pair(waveform, reference))
    waveform, reference = (each / each.norm().clamp(min=_SILENCE) for each in (waveform, reference))
    target = (waveform @ reference) * reference
    ratio = target.square().sum().clamp(min=_SILENCE**2) / ((waveform - target).square().sum() + _SILENCE)
    return 10 * float(ratio.log10().clamp(-10, 10))


def stoi(waveform: Tensor, reference: Tensor) -> float:
    """Return the short-time objective intelligibility, up to 1; NaN for less than half a second.

    Source: Taal et al. 2011 (the package pystoi).
    """
    waveform, reference = _pair(waveform, reference)
    if len(waveform) < _SHORTEST_STOI:
        return math.nan
    # Resolved late: only evaluations of speech need the package.
    from pystoi import stoi as of_pystoi

    return float(of_pystoi(reference.numpy(), waveform.numpy(), SAMPLE_RATE, extended=False))


def pitch_errors(waveform: Tensor, reference: Tensor) -> PitchErrors:
    """Compare the pitch of two waveforms frame by frame."""
    one, other = (pitch(each.float()) for each in _pair(waveform, reference))
    both = (one > 0) & (other > 0)
    cents = 1_200 * (one[both] / other[both]).log2()
    return PitchErrors(
        float(cents.square().mean().sqrt()) if len(cents) else math.nan,
        float(((one > 0) != (other > 0)).double().mean()),
    )


def pitch(waveform: Tensor) -> Tensor:
    """Return the pitch of every frame in Hz, (T,), 0 where it is unvoiced.

        r(l) = sum_s x[s] x[s + l] / sqrt(sum_s x[s]^2 sum_s x[s + l]^2),      pitch = rate / argmax_l r(l)

    over frames of 40 ms and lags of 60 to 400 Hz; the first lag within 5% of the best is taken, and refined by the
    parabola through its neighbours. Frames that are quiet or have no r(l) above 1/2 are unvoiced.

    Source: Rabiner 1977 (on the use of autocorrelation analysis for pitch detection), normalised as by Talkin 1995.
    """
    least, most = SAMPLE_RATE // _HIGHEST_HZ, SAMPLE_RATE // _LOWEST_HZ
    size = _PITCH_WINDOW + most + 1
    if len(waveform) < size:
        return waveform.new_zeros(0)
    frames = waveform.double().unfold(0, size, _PITCH_HOP)
    frames = frames - frames.mean(1, keepdim=True)
    start = frames[:, :_PITCH_WINDOW]
    shifted = frames.unfold(1, _PITCH_WINDOW, 1)[:, least - 1 : most + 2]
    energy = start.square().sum(1)
    products = (shifted * start.unsqueeze(1)).sum(-1)
    correlation = products / (energy.unsqueeze(1) * shifted.square().sum(-1)).clamp(min=_SILENCE).sqrt()
    inner = correlation[:, 1:-1]
    peak = (inner >= correlation[:, :-2]) & (inner >= correlation[:, 2:])
    best = torch.where(peak, inner, 0.0).amax(1, keepdim=True)
    place = (peak & (inner >= 0.95 * best)).double().argmax(1)
    left, middle, right = (correlation.gather(1, (place + shift).unsqueeze(1)).squeeze(1) for shift in range(3))
    bend = (left - 2 * middle + right).clamp(max=-_SILENCE)
    offset = (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
    voiced = (best.squeeze(1) >= _PERIODIC) & ((energy / _PITCH_WINDOW).sqrt() >= _AUDIBLE)
    return torch.where(voiced, SAMPLE_RATE / (least + place + offset), 0.0)


def speaker_similarity(embeddings: Tensor, references: Tensor) -> Tensor:
    """Return the cosine of embeddings (..., D) of voices with those of the references (..., D), shape (...).

    Raises:
        SpeechQualityError: Shapes differ.
    """
    if embeddings.shape != references.shape:
        raise SpeechQualityError(
            f"embeddings {list(embeddings.shape)} and {list(references.shape)}; embed both with one network."
        )
    return torch.cosine_similarity(embeddings, references, dim=-1)


def _pair(waveform: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if waveform.dim() != 1 or waveform.shape != reference.shape or not len(waveform):
        raise SpeechQualityError(
            f"waveforms {list(waveform.shape)} and {list(reference.shape)}; expected two of one length (S,): cut the "
            "longer one."
        )
    return waveform.detach().cpu().double(), reference.detach().cpu().double()


def _frames(waveform: Tensor, reference: Tensor, frames: LogMelFrames) -> tuple[Tensor, Tensor]:
    _pair(waveform, reference)
    one, other = frames(torch.stack([waveform, reference]))
    return one, other
