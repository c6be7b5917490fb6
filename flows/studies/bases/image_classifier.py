"""Recipe of the image classifiers whose penultimate features serve losses (one network) and metrics (another)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bases import construct, save_base, specification
from components.data import tables
from components.data.images import decode_images, random_flip
from components.metrics.tables import MetricTable
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext

_WARMUP_SHARE = 0.1
_EVALUATION_BATCH = 32


def train(stage: StageContext) -> None:
    """Train a classifier on the training images, measure it on the test images, write both and a card."""
    params = stage.params
    images, labels = _split(stage, "train")
    test_images, test_labels = _split(stage, "test")
    classes = int(labels.max()) + 1
    description = specification(
        "components.nn.image_classifiers", design=params.design, channels=_lists(params.channels), classes=classes
    )
    model = construct(description)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(images), (params.batch_size,), generator=generator)
        return random_flip(images[rows], generator), labels[rows]

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], _: torch.Generator) -> tuple[Tensor, dict]:
        logits = model(batch[0])
        right = (logits.argmax(1) == batch[1]).float().mean()
        return F.cross_entropy(logits, batch[1]), {"train_accuracy": right}

    steps = max(1, round(params.epochs * len(images) / params.batch_size))
    optimisation = Optimisation(
        steps=steps,
        learning_rate=params.learning_rate,
        warmup_steps=round(_WARMUP_SHARE * steps),
        final_fraction=0.0,
        weight_decay=params.weight_decay,
    )
    curves = fit(
        model,
        draw_batch,
        loss,
        optimisation,
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats", "train_accuracy": "share"},
    )
    right = _correct(model, test_images.to(stage.device), test_labels.to(stage.device))
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
def _correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    parts = [model(part).argmax(1) for part in images.split(_EVALUATION_BATCH)]
    return torch.cat(parts) == labels


def _lists(value: object) -> object:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value


def _card(stage: StageContext, model: nn.Module, accuracy: float, trained: int, tested: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"""# {stage.paper}

A small classifier of 32-pixel colour images ({params.design} design, channels {_lists(params.channels)}, {count:,}
parameters). Its {model.feature_dim} penultimate features measure how far images are apart for a network.

- Trained on: the {trained:,} training images of CIFAR-10 (JPEG), {params.epochs:g} passes of AdamW, mirrored at random, seed
  {stage.seed}.
- Test accuracy: {100 * accuracy:.2f}% of {tested:,} test images.
- Use: a network that takes part in a training loss must not also be the one that measures the result. Here one base
  serves losses and another, of unlike design and other seed, serves metrics.
- Not for: deciding anything about real pictures. It is small, and trained only until its features are useful.

```python
from components.bases import load_base

classifier = load_base("{stage.paper}")
logits = classifier(images)              # images: uint8 or [0, 1], (B, 3, 32, 32)
features = classifier.features(images)   # (B, {model.feature_dim})
```
"""  # noqa: E501
