"""Parameters and metrics of block diffusion with an encoder: networks of several depths, what they cost and give."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams

BLOCK_NETWORKS = "components.nn.encoder_decoder_block"
CAUSAL_NETWORK = "components.language.causal_lm"
JUDGE_TOKENIZER = "components.tokenizers.text.bpe"
TIMED = r"^(encoder_decoder-\d+-\d+|shared_keys-\d+-\d+|decoder_only-\d+)$"
"""A network and its numbers of layers."""


class TrainParams(StudyParams):
    """Which network is trained on what, and how."""

    task: Literal["characters", "captions"] = "characters"
    """Windows of a text, character by character, or another caption of the same scene of shapes."""
    network: Literal["encoder_decoder", "shared_keys", "decoder_only", "bidirectional", "causal"] = "encoder_decoder"
    """Encoder and decoder; one stack whose top layers denoise; one stack whose layers all denoise, in blocks or all at
    once; or one that predicts the next token."""
    encoder_layers: int = Field(6, ge=1)
    """Layers that read clean tokens; of one stack, all its layers."""
    decoder_layers: int = Field(2, ge=1)
    """Layers that denoise, of an encoder-decoder or of shared keys."""
    width: int = Field(96, ge=4)
    """Channels of a token."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    feed_forward: int = Field(256, ge=4)
    """Hidden channels of the MLPs."""
    norm: Literal["layer", "rms"] = "layer"
    """Norm before every part of a layer."""
    activation: Literal["gelu", "swiglu"] = "gelu"
    """Of the MLPs."""
    bias: bool = True
    """Whether linear layers have biases."""
    tied_output: bool = False
    """Whether the output matrix is the embedding."""
    block: int = Field(8, ge=1)
    """S, tokens of a block; all tokens are one where the network is bidirectional."""
    length: int = Field(64, ge=2)
    """N, tokens that are predicted; captions are filled up with the end token."""
    prompt: int = Field(1, ge=1)
    """P, clean tokens in front: the start of a text, or a caption filled up with the end token."""
    words: int = Field(0, ge=0)
    """Size of a vocabulary that is given (at full scale); 0 takes that of the data set."""
    pairs: int = Field(20_000, ge=1)
    """Training pairs of captions."""
    batch: int = Field(16, ge=1)
    """Sequences of a step."""
    steps: int = Field(1500, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, cosine decay to a tenth."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of matrices."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        if self.width % self.heads or self.width // self.heads % 2:
            raise ValueError(f"width {self.width} gives {self.heads} heads no even number of channels.")
        if self.network != "causal" and self.length % self.block_size:
            raise ValueError(f"blocks of {self.block_size} tokens do not divide a length of {self.length}.")
        if self.network == "shared_keys" and self.decoder_layers > self.encoder_layers:
            raise ValueError(f"{self.decoder_layers} of {self.encoder_layers} layers cannot denoise.")
        return self

    @property
    def block_size(self) -> int:
        """S as the network has it."""
        return self.length if self.network == "bidirectional" else self.block


class EvaluateParams(TrainParams):
    """What is measured of a trained network, or of the speed of several."""

    measure: Literal["model", "speed"] = "model"
    """A trained network, or the seconds that untrained ones of the same sizes need (the node must be free of other
    work)."""
    test_windows: int = Field(768, ge=2)
    """Windows of the test text, or test pairs of captions."""
    bound_over: Literal["count", "time"] = "count"
    """Whether the bound draws the number of masks of a block, or its time."""
    bound_draw: Literal["uniform", "antithetic", "stratified"] = "stratified"
    """How the draws of a bound share the unit interval."""
    bound_draws: int = Field(8, ge=1)
    """Draws of the bound in each repeat; with S strata every number of masks comes once."""
    bound_repeats: int = Field(2, ge=2)
    """Repeats, from which the variance of the bound is taken."""
    steps_per_block: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of denoising steps of a block, T, at which is sampled."""
    thresholds: tuple[float, ...] = (0.5, 0.9)
    """Probabilities above which tokens are written at once, instead of an equal share in each step."""
    samples: int = Field(256, ge=2)
    """Texts that are written at each setting; captions are written for every test pair."""
    temperature: float = Field(1.0, ge=0)
    """Of texts written for the judge; captions are the likeliest ones (0)."""
    timed: tuple[Annotated[str, Field(pattern=TIMED)], ...] = (
        "encoder_decoder-6-2",
        "decoder_only-8",
        "decoder_only-3",
        "decoder_only-2",
    )
    """Networks whose speed is measured, side by side: kind and numbers of layers."""
    timed_sequences: int = Field(64, ge=1)
    """Sequences sampled at once when speed is measured."""
    timed_steps: int = Field(30, ge=1)
    """Training steps whose median is taken."""
    timed_samplings: int = Field(5, ge=1)
    """Samplings whose median is taken."""


METRICS: dict[str, Metric] = {
    "nll_bound": Metric(
        "nats/token",
        "lower",
        "Bound of -ln p per predicted token (character of a text): number of masks of each block drawn, weighted "
        "S / j; exact for autoregression. One value per window.",
    ),
    "bits_per_byte": Metric("bits/byte", "lower", "The same in bits; every character of the text is one byte."),
    "bound_variance": Metric(
        "nats^2/token^2", "lower", "Variance of the mean bound that comes from its random masks, from its repeats."
    ),
    "below_unigram": Metric(
        "nats/token", "higher", "-ln p of the window's characters by their counts in training, minus the bound."
    ),
    "context_gain": Metric(
        "nats/token", "higher", "Bound with the preceding blocks of another window, minus the bound with the own ones."
    ),
    "unigram_nats": Metric("nats/token", "lower", "-ln p of the windows by counts of training characters."),
    "bigram_nats": Metric("nats/token", "lower", "-ln p of the windows by counts of pairs of training characters."),
    "parameters": Metric("parameters", "neither", "Numbers that are trained."),
    "training_flops": Metric(
        "FLOPs/step", "lower", "Matrix multiplications of a training step, forward and backward, by formula."
    ),
    "flops_deviation": Metric("", "lower", "|training_flops over torch's count of the same step, minus 1|."),
    "training_token_layers": Metric(
        "token-layers/token", "lower", "Layers that a token passes in a training step, over clean and noisy copies."
    ),
    "sampling_token_layers": Metric(
        "token-layers/token", "lower", "Layers that tokens pass in sampling at T = S, for each token written."
    ),
    "sampling_flops": Metric(
        "FLOPs/token", "lower", "Matrix multiplications for each token written, cached sampling, by formula."
    ),
    "network_evaluations": Metric(
        "calls/token", "lower", "Denoising calls that a sequence takes part in, for each token written."
    ),
    "reading_calls": Metric("calls", "neither", "Calls of the reading pass in one sampling, the prompt's included."),
    "denoising_calls": Metric("calls", "neither", "Calls of the denoising pass in one sampling."),
    "judged_nats": Metric(
        "nats/token",
        "lower",
        "-ln p of written texts by an independent causal model of characters; one value per text.",
    ),
    "judged_nats_of_text": Metric("nats/token", "neither", "The same for windows of the test text."),
    "repeated_bigrams": Metric("share", "lower", "Bigrams of the same token twice."),
    "caption_validity": Metric(
        "share", "higher", "Written captions, up to the end token, that parse and say what the source says."
    ),
    "seconds_per_step": Metric("s", "lower", "Median wall clock of a training step, one thread."),
    "tokens_per_second": Metric("tokens/s", "higher", "Tokens that cached sampling writes, one a step, one thread."),
    "seconds_per_token": Metric("s", "lower", "Its inverse."),
    "load": Metric("", "neither", "Load average of the machine when the measurement of speed began and ended."),
    "bought_nats": Metric(
        "nats/token",
        "higher",
        "nll_bound of decoder-only block diffusion, interpolated between depths at this arm's seconds per token, minus "
        "this arm's.",
    ),
    "bought_nats_median": Metric("nats/token", "higher", "Median over seeds of the mean of bought_nats."),
    "validity_shortfall": Metric(
        "share", "lower", "caption_validity of decoder-only block diffusion, interpolated as above, minus this arm's."
    ),
    "bracketed": Metric(
        "", "higher", "1 where two depths of decoder-only block diffusion bracket this arm's seconds per token, else 0."
    ),
    "best_validity": Metric("share", "higher", "Largest caption_validity of the arms compared, of a seed."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm's network, and the judge of what it writes, are built from by name."""
    network = CAUSAL_NETWORK if params.network == "causal" else BLOCK_NETWORKS
    if isinstance(params, EvaluateParams) and params.measure == "model" and params.task == "characters":
        return (network, CAUSAL_NETWORK, JUDGE_TOKENIZER) if network != CAUSAL_NETWORK else (network, JUDGE_TOKENIZER)
    return (network,)
