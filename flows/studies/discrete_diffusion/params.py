"""Parameters and metrics of the study `discrete-diffusion`: sequences written by denoising discrete tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What a conditional denoiser is trained on, and how."""

    task: Literal["paraphrase", "translation"] = "paraphrase"
    """Another caption of the same scene of shapes, or German to English."""
    base: str = ""
    """Translator whose tokens are used, and whose network is decoded where an arm is not trained, without its seed:
    those of further seeds are named with -s1, -s2."""
    pairs: int = Field(20_000, ge=1)
    """Training pairs of the paraphrase task."""
    objective: Literal["reparameterized", "divergence", "mask_predict", "causal"] = "reparameterized"
    """Weighted cross entropy on noisy tokens; KL of the posteriors; cross entropy on a uniform number of masks, or of
    the next token."""
    noise: Literal["absorbing", "uniform"] = "absorbing"
    """The mask, or any word."""
    schedule: Literal["linear", "cosine"] = "linear"
    """Share of clean tokens over time."""
    diffusion_steps: int = Field(50, ge=1)
    """T, steps of the process in training."""
    weighting: Literal["variational", "linear", "constant"] = "linear"
    """Weight of a step in the reparameterized loss: that of the bound, 1 - (t - 1)/T, or 1."""
    coupled: bool = False
    """Two times of each item, the earlier one drawn from the later one; twice as many rows as items."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Of every cross entropy."""
    width: int = Field(80, ge=4)
    """Channels of a token."""
    encoder_layers: int = Field(2, ge=1)
    """Blocks of the encoder."""
    decoder_layers: int = Field(2, ge=1)
    """Blocks of the decoder."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    feed_forward: int = Field(160, ge=4)
    """Hidden channels of the MLPs."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of attention weights and of residual updates dropped in training."""
    context: int = Field(16, ge=4)
    """Most tokens of a source and of a target."""
    batch: int = Field(32, ge=1)
    """Items of a step."""
    steps: int = Field(4000, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(200, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of matrices."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay of the average of the weights that is decoded with."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}.")
        if self.coupled and self.objective != "reparameterized":
            raise ValueError(f"coupled is only for objective: reparameterized, not {self.objective}.")
        if self.base and self.task != "translation":
            raise ValueError(f"base {self.base!r} is a translator; it needs task: translation, not {self.task}.")
        if self.objective == "divergence" and self.noise == "absorbing":
            raise ValueError("the divergence with masks is the reparameterized loss with weighting: variational.")
        return self


class EvaluateParams(TrainParams):
    """How an arm decodes, and what is measured."""

    decoder: Literal["routed", "ancestral", "mask_predict", "left_to_right"] = "routed"
    """Confidence routing, the coins of the posterior, masks predicted again, or one token after the other."""
    decode_steps: tuple[int, ...] = (2, 4, 8, 14)
    """Numbers of steps M."""
    decays: tuple[Literal["linear", "cosine"], ...] = ("linear", "cosine")
    """Candidates for how many tokens stay noise; the better one on validation inputs is taken for each M."""
    offsets: tuple[int, ...] = (0, 5, 10)
    """Candidates for how far the coins of the posterior run ahead, in steps of T; chosen in the same way."""
    conditional: bool = False
    """A clean token becomes noise again only where its own prediction is less sure than when it was written."""
    randomness: float = Field(0.0, ge=0)
    """Gumbel noise on confidences before they are ranked."""
    ablation: bool = False
    """Also measure every combination of rule, decay and randomness (0 or 1) at 4 and 8 steps."""
    inputs: int = Field(512, ge=2)
    """Test inputs."""
    validation_inputs: int = Field(256, ge=2)
    """Inputs on which a decoder's candidates are chosen."""
    sampled_steps: tuple[int, ...] = (8,)
    """Numbers of steps at which predictions are also drawn at temperature 1."""
    length_beam: int = Field(5, ge=1)
    """Lengths decoded at once for the row with predicted lengths."""
    bound_draws: int = Field(8, ge=2)
    """Draws of the likelihood bound for each test input, in each of two repeats."""


METRICS: dict[str, Metric] = {
    "validity": Metric(
        "share", "higher", "Outputs that parse as a caption and say what the source says, target length given."
    ),
    "validity_sampled": Metric("share", "higher", "Validity with predictions drawn at temperature 1."),
    "validity_predicted_length": Metric("share", "higher", "Validity with the best of five predicted lengths."),
    "validity_wrong_source": Metric(
        "share", "neither", "Validity for the source that another input was given: chance."
    ),
    "source_margin": Metric("share", "higher", "Validity minus 20 times the validity with the wrong source."),
    "validity_ablation": Metric("share", "higher", "Validity of one combination of rule, decay and randomness."),
    "grammatical": Metric("share", "higher", "Outputs that parse as a caption, whatever they say."),
    "bleu": Metric(
        "percent", "higher", "Corpus BLEU-4 of lower-cased words, target length given; rows of a jackknife."
    ),
    "bleu_wrong_source": Metric("percent", "neither", "The same with another sentence's source."),
    "chrf": Metric("percent", "higher", "Corpus chrF2; rows of a jackknife over sentences."),
    "distinct_bigrams": Metric("share", "higher", "Different bigrams over all bigrams of all outputs."),
    "repeated_bigrams": Metric("share", "lower", "Bigrams of the same token twice."),
    "network_calls": Metric("calls", "lower", "Network evaluations that an output took part in."),
    "positions_computed": Metric("positions", "lower", "Positions whose prediction was computed, over all calls."),
    "chosen_offset": Metric("steps", "neither", "How far the coins run ahead, chosen on validation inputs."),
    "chosen_cosine": Metric("", "neither", "1 where the cosine was chosen on validation inputs, 0 where the line was."),
    "bound": Metric("nats/token", "lower", "Bound of the negative log-likelihood of targets, masks of uniform number."),
    "bound_error": Metric("nats/token", "lower", "Standard error that the random masks leave in the bound."),
    "validity_of_better": Metric(
        "share", "higher", "Larger validity of the two arms that differ in the weight, of a seed."
    ),
    "weight_gain_size": Metric("share", "higher", "Size of the mean difference between the two weights."),
    "routing_gap_closing": Metric("percent", "higher", "Gain in BLEU by routing at 2 steps minus that at 16."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm's network is built from by name."""
    return ("components.diffusion.sequence_denoiser",)
