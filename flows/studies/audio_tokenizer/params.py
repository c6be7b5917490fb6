"""Parameters and metrics of the study `audio-tokenizer`: speech through tokens and back, judged by what is heard.

Tokenizers and vocoders are bases; nothing is trained here. Papers with an experiment of their own extend these
parameters in their package.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

SETS = ("digits", "noisy", "held_out", "german", "czech")
"""What is resynthesised: connected digits; digits in noise; sentences of voices, and of languages, never heard."""


class TrainParams(StudyParams):
    """What a train stage of the study is given; arms that resynthesise speech have none."""

    strings: str = "fsdd-strings"
    """Data set of short strings of digits, for papers that train on tokens."""
    bands: int = Field(40, ge=2)
    """Mel channels of a frame."""


class EvaluateParams(TrainParams):
    """How an arm turns speech into tokens and back, and what it is tried on."""

    tokenizer: Literal["natural", "mel", "mel_bins", "codec", "units"] = "natural"
    """Nothing at all; continuous mel frames; binned ones; a neural codec; clusters of a speech encoder."""
    bits: int = Field(4, ge=1, le=8)
    """Bits of a mel channel."""
    mel_range: Literal["global", "percentile", "per_channel"] = "global"
    """Range of the levels: minimum and maximum of training frames, of all channels or of each; or inner percentiles."""
    outside: float = Field(0.005, gt=0, lt=0.5)
    """Share of training values below the range of percentiles, and as many above."""
    coarse: tuple[tuple[int, int], ...] = ()
    """Pairs of channels and bits at a slower rate, the better one on dev is used; none for the vocoder's own grid."""
    coarse_hop: int = Field(200, ge=80)
    """Samples between slower frames."""
    codebooks: int = Field(8, ge=1)
    """Codebooks of the codec that are used."""
    through_vocoder: bool = False
    """Whether what the codec decodes is rendered once more by the mel vocoder."""
    stream: tuple[int, int] = (3, 200)
    """Layer and number of clusters of the units."""
    sets: tuple[Literal["digits", "noisy", "held_out", "german", "czech"], ...] = SETS
    """What is resynthesised."""
    digits: int = Field(600, ge=2)
    """Test strings of connected digits."""
    noisy: int = Field(200, ge=2)
    """The first of them that are tried in noise, too."""
    held_out: int = Field(400, ge=2)
    """Sentences of voices that no network heard."""
    sentences_per_language: int = Field(40, ge=2)
    """Sentences of each language that no network heard."""
    dev: int = Field(60, ge=2)
    """Strings of dev on which a choice is made."""
    noise_decibels: float = 10.0
    """Ratio of speech to noise."""
    range_utterances: int = Field(400, ge=1)
    """Training utterances of each data set that ranges are taken from."""
    enrolled: int = Field(20, ge=1)
    """Training utterances of each speaker that the speaker's mean vector is made of."""
    example_seconds: float = Field(2.0, gt=0, le=2)
    """Length of an example that is kept to be heard."""

    @model_validator(mode="after")
    def _fits(self) -> EvaluateParams:
        if self.noisy > self.digits:
            raise ValueError(f"noisy is {self.noisy}, but there are {self.digits} digits; expected at most as many.")
        if strange := [pair for pair in self.coarse if self.bands % pair[0]]:
            raise ValueError(f"coarse has {strange[0][0]} channels, which do not divide the {self.bands} bands.")
        return self


_SET = "`set` is digits, noisy (10 dB), held_out (voices never heard), ood (the two together), german or czech."
METRICS = {
    "wer": Metric(
        "percent",
        "lower",
        "Word error rate of the judge on what is heard after the tokens: edits over words of all of them, one row "
        f"for each utterance, whose mean is the rate. {_SET}",
    ),
    "mel_distance": Metric("dB", "lower", f"Mean absolute difference of log-mel frames from the original. {_SET}"),
    "stoi": Metric("", "higher", f"Short-time objective intelligibility against the original, up to 1. {_SET}"),
    "speaker_similarity": Metric("cosine", "higher", f"Of the speaker judge's vectors of both. {_SET}"),
    "speaker_accuracy": Metric(
        "percent",
        "higher",
        "Share of utterances nearest to the mean vector of their own speaker, of six. `set` as above.",
    ),
    "bit_rate": Metric("bits/s", "lower", "Bits of the tokens, each symbol of a codebook costing the same."),
    "coded_rate": Metric(
        "bits/s",
        "lower",
        "Bits that an adaptive range coder needs for the tokens of the digits; levels follow the frame before.",
    ),
    "plain_coded_rate": Metric("bits/s", "lower", "The same without looking at the frame before."),
    "worst_error": Metric(
        "steps", "lower", "Largest error of a decoded value inside the range, in steps of its channel."
    ),
    "outside_share": Metric("share", "lower", "Share of the values outside the range, which are clipped."),
    "chosen_channels": Metric("channels", "neither", "Channels that were the better choice on dev."),
}

MEL_VOCODER, CODEC, UNIT_VOCODER, UNITS = "mel-vocoder", "codec-base", "unit-vocoder", "speech-units"
JUDGE, SPEAKER_JUDGE = "ctc-judge", "speaker-judge"


def base_name(base: str, seed: int) -> str:
    """Return the base of a seed: `base` for seed 0, `base-s<seed>` for the others."""
    return f"{base}-s{seed}" if seed else base


def resynthesis_components(params: EvaluateParams) -> tuple[str, ...]:
    """Return the modules that resynthesis chooses by name: those of the bases it loads."""
    judges = ("components.speech.recogniser", "components.speech.speaker")
    vocoder = ("components.audio.mel_vocoder",)
    codec = ("components.tokenizers.audio.codec", "components.quantizers.rvq")
    own = {
        "natural": (),
        "mel": vocoder,
        "mel_bins": vocoder,
        "codec": codec + (vocoder if params.through_vocoder else ()),
        "units": (
            "components.tokenizers.audio.ssl_kmeans",
            "components.speech.ssl_encoder",
            "components.speech.unit_vocoder",
            *vocoder,
        ),
    }
    return judges + own[params.tokenizer]


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    return resynthesis_components(params) if isinstance(params, EvaluateParams) else ()
