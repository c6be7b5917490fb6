"""Parameters and metrics of the survey's codec of spoken digits, beyond those of the quantizers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class SpeechTrainParams(StudyParams):
    """How the codec of log-mel blocks is built and trained."""

    speech_dataset: Literal["fsdd"] = "fsdd"
    """Data set of recordings at 8 kHz."""
    bands: int = Field(40, ge=1)
    """Mel bands of a frame."""
    hop: int = Field(80, ge=1)
    """Samples between frames."""
    block_frames: int = Field(4, ge=1)
    """Frames that one code stands for."""
    hidden_width: int = Field(128, ge=1)
    """Hidden units of each layer of the speech codec's encoder and decoder."""
    train_recordings: int = Field(2_700, ge=1)
    """Recordings to learn from, spread over the training split; fewer where there are not as many."""
    start_blocks: int = Field(0, ge=0)
    """Training blocks whose vectors the codebooks start from by k-means; 0 leaves them where they were drawn."""


class SpeechEvaluateParams(StudyParams):
    """How the codec of log-mel blocks is tested."""

    speech_control: Literal["", "mean_frame"] = ""
    """What an arm without a model shows: the mean of all training frames, everywhere."""
    test_recordings: int = Field(300, ge=2)
    """Recordings of the test split; fewer where there are not as many."""
    sample_recordings: int = Field(1, ge=0)
    """Recordings whose spectra are kept for the figure."""


SPEECH_METRICS = {
    "lsd": Metric("dB", "lower", "Log-spectral distance of decoded mel spectra, mean over the frames of a recording."),
    "block_bits": Metric("bits", "lower", "Nominal bits of the code of one block of frames."),
    "block_entropy": Metric(
        "bits", "neither", "Entropy of the codes of the test blocks; at most log2 of the number of blocks."
    ),
    "index_usage": Metric(
        "share", "higher", "Share of the values of an index (or of a dimension, for levels and signs) that occur."
    ),
    "index_perplexity": Metric(
        "share", "higher", "2^entropy of an index (or dimension) over the number of its values, mean over indices."
    ),
    "latent_error": Metric(
        "", "lower", "Squared distance of latents from their codes, one codebook after the other or chosen jointly."
    ),
}


def speech_modules() -> tuple[str, ...]:
    """Return the modules of components that a speech arm imports by name, apart from its quantizer's."""
    return ("components.tokenizers.audio.mel_blocks",)
