"""Recipe of the variational autoencoders whose continuous latents generators and post-training quantizers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.bases import construct, load_model, save_base, specification
from components.data.pixels import to_unit
from components.metrics.image import psnr
from components.metrics.tables import MetricTable
from components.nn.conv_autoencoder import cell_means
from components.nn.image_classifiers import frozen
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.reconstruction_loss import feature_error, pixel_error
from flows.studies.bases.pictures import drawn_from, pictures
from flows.studies.context import StageContext

_BATCH = 64
_SCALE_IMAGES = 10_000
_WEIGHTS = 3  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train an autoencoder, measure its latents' scale and its test images, write it and a card."""
    params = stage.params
    images = pictures(stage, "train", params.image_side, params.train_images)
    test = pictures(stage, "test", params.image_side, params.test_images)
    description = specification(
        "components.nn.kl_autoencoder",
        image_side=params.image_side,
        channels=list(params.channels),
        latent_dim=params.latent_dim,
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    network = frozen(load_model(stage.inputs[f"bases/{params.perceptual_base}"])).to(stage.device)

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        originals = to_unit(batch)
        result = model(originals, generator)
        pixels = pixel_error(result.images, originals)
        features = feature_error(network, result.images, originals)
        total = pixels + params.perceptual_weight * features + params.kl_weight * result.kl
        return total, {"pixel_error": pixels, "feature_error": features, "kl": result.kl}

    curves = fit(
        model,
        drawn_from(images, params.batch_size),
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, ema_decay=params.weight_ema_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"kl": "nats/cell"},
    )
    deviations = model.measure([part.to(stage.device) for part in images[:_SCALE_IMAGES].split(_BATCH)]).cpu()
    table = MetricTable()
    facts = _measure(stage, model, test, deviations, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, model, description, _card(stage, model, facts, len(images), len(test)))


@torch.no_grad()
def _measure(stage: StageContext, model: nn.Module, test: Tensor, deviations: Tensor, table: MetricTable) -> dict:
    """Measure distortion and the latents' shape: deviation and kurtosis of each channel."""
    latents = [model.latents(part.to(stage.device)) for part in test.split(_BATCH)]
    decoded = torch.cat([model.decode_values(part).clamp(0, 1) for part in latents]).cpu()
    flat = torch.cat(latents).cpu().double().flatten(0, 1)
    centred = flat - flat.mean(0)
    kurtosis = centred.pow(4).mean(0) / centred.square().mean(0).square()
    values = {
        "psnr": psnr(decoded, test),
        "psnr_of_cell_means": psnr(cell_means(to_unit(test), stage.params.image_side // model.rows), test),
    }
    for name, each in values.items():
        table.add_items(name, each.tolist(), unit="dB")
    # How far the channel furthest from the common deviation is from it, in either direction.
    spread = float(torch.maximum(deviations, 1 / deviations).max())
    table.add("deviation_spread", spread, unit="", samples=len(deviations))
    for channel, (deviation, fourth) in enumerate(zip(deviations.tolist(), kurtosis.tolist(), strict=True)):
        table.add("channel_deviation", deviation, unit="", samples=len(flat), at={"channel": channel})
        table.add("channel_kurtosis", fourth, unit="", samples=len(flat), at={"channel": channel})
    facts = {name: float(each.mean()) for name, each in values.items()}
    kurtoses = {"least_kurtosis": float(kurtosis.min()), "most_kurtosis": float(kurtosis.max())}
    return facts | {"deviation_spread": spread, "deviation": float(model.deviation)} | kurtoses


def _card(stage: StageContext, model: nn.Module, facts: dict[str, float], trained: int, tested: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    data = next(name for name in stage.inputs if name.startswith("data/")).removeprefix("data/")
    rows, side = model.rows, params.image_side
    return f"""# {stage.paper}

A variational autoencoder of {side}-pixel images with continuous latents: {rows} x {rows} cells of {params.latent_dim} channels,
convolution channels {list(params.channels)}, one residual block per level, {count:,} parameters.

- Trained on: {data} ({trained:,} images, mirrored at random), {params.steps:,} steps of {params.batch_size}, AdamW
  {params.learning_rate:g} with cosine decay, weights averaged ({params.weight_ema_decay}), seed {stage.seed}. Loss: pixel error + {params.perceptual_weight:g} feature
  error in {params.perceptual_base} + {params.kl_weight:g} nats of KL divergence per cell.
- Held out ({tested:,} images, posterior means decoded): {facts["psnr"]:.2f} dB PSNR; the mean colour of each cell gives
  {facts["psnr_of_cell_means"]:.2f} dB.
- Latents: normalised by the mean of each channel and one deviation ({facts["deviation"]:.3f}) for all; the channel furthest from
  it is off by a factor {facts["deviation_spread"]:.2f}. Kurtosis of the channels: {facts["least_kurtosis"]:.2f} to {facts["most_kurtosis"]:.2f} (a normal has 3).
- Use: latents for generators and for quantizers that are fitted after training.
- Not for: pictures larger than {side} pixels, or other than {data}.

```python
from components.bases import load_base

autoencoder = load_base("{stage.paper}")
latents = autoencoder.latents(images)           # (B, {rows**2}, {params.latent_dim}), unit deviation
pictures = autoencoder.decode_values(latents)   # (B, 3, {side}, {side}), 0 to 1 but not clipped
```
"""  # noqa: E501
