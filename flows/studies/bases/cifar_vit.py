"""Recipe of the small vision transformers of CIFAR-10: 64 tokens and a class token that is classified."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bases import construct, save_base, specification
from components.data import tables
from components.data.augmentation import random_crop
from components.data.images import decode_images, random_flip
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext

_BATCH = 100
_WEIGHTS = 3  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train on the training images, measure on the test images, write both and a card."""
    params = stage.params
    images, labels = _split(stage, "train")
    test_images, test_labels = _split(stage, "test")
    description = specification(
        "components.nn.conv_stem_vit",
        image_side=images.shape[-1],
        channels=list(params.channels),
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        classes=int(labels.max()) + 1,
        mlp_ratio=params.mlp_ratio,
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(images), (params.batch_size,), generator=generator)
        shifted = random_crop(images[rows], params.crop_padding, generator)
        return random_flip(shifted, generator), labels[rows]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], _: torch.Generator) -> tuple[Tensor, dict]:
        logits = model(batch[0]).float()
        right = (logits.argmax(1) == batch[1]).float().mean()
        return F.cross_entropy(logits, batch[1]), {"train_accuracy": right}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(
            params.steps,
            params.learning_rate,
            params.warmup_steps,
            final_fraction=0.01,
            weight_decay=params.weight_decay,
        ),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats", "train_accuracy": "share"},
    )
    right = _correct(model, test_images, test_labels, stage.device)
    accuracy = float(right.double().mean())
    table = MetricTable()
    variance = accuracy * (1 - accuracy) / len(right)
    table.add("test_accuracy", accuracy, unit="share", samples=len(right), variance=variance)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, model, description, _card(stage, model, accuracy, len(images), len(right)))


def _split(stage: StageContext, split: str) -> tuple[Tensor, Tensor]:
    frame = tables.read_split(stage.inputs["data/cifar10"], split, ["image", "label"])
    return decode_images(frame["image"].to_list()), torch.from_numpy(frame["label"].to_numpy().copy()).long()


@torch.no_grad()
def _correct(model: nn.Module, images: Tensor, labels: Tensor, device: str) -> Tensor:
    found = [model(part.to(device)).argmax(1).cpu() for part in images.split(_BATCH)]
    return torch.cat(found) == labels


def _card(stage: StageContext, model: nn.Module, accuracy: float, trained: int, tested: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"""# {stage.paper}

A small vision transformer of 32-pixel colour images: a stem of {len(params.channels)} convolutions gives {model.rows} x {model.rows} tokens, which pass with a
class token through {params.layers} blocks of width {params.width} with {params.heads} heads ({count:,} parameters). The class token is classified.

- Trained on: the {trained:,} training images of CIFAR-10 (JPEG), {params.steps:,} steps of {params.batch_size}, AdamW {params.learning_rate:g} with cosine decay,
  weight decay {params.weight_decay:g}, shifted by up to {params.crop_padding} pixels and mirrored at random, seed {stage.seed}.
- Test accuracy: {100 * accuracy:.2f}% of {tested:,} test images.
- Use: a network whose tokens can be reduced, observed or taken as features at every block.
- Not for: deciding anything about real pictures. It is small and trained for five passes.

```python
from components.bases import load_base

network = load_base("{stage.paper}")
logits = network(images)                 # images: uint8 or [0, 1], (B, 3, 32, 32)
tokens = network.tokens(images)          # (B, 1 + {model.patches}, {params.width}), normalised, class token first, then row by row
```

`network.embed`, `network.blocks` and `network.norm` are the stages between.
"""  # noqa: E501
