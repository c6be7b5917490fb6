"""Parameters and metrics of the survey: one codec skeleton per modality, every quantizer family in it.

An arm's `task` says which modality it belongs to, and with it the module of this package that trains or evaluates it.
Tasks that need parameters beyond those of the image codec declare them in a module of their own (`params_<task>`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.studies.image_tokenizer.discrete_tokenization_survey.params_gradients import (
    GRADIENT_METRICS,
    GradientEvaluateParams,
    gradient_modules,
)
from flows.studies.image_tokenizer.discrete_tokenization_survey.params_graphs import (
    GRAPH_METRICS,
    GraphTrainParams,
    graph_modules,
)
from flows.studies.image_tokenizer.discrete_tokenization_survey.params_speech import (
    SPEECH_METRICS,
    SpeechEvaluateParams,
    SpeechTrainParams,
    speech_modules,
)

PACKAGE = "flows.studies.image_tokenizer.discrete_tokenization_survey"

MODULES = {
    "train": {"image": "codec", "speech": "speech", "graph": "graphs", "gradients": "gradients"},
    "evaluate": {"image": "images", "speech": "speech", "graph": "graphs", "gradients": "gradients"},
}
"""Module of this package that trains or evaluates each task, with a function of that name."""


class TrainParams(SpeechTrainParams, GraphTrainParams):
    """What a train stage of the survey is given."""

    task: Literal["image", "speech", "graph", "gradients"] = "image"
    """What is tokenized."""

    # The image codec.
    dataset: Literal["cifar10", "imagenet-1k-256"] = "cifar10"
    """Data set the image codec learns from."""
    image_side: int = Field(32, ge=8)
    """Height and width of the images, pixels."""
    train_images: int = Field(20_000, ge=1)
    """Images to learn from, the first of the training split; fewer where there are not as many."""
    tokenizer: Literal["grid"] = "grid"
    """Module of components.tokenizers.image."""
    channels: tuple[int, ...] = (16, 32)
    """Channels of every level of encoder and decoder, finest first; each level halves the resolution."""
    blocks: int = Field(1, ge=0)
    """Residual blocks of a level."""
    latent_dim: int = Field(16, ge=1)
    """Width of the encoder's output, the same in every arm; a linear map leads to the quantizer's width and back."""
    drop: Literal["uniform", "powers_of_two", "none"] = "none"
    """Law of the number of codebooks used in a training step, of residual quantizers."""

    # Arguments of the quantizers, of every task.
    quantizer: str = "euclidean_vq"
    """Module of components.quantizers."""
    codebook_size: int = Field(4_096, ge=2)
    """Codes of a codebook."""
    code_dim: int = Field(16, ge=1)
    """Width of the vectors a quantizer takes; for signs, the bits of a code."""
    codebooks: int = Field(1, ge=1)
    """Codebooks of residual, product and additive quantization."""
    commitment_weight: float = Field(0.25, ge=0)
    """Weight of the commitment term inside the quantizer's loss."""
    code_ema_decay: float | None = Field(0.95, ge=0, lt=1)
    """Decay of the moving average of the codes; null trains them by gradient."""
    restart_every: int = Field(0, ge=0)
    """Steps after which rarely used codes are restarted; 0 never."""
    restart_below: int = Field(1, ge=1)
    """A code is restarted that fewer vectors than this chose since the last time."""
    start_images: int = Field(0, ge=0)
    """Training images whose vectors the codebooks start from by k-means; 0 leaves them where they were drawn."""
    beam_width: int = Field(8, ge=1)
    """Beams of the joint search of additive quantization."""
    levels: tuple[int, ...] = (8, 8, 8, 8)
    """Levels of each dimension of finite scalar quantization."""
    entropy_weight: float = Field(0.1, ge=0)
    """Weight of the entropy term of quantization by signs."""
    entropy_temperature: float = Field(1.0, gt=0)
    """Temperature of the soft assignment of lookup-free quantization, in squared distance."""
    inverse_temperature: float = Field(2.0, gt=0)
    """Sharpness of the soft assignment of binary spherical quantization."""
    start_temperature: float = Field(1.0, gt=0)
    """Temperature of Gumbel noise at the start."""
    end_temperature: float = Field(0.1, gt=0)
    """Temperature of Gumbel noise at the end."""
    anneal_steps: int = Field(600, ge=1)
    """Steps between the two."""
    prior_weight: float = Field(5e-4, ge=0)
    """Weight of the divergence of a Gumbel distribution from the uniform one."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the bits of Bernoulli quantization."""
    base: str = ""
    """Module of components.quantizers in each group of a channel-split quantizer."""
    groups: int = Field(1, ge=1)
    """Groups of a channel-split quantizer."""
    quantizer_weight: float = Field(0.03, ge=0)
    """Weight of the quantizer's loss."""

    # Optimisation, of every task.
    steps: int = Field(600, ge=1)
    """Optimiser steps."""
    snapshots: tuple[float, ...] = ()
    """Shares of the steps after which the model is kept as it is then, beside the finished one."""
    batch_size: int = Field(32, ge=2)
    """Images per step."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate of AdamW."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    """Learning rate of the last step over the peak; 1 holds it constant."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decoupled weight decay."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    weight_ema_decay: float | None = Field(None, ge=0, lt=1)
    """Decay of the moving average of the weights, null for none."""


