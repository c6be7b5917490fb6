"""The image codec of the survey: one encoder and decoder, one training, whatever quantizer stands between them.

In one seed every arm starts from the same encoder and decoder and sees the same images in the same order.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.analysis.gradient_flow import ArrivingGradient
from components.bases import construct, save_model, specification
from components.data.pixels import to_unit
from components.training.determinism import derive_seed
from components.training.loop import fit
from components.training.reconstruction_loss import pixel_error
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey.params import TrainParams
from flows.studies.image_tokenizer.models import described
from flows.studies.image_tokenizer.sources import training_images
from flows.studies.image_tokenizer.train import batches, optimisation, start_codebook

_SAME_START = 4  # stream of the weights that arms share; see flows.studies.image_tokenizer.train for the others
_UNITS = {"loss": "", "pixel_error": "", "quantizer_loss": "", "kept": "codebooks"}


def train(stage: StageContext) -> None:
    """Train the codec of one arm; write its model, its curves and the snapshots that were asked for."""
    params = stage.params
    images = training_images(stage)
    description = codec_description(params)
    model = construct(description)
    share_start(model, params, stage.seed)
    if params.start_images:
        start_codebook(model, images, params, stage.seed)
    arriving = ArrivingGradient(model.encoder)

    def loss(model: nn.Module, batch: tuple[Tensor, int], _: torch.Generator) -> tuple[Tensor, dict]:
        originals = to_unit(batch[0])
        result = model(originals, batch[1])
        pixels = pixel_error(result.images, originals)
        norm = arriving.record()
        series = {
            "pixel_error": pixels,
            "quantizer_loss": result.codes.loss,
            "kept": float(result.kept),
            "encoder_gradient": norm,
        }
        return pixels + params.quantizer_weight * result.codes.loss, series

    snapshots = stage.checkpoint / "snapshots"
    kept = {snapshot_step(params, share) for share in params.snapshots}

    def after_step(model: nn.Module, step: int, generator: torch.Generator) -> None:
        model.after_step(step, generator)
        if step + 1 in kept:
            # Beside the checkpoint: a training that is killed and resumed behind this step still has it.
            directory = snapshot_directory(snapshots, step + 1)
            directory.mkdir(parents=True, exist_ok=True)
            save_model(directory, model, description)

    curves = fit(
        model,
        batches(images, model, params.batch_size),
        loss,
        optimisation(params, params.steps, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint / "fit",
        progress=stage.progress,
        after_step=after_step,
        units=_UNITS,
    )
    arriving.close()
    save_model(stage.output, model, description)
    for step in sorted(kept):
        shutil.copytree(snapshot_directory(snapshots, step), snapshot_directory(stage.output, step))
    curves.write(stage.output)


def snapshot_step(params: TrainParams, share: float) -> int:
    """Return the number of steps that a share of them is, at least one."""
    return max(1, round(share * params.steps))


def snapshot_directory(directory: Path, step: int) -> Path:
    """Return where the model stands as it was after `step` steps."""
    return directory / f"step-{step}"


def codec_description(params: TrainParams) -> dict[str, Any]:
    """Return the description (components.bases) of the codec: grid tokenizer, linear maps, quantizer."""
    parts = {"base": described(f"components.quantizers.{params.base}", params, {})} if params.base else {}
    quantizer = described(f"components.quantizers.{params.quantizer}", params, parts)
    projected = specification("components.quantizers.projected", base=quantizer, width=params.latent_dim)
    return described(f"components.tokenizers.image.{params.tokenizer}", params, {"quantizer": projected})


def share_start(model: nn.Module, params: TrainParams, seed: int) -> None:
    """Give encoder and decoder the weights that every arm of this seed starts from.

    Quantizers draw different amounts of random numbers before them, which would make every arm another replicate.
    """
    unquantized = specification("components.quantizers.unquantized", code_dim=params.latent_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, _SAME_START))
        reference = construct(
            described(
                f"components.tokenizers.image.{params.tokenizer}", params, {"quantizer": unquantized, "drop": "none"}
            )
        )
    model.encoder.load_state_dict(reference.encoder.state_dict())
    model.decoder.load_state_dict(reference.decoder.state_dict())
