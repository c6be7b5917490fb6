"""Parameters and metrics of the study `image-generation`: images of a class, drawn token by token."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What a train stage of the study is given."""

    dataset: Literal["cifar10", "imagenet-1k-256"] = "cifar10"
    """Data set the generator learns from."""
    image_side: int = Field(32, ge=8)
    """Height and width of the images, pixels."""
    classes: int = Field(10, ge=1)
    """Classes of the data set."""
    train_images: int = Field(50_000, ge=1)
    """Images to learn from, the first of the training split; fewer where there are not as many."""

    autoencoder: str = "cifar-vae-f8"
    """Base that turns images into latents and back."""
    autoencoder_module: str = "components.nn.kl_autoencoder"
    """Module that this base is built by."""
    quantizer: Literal["dimension_wise", "kmeans", "rvq", "own", "none"] = "dimension_wise"
    """Module of components.quantizers applied to finished latents; the autoencoder's own; or none: continuous."""
    levels_per_dimension: int = Field(16, ge=2)
    """Levels of every dimension of dimension-wise quantization."""
    value_range: float = Field(5.0, gt=0)
    """Largest latent that has a level of its own, in standard deviations."""
    spacing: Literal["gaussian", "uniform"] = "gaussian"
    """Where those levels lie."""
    codebook_size: int = Field(256, ge=2)
    """Codes of a k-means codebook, or of each residual one."""
    codebooks: int = Field(8, ge=1)
    """Residual codebooks."""
    iterations: int = Field(25, ge=1)
    """Iterations of the one k-means codebook."""
    fitted_images: int = Field(8_192, ge=1)
    """Training images from whose latents codebooks are made."""

    generator: Literal["class_conditional", "masked_autoregressive", "context_free", "histograms", "none"] = (
        "class_conditional"
    )
    """Module of components.language; counts without a network; or none: only reconstruction is measured."""
    head: Literal["dimension_ar_head", "independent_heads", "flow_head"] = "dimension_ar_head"
    """Module of components.nn that predicts one token."""
    order: Literal["low_frequency", "reversed", "natural"] = "low_frequency"
    """Order of the dimensions of a token: by falling share of low-frequency energy, its reverse, or as they come."""
    low_frequency_radius: float = Field(0.5, gt=0, le=1)
    """Radius of the low-frequency disc as a share of the highest frequency."""
    order_images: int = Field(10_000, ge=1)
    """Training images whose latents decide the order."""
    width: int = Field(96, ge=4)
    """Channels of the transformer over positions."""
    layers: int = Field(3, ge=1)
    """Its blocks (of the encoder, where there is a decoder)."""
    decoder_layers: int = Field(3, ge=1)
    """Blocks of the decoder of masked autoregression."""
    heads: int = Field(4, ge=1)
    """Its attention heads."""
    class_tokens: int = Field(4, ge=1)
    """Copies of the class that masked autoregression reads in front of the image."""
    least_masked: float = Field(0.7, ge=0, lt=1)
    """Smallest share of masked positions in a step of masked autoregression."""
    class_dropout: float = Field(0.1, ge=0, le=1)
    """Probability that the class of a training image is left out."""
    head_width: int = Field(48, ge=4)
    """Channels of the head over dimensions."""
    head_layers: int = Field(2, ge=1)
    """Blocks of the head over dimensions."""
    head_heads: int = Field(4, ge=1)
    """Attention heads of the head over dimensions."""
    flow_width: int = Field(192, ge=4)
    """Channels of the flow-matching head."""
    flow_layers: int = Field(3, ge=1)
    """Residual blocks of the flow-matching head."""
    flow_steps: int = Field(30, ge=1)
    """Euler steps of the flow-matching head."""
    flow_draws: int = Field(4, ge=1)
    """Noise draws for each token of a training step of the flow-matching head."""

    steps: int = Field(1_600, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(32, ge=1)
    """Images per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    """Learning rate of the last step over the peak."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(0.02, ge=0)
    """Decoupled weight decay."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    weight_ema_decay: float | None = Field(0.99, ge=0, lt=1)
    """Decay of the moving average of the weights, null for none."""

    @model_validator(mode="after")
    def _fits(self) -> TrainParams:
        continuous = self.quantizer == "none"
        if self.generator == "histograms" and continuous:
            raise ValueError("generator histograms counts levels; choose a quantizer other than none.")
        if self.generator not in ("histograms", "none") and continuous != (self.head == "flow_head"):
            raise ValueError(
                f"head {self.head} with quantizer {self.quantizer}: flow_head draws continuous tokens (quantizer "
                "none), the other heads draw indices (any other quantizer)."
            )
        return self


class EvaluateParams(TrainParams):
    """What an evaluate stage of the study is given."""

    test_images: int = Field(5_000, ge=2)
    """Test images whose reconstruction is measured; fewer where there are not as many."""
    held_out_images: int = Field(10_000, ge=2)
    """Test images whose tokens are scored, and whose features samples are compared with."""
    generated: int = Field(3_000, ge=2)
    """Images drawn from a generator; the same for every arm, because the Frechet distance depends on it."""
    draws: Literal[1, 2] = 1
    """Sets of that many images; a second one tells how far two draws from one model are apart."""
    sampling_batch: int = Field(250, ge=1)
    """Images drawn at a time."""
    sampling_steps: int = Field(16, ge=1)
    """Passes of masked autoregression."""
    guidance: float = Field(1.5, ge=0)
    """Scale of classifier-free guidance; 1 for none."""
    guidance_schedule: Literal["constant", "linear"] = "constant"
    """The scale at every position, or rising to it."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the head."""
    feature_base: str = "cifar-clf-b"
    """Base whose features image sets are compared in, never part of a training loss."""
    neighbours: int = Field(3, ge=1)
    """Which nearest neighbour sets the radius of precision and recall."""
    shown_images: int = Field(20, ge=1)
    """Images kept for figures."""


METRICS = {
    "fd_cifar": Metric(
        "",
        "lower",
        "Frechet distance between penultimate features of cifar-clf-b on generated images and on test images.",
    ),
    "fd_cifar_again": Metric("", "lower", "The same distance of a second set of images from the same model."),
    "fd_real": Metric("", "neither", "The same distance of as many real training images: the floor at this count."),
    "fd_spread": Metric("", "neither", "Mean over seeds of how far these distances of two sets from one model differ."),
    "fd_separation": Metric(
        "",
        "neither",
        "The judged difference of mean Frechet distances of two arms, over the spread of two sets from one model.",
    ),
    "class_accuracy": Metric(
        "share", "higher", "Share of generated images that cifar-clf-b takes for the class they were drawn for."
    ),
    "precision": Metric("share", "higher", "Share of generated images inside the neighbourhood of real features."),
    "recall": Metric("share", "higher", "Share of real images inside the neighbourhood of generated features."),
    "bits_per_dimension": Metric(
        "bits", "lower", "-log2 p of the tokens of a test image given its class, per number of a token."
    ),
    "bits_per_image": Metric("bits", "lower", "-log2 p of all tokens of a test image given its class."),
    "dimension_bits": Metric(
        "bits", "lower", "-log2 p of the number at one place of the order of a token's dimensions, mean over positions."
    ),
    "pooled_bits_per_dimension": Metric(
        "bits", "lower", "The same of histograms in which all positions are counted together."
    ),
    "total_correlation": Metric(
        "bits",
        "neither",
        "What the numbers of a token tell about each other without any context: bits of pooled histograms minus bits "
        "of the head without context, per token.",
    ),
    "code_bits": Metric("bits", "neither", "Nominal bits of an image's code: the logarithm of all its combinations."),
    "psnr": Metric("dB", "higher", "Peak signal-to-noise ratio of decoded test images, averaged over images."),
    "psnr_half": Metric(
        "dB", "higher", "The same when only the first half of the dimensions in the arm's order is known, the rest 0."
    ),
    "fd_reconstruction": Metric(
        "", "lower", "Frechet distance between features of test images and of their reconstructions."
    ),
    "distortion": Metric("", "lower", "Squared error of quantized test latents over their variance."),
    "clipped_share": Metric("share", "lower", "Share of the numbers of test latents beyond the quantizer's range."),
    "channel_deviation": Metric("", "neither", "Standard deviation of a channel of the normalised test latents."),
    "channel_kurtosis": Metric("", "neither", "Fourth standardised moment of a channel; 3 for a Gaussian."),
    "low_frequency_share": Metric(
        "share", "neither", "Share of a channel's energy inside the low-frequency disc, at its place in the order."
    ),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    modules = [params.autoencoder_module]
    if params.quantizer not in ("own", "none"):
        modules.append(f"components.quantizers.{params.quantizer}")
    elif params.quantizer == "own":
        modules.append("components.quantizers.vq")
    if params.generator == "histograms":
        modules.append("components.language.context_free")
    elif params.generator != "none":
        modules += [f"components.language.{params.generator}", f"components.nn.{params.head}"]
        modules.append("components.nn.token_embedding")
    if kind == "evaluate":
        modules.append("components.nn.image_classifiers")
    return tuple(modules)
