"""Recipe of the convolutional VQ tokenizers whose image tokens many papers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.bases import construct, save_base, specification
from components.data.images import tile, untile
from components.data.pixels import to_unit
from components.metrics.codebook import perplexity, usage
from components.metrics.image import psnr
from components.metrics.tables import MetricTable
from components.nn.conv_autoencoder import cell_means
from components.quantizers.clustering import kmeans
from components.quantizers.nearest import nearest_codes
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.reconstruction_loss import pixel_error
from flows.studies.bases.pictures import drawn_from, pictures
from flows.studies.context import StageContext

_BATCH = 64
_WEIGHTS, _START, _PATCHES = 3, 4, 5  # random streams of this stage
_PATCH_IMAGES = 1_000  # images whose raw patches are clustered for the reference


def train(stage: StageContext) -> None:
    """Train a tokenizer on the training images, measure it on the test images, write both and a card."""
    params = stage.params
    images = pictures(stage, "train", params.image_side, params.train_images)
    test = pictures(stage, "test", params.image_side, params.test_images)
    description = specification(
        "components.tokenizers.image.grid",
        quantizer=specification(
            "components.quantizers.euclidean_vq",
            codebook_size=params.codebook_size,
            code_dim=params.code_dim,
            code_ema_decay=params.code_ema_decay,
            restart_every=params.restart_every,
        ),
        image_side=params.image_side,
        channels=list(params.channels),
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    starting = torch.Generator().manual_seed(derive_seed(stage.seed, _START))
    model.start_from(images[torch.randperm(len(images), generator=starting)[: params.start_images]], starting)

    def loss(model: nn.Module, batch: Tensor, _: torch.Generator) -> tuple[Tensor, dict]:
        originals = to_unit(batch)
        result = model(originals)
        error = pixel_error(result.images, originals)
        series = {"pixel_error": error, "quantizer_loss": result.codes.loss}
        return error + params.quantizer_weight * result.codes.loss, series

    curves = fit(
        model,
        drawn_from(images, params.batch_size),
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        after_step=lambda model, step, generator: model.after_step(step, generator),
    )
    table = MetricTable()
    facts = _measure(stage, model, images, test, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, model, description, _card(stage, model, facts, len(images), len(test)))


@torch.no_grad()
def _measure(stage: StageContext, model: nn.Module, images: Tensor, test: Tensor, table: MetricTable) -> dict:
    """Measure distortion and use of the codebook, beside two references that learn no network."""
    params = stage.params
    side = params.image_side // model.rows
    parts = [model(part.to(stage.device)) for part in test.split(_BATCH)]
    decoded = torch.cat([part.images.clamp(0, 1) for part in parts]).cpu()
    indices = torch.cat([part.codes.indices for part in parts]).cpu()
    floor = cell_means(to_unit(test), side)
    values = {
        "psnr": psnr(decoded, test),
        "psnr_of_cell_means": psnr(floor, test),
        "psnr_of_patch_kmeans": psnr(_patch_kmeans(stage, images, test, side), test),
    }
    values["psnr_above_cell_means"] = values["psnr"] - values["psnr_of_cell_means"]
    for name, each in values.items():
        table.add_items(name, each.tolist(), unit="dB")
    use = {
        "codebook_usage": (usage(indices, params.codebook_size), "share"),
        "codebook_perplexity": (perplexity(indices, params.codebook_size), "codes"),
    }
    for name, (value, unit) in use.items():
        table.add(name, value, unit=unit, samples=indices.numel())
    return {name: float(each.mean()) for name, each in values.items()} | {name: use[name][0] for name in use}


def _patch_kmeans(stage: StageContext, images: Tensor, test: Tensor, side: int) -> Tensor:
    """Return test images whose raw patches are replaced by the nearest of K cluster centres of training patches."""
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _PATCHES))
    patches = tile(to_unit(images[:_PATCH_IMAGES]), side).flatten(1)
    centres = kmeans(patches, stage.params.codebook_size, generator, iterations=20)
    nearest = centres[nearest_codes(tile(to_unit(test), side).flatten(1), centres)]
    return untile(nearest.unflatten(1, (3, side, side)), *test.shape[-2:])


def _card(stage: StageContext, model: nn.Module, facts: dict[str, float], trained: int, tested: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    data = next(name for name in stage.inputs if name.startswith("data/")).removeprefix("data/")
    rows, side = model.rows, params.image_side
    return f"""# {stage.paper}

A convolutional VQ-VAE of {side}-pixel images: {rows} x {rows} tokens of {params.codebook_size} codes of width {params.code_dim},
channels {list(params.channels)}, one residual block per level, {count:,} parameters beside the codebook. Codes follow a moving
average ({params.code_ema_decay}), start from k-means and are restarted when unused.

- Trained on: {data} ({trained:,} images, mirrored at random), {params.steps:,} steps of {params.batch_size}, AdamW
  {params.learning_rate:g} with cosine decay, pixel error only, seed {stage.seed}.
- Held out ({tested:,} images): {facts["psnr"]:.2f} dB PSNR. For comparison, without any network: the mean colour of each cell
  {facts["psnr_of_cell_means"]:.2f} dB; k-means of raw patches with as many codes {facts["psnr_of_patch_kmeans"]:.2f} dB.
- Codebook: {100 * facts["codebook_usage"]:.1f}% of the codes occur in the test images, perplexity {facts["codebook_perplexity"]:.0f}.
- Use: real image tokens for studies of tokens. One of several seeds where others of the same name with `-s1`, `-s2` stand beside it.
- Not for: compressing pictures. Colours and edges survive, fine texture does not.

```python
from components.bases import load_base

tokenizer = load_base("{stage.paper}")
tokens = tokenizer.encode(images)    # images: uint8 or [0, 1], (B, 3, {side}, {side}); tokens (B, {rows**2}), row by row
pictures = tokenizer.decode(tokens)  # (B, 3, {side}, {side}), 0 to 1 but not clipped
```
"""  # noqa: E501
