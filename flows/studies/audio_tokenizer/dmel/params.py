"""Parameters and metrics of dMel: tokens without training, in resynthesis and in one network for text and speech."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.studies.audio_tokenizer import params as study


class TrainParams(study.TrainParams):
    """How a network of text and speech is trained; arms that resynthesise train nothing."""

    task: Literal["resynthesis", "recognition", "synthesis", "speed"] = "resynthesis"
    """Speech through tokens and back; speech to text; text to speech; or the time that synthesis takes."""
    tokens: Literal["mel_bins", "codec", "units"] = "mel_bins"
    """What a network reads or writes."""
    lm_bits: int = Field(4, ge=1, le=8)
    """Bits of a mel channel."""
    lm_hop: int = Field(200, ge=80)
    """Samples between frames of mel channels."""
    lm_codebooks: int = Field(2, ge=1)
    """Codebooks of the codec, whose tables are summed."""
    lm_stream: tuple[int, int] = (3, 200)
    """Layer and number of clusters of the units."""
    width: int = Field(96, ge=4)
    """Channels of the network."""
    layers: int = Field(3, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    channel_width: int = Field(8, ge=1)
    """Width of an entry of the table that all mel channels share."""
    group_size: int = Field(0, ge=0)
    """Mel channels that are predicted together, group after group; 0 for all of them in parallel."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of attention weights and of residual updates dropped in training."""
    steps: int = Field(1_200, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=1)
    """Strings per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    history_share: float = Field(0.35, ge=0, lt=1)
    """Synthesis: share of the history's frames that are hidden in training."""
    history_span: int = Field(4, ge=1)
    """Synthesis: frames of a hidden span."""
    read_share: float = Field(0.1, ge=0, lt=1)
    """Recognition: share of the frames that are hidden in training."""
    read_span: int = Field(5, ge=1)
    """Recognition: frames of a hidden span."""
    read_bands: int = Field(8, ge=0)
    """Recognition from mel channels: most neighbouring channels that are hidden in training."""
    train_strings: int = Field(100_000, ge=1)
    """Most training strings."""

    @model_validator(mode="after")
    def _divides(self) -> TrainParams:
        if self.group_size and (self.tokens != "mel_bins" or self.bands % self.group_size):
            raise ValueError(
                f"group_size is {self.group_size}: groups are for mel_bins and divide the {self.bands} bands."
            )
        return self


class EvaluateParams(TrainParams, study.EvaluateParams):
    """What a trained network is tried on, or how an arm resynthesises."""

    test_strings: int = Field(600, ge=2)
    """Test strings that are read."""
    spoken_strings: int = Field(400, ge=2)
    """Test strings whose texts are spoken; fewer where there are not as many."""
    temperature: float = Field(0.8, ge=0)
    """Of drawing the channels of a frame."""
    longest_seconds: float = Field(3.0, gt=0)
    """Longest spoken string."""
    generated_together: int = Field(100, ge=1)
    """Strings that are spoken side by side."""
    timed_frames: int = Field(120, ge=4)
    """Frames of one timed utterance."""
    timed_runs: int = Field(5, ge=1)
    """Timed utterances of each decoder, in turn; the median counts."""


METRICS = {
    "asr_wer": Metric(
        "percent",
        "lower",
        "Word error rate of the network's text of test strings, one row for each string, whose mean is the rate; "
        "`speech` is own, or other: the speech of another string.",
    ),
    "tts_wer": Metric(
        "percent",
        "lower",
        "Word error rate of the judge on what the network speaks, rows as above; `text` is given, or removed.",
    ),
    "ceiling_wer": Metric("percent", "lower", "The same for natural tokens, rendered in the same way."),
    "generated_seconds": Metric("s", "neither", "Length of a spoken string."),
    "generated_speaker_accuracy": Metric(
        "percent",
        "higher",
        "Share of spoken strings nearest to the mean vector of the speaker that the network was told.",
    ),
    "token_rate": Metric("tokens/s", "lower", "Places in the network's sequence that a second of speech takes."),
    "frames_per_second": Metric(
        "frames/s",
        "higher",
        "Frames drawn in a second at batch 1 with caches, median of runs; `decoder` is parallel or groups.",
    ),
}

MODEL = "components.audio.parallel_channel_lm"
_TOKENS = {
    "mel_bins": (),
    "codec": ("components.tokenizers.audio.codec", "components.quantizers.rvq"),
    "units": ("components.tokenizers.audio.ssl_kmeans", "components.speech.ssl_encoder"),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    if params.task == "speed":
        return (MODEL,)
    if params.task == "resynthesis":
        return study.resynthesis_components(params) if isinstance(params, EvaluateParams) else ()
    own = (MODEL, *_TOKENS[params.tokens])
    if kind == "train":
        return own
    judges = ("components.speech.recogniser", "components.speech.speaker")
    rendering = ("components.audio.mel_vocoder", "components.speech.unit_vocoder")
    return tuple(dict.fromkeys((*own, *judges, *(rendering if params.task == "synthesis" else ()))))