class EvaluateParams(TrainParams, SpeechEvaluateParams, GradientEvaluateParams):
    """What an evaluate stage of the survey is given."""

    control: Literal["", "mean_colour", "patch_kmeans"] = ""
    """What an image arm without a model shows instead: the mean colour of every cell, or centres of raw patches."""
    control_codes: int = Field(512, ge=2)
    """Centres of raw patches."""
    iterations: int = Field(25, ge=1)
    """Iterations of k-means on raw patches, at most."""

    post_quantizer: Literal["", "dimension_wise"] = ""
    """Module of components.quantizers that codes a trained continuous codec's latents, standardised per dimension."""
    levels_per_dimension: int = Field(16, ge=2)
    """Levels of each dimension of that."""
    value_range: float = Field(5.0, gt=0)
    """Standard deviations that its levels cover to each side."""
    spacing: Literal["gaussian", "uniform"] = "gaussian"
    """Where its levels lie."""

    prior: bool = False
    """Whether a causal model learns the tokens of training images and is asked for those of test images."""
    prior_steps: int = Field(1_000, ge=1)
    """Its optimiser steps."""
    prior_batch: int = Field(16, ge=1)
    """Its images per step."""
    prior_width: int = Field(64, ge=4)
    """Its channels."""
    prior_layers: int = Field(2, ge=1)
    """Its transformer blocks."""
    prior_heads: int = Field(4, ge=1)
    """Its attention heads."""
    prior_learning_rate: float = Field(3e-3, gt=0)
    """Its peak learning rate."""
    prior_images: int = Field(20_000, ge=1)
    """Training images whose tokens it learns from."""

    test_images: int = Field(2_000, ge=2)
    """Images of the test split for distortion, codes and bits; fewer where there are not as many."""
    feature_images: int = Field(5_000, ge=2)
    """Images of the test split for the Frechet distance and the accuracy; the same for every arm."""
    feature_base: str = "cifar-clf-b"
    """Base whose features the Frechet distance is measured in, never part of a training loss."""
    statistics_images: int = Field(2_000, ge=2)
    """Training images for mean codes and the scale of latents."""
    gradient_images: int = Field(256, ge=2)
    """Test images for the check of gradients by finite differences."""
    gradient_step: float = Field(0.1, gt=0)
    """Length of that check's step over the length of the latent vectors."""
    sample_images: int = Field(8, ge=1)
    """Images kept for figures."""


IMAGE_METRICS = {
    "normalised_perplexity": Metric(
        "share", "higher", "2^entropy of the codes of the test images over the number of codes there are."
    ),
    "nominal_bits": Metric("bits", "lower", "Bits of the code of a cell (or of another vector) on paper."),
    "entropy_bits": Metric(
        "bits", "neither", "Entropy of the codes of test cells; at most log2 of the number of cells."
    ),
    "real_bits": Metric(
        "bits",
        "lower",
        "Bits of a cell in the range-coded stream of the test images, probabilities learned on the way.",
    ),
    "partial_psnr": Metric(
        "dB", "higher", "PSNR from the first codebooks alone; unknown parts of a product are replaced by their mean."
    ),
    "gradient_realised": Metric(
        "share",
        "neither",
        "Share of the slope promised by the gradient of the latents that a small step along it finds.",
    ),
    "codec_gradient_bias": Metric("", "lower", "Distance of the mean of that share from 1."),
    "encoder_gradient": Metric(
        "", "neither", "Length of the gradient that arrives at the encoder, mean over the second half of the training."
    ),
    "encoder_gradient_variation": Metric(
        "", "lower", "Deviation of that length between spans of 50 steps, over its mean: how unsteady the training is."
    ),
    "psnr_seed_deviation": Metric("dB", "lower", "Standard deviation of PSNR between seeds."),
    "prior_bits": Metric(
        "bits", "lower", "Bits of the tokens of a test image under a causal model of those of training images."
    ),
    "unigram_bits": Metric("bits", "neither", "The same under the frequencies of the training images' tokens."),
}

METRICS: dict[str, Metric] = {**IMAGE_METRICS, **SPEECH_METRICS, **GRAPH_METRICS, **GRADIENT_METRICS}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    modules = [f"{PACKAGE}.{MODULES[kind][params.task]}"]
    evaluation = params if isinstance(params, EvaluateParams) else None
    if params.task == "image" and not (evaluation and evaluation.control):
        modules += [f"components.tokenizers.image.{params.tokenizer}", *quantizer_modules(params)]
    if evaluation and evaluation.post_quantizer:
        modules.append(f"components.quantizers.{evaluation.post_quantizer}")
    if params.task == "speech" and not (evaluation and evaluation.speech_control):
        modules += [*speech_modules(), *quantizer_modules(params)]
    if params.task == "graph":
        modules += graph_modules(params)
    if params.task == "gradients":
        modules += gradient_modules()
    return tuple(modules)


def quantizer_modules(params: TrainParams) -> tuple[str, ...]:
    """Return the modules that an arm's quantizer is built from."""
    chosen = ["projected", "unquantized", params.quantizer, *([params.base] if params.base else [])]
    return tuple(f"components.quantizers.{name}" for name in chosen)
