"""Parameters and metrics of the study `image-tokenizer`: an image becomes tokens and comes back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """What a train stage of the study is given."""

    dataset: Literal["cifar10", "photos", "imagenet-1k-256"] = "cifar10"
    """Data set the tokenizer learns from."""
    image_side: int = Field(32, ge=8)
    """Height and width of the images, pixels."""
    train_images: int = Field(20_000, ge=1)
    """Images to learn from, the first of the training split; fewer where there are not as many."""

    tokenizer: str = "one_d"
    """Module of components.tokenizers.image."""
    patch_size: int = Field(8, ge=1)
    """Side of an encoder patch, pixels."""
    tokens: int = Field(32, ge=1)
    """Tokens per image."""
    width: int = Field(64, ge=8)
    """Channels of the transformer."""
    layers: int = Field(3, ge=1)
    """Transformer blocks of the encoder, and again of the decoder."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    drop: Literal["uniform", "powers_of_two", "none"] = "none"
    """Law of the number of tokens kept in a training step."""

    quantizer: str = "vq"
    """Module of components.quantizers."""
    codebook_size: int = Field(512, ge=2)
    """Number of codes."""
    code_dim: int = Field(8, ge=2)
    """Width of a code."""
    commitment_weight: float = Field(0.25, ge=0)
    """Weight of the commitment term inside the quantizer's loss."""
    code_ema_decay: float | None = Field(0.97, ge=0, lt=1)
    """Decay of the moving average of the codes; null trains them by gradient."""
    restart_every: int = Field(20, ge=0)
    """Steps after which codes that nothing chose are restarted; 0 never."""
    start_images: int = Field(64, ge=1)
    """Images whose vectors the codebook starts from."""

    quantizer_weight: float = Field(1.0, ge=0)
    """Weight of the quantizer's loss."""
    perceptual_weight: float = Field(0.1, ge=0)
    """Weight of the squared distance of penultimate features, per feature."""
    perceptual_base: str = "cifar-clf-a"
    """Base whose features that distance is measured in."""

    target: str = "pixels"
    """What the decoder predicts: pixels, or the codes of the grid tokenizer of this name (a base) in a first stage."""
    target_tokenizer: str = "maskgit_vqgan"
    """Module of components.tokenizers.image that this grid tokenizer is built by."""
    finetune_steps: int = Field(0, ge=0)
    """Steps of the second stage after a first one on proxy codes."""
    finetune_warmup_steps: int = Field(0, ge=0)
    """Warm-up steps of the second stage."""
    adversarial_weight: float = Field(0.01, ge=0)
    """Weight of the discriminator in the second stage."""
    adversarial_start: int = Field(20_000, ge=0)
    """Step of the second stage at which the discriminator starts."""
    lecam_weight: float = Field(0.001, ge=0)
    """Weight of the discriminator's LeCam regularisation."""

    steps: int = Field(5_000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=2)
    """Images per step."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate of AdamW."""
    final_fraction: float = Field(0.1, ge=0, le=1)
    """Learning rate of the last step over the peak."""
    warmup_steps: int = Field(50, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decoupled weight decay."""
    gradient_clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    weight_ema_decay: float | None = Field(None, ge=0, lt=1)
    """Decay of the moving average of the weights, null for none."""


class EvaluateParams(TrainParams):
    """What an evaluate stage of the study is given."""

    lengths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Numbers of tokens at which images are decoded; those above the model's own are left out."""
    test_images: int = Field(2_000, ge=2)
    """Images of the test split for distortion; fewer where there are not as many."""
    feature_images: int = Field(5_000, ge=2)
    """Images of the test split for the Frechet distance and the accuracy; the same for every arm."""
    feature_base: str = "cifar-clf-b"
    """Base whose features the Frechet distance is measured in, never part of a training loss."""
    contribution_images: int = Field(512, ge=2)
    """Images for the contribution of each token."""
    contribution_draws: int = Field(2, ge=1)
    """Random codes per image and position."""
    sample_images: int = Field(8, ge=1)
    """Images kept for figures."""

    codec: Literal["", "jpeg", "webp"] = ""
    """Code whole photographs with this codec instead of a tokenizer."""
    codec_quality_step: int = Field(1, ge=1)
    """Step between the quality settings of a codec that are tried, from 1 to 100."""
    photo_side: int = Field(256, ge=32)
    """Height and width of the photographs, pixels."""
    test_photos: int = Field(1_000, ge=2)
    """Photographs to test on; fewer where there are not as many."""
    photo_bytes: tuple[int, ...] = (576, 1_152, 2_304)
    """Budgets for one photograph, bytes."""
    sample_photos: int = Field(2, ge=1)
    """Photographs kept for figures."""


METRICS = {
    "psnr": Metric("dB", "higher", "Peak signal-to-noise ratio of decoded test images, averaged over images."),
    "ssim": Metric("", "higher", "Structural similarity of decoded test images, 11 x 11 Gaussian window."),
    "fd_cifar": Metric(
        "",
        "lower",
        "Frechet distance between penultimate features of cifar-clf-b on test images and on their reconstructions.",
    ),
    "accuracy": Metric("share", "higher", "Share of decoded test images that cifar-clf-b classifies correctly."),
    "accuracy_of_originals": Metric("share", "neither", "Share of the undecoded test images it classifies correctly."),
    "codebook_usage": Metric("share", "higher", "Share of the codebook that occurs in the codes of the test images."),
    "codebook_perplexity": Metric("codes", "higher", "exp(entropy) of the codes of the test images."),
    "token_contribution": Metric(
        "grey levels",
        "neither",
        "Mean absolute pixel change (of 255) when the token at a position is replaced by a random code.",
    ),
    "contribution_spearman": Metric(
        "", "neither", "Rank correlation of a token's position with its mean contribution; -1: it falls all along."
    ),
    "class_information": Metric(
        "bits", "neither", "Mutual information of the code at a position and the image's class, above chance."
    ),
    "psnr_photographs": Metric("dB", "higher", "Peak signal-to-noise ratio of whole photographs at a byte budget."),
    "ms_ssim_photographs": Metric("", "higher", "Multi-scale structural similarity of photographs at a byte budget."),
    "fd_tiles": Metric(
        "",
        "lower",
        "Frechet distance between features of cifar-clf-b on 32-pixel tiles of original and decoded photographs.",
    ),
    "payload_bytes": Metric("bytes", "lower", "Bytes really used for a photograph within its budget."),
}


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    if isinstance(params, EvaluateParams) and params.codec:
        return ("components.nn.image_classifiers",)
    modules = [
        f"components.tokenizers.image.{params.tokenizer}",
        f"components.quantizers.{params.quantizer}",
        "components.nn.image_classifiers",
    ]
    if params.target != "pixels":
        modules += [
            "flows.studies.image_tokenizer.proxy_codes",
            "components.tokenizers.image.proxy_codes",
            f"components.tokenizers.image.{params.target_tokenizer}",
        ]
    return tuple(modules)
