"""Recipe of the image encoders of scenes: trained by contrast with captions and by what each patch shows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.bases import construct, save_base, specification
from components.metrics.tables import MetricTable
from components.multimodal.contrastive import ContrastiveViT, attribute_accuracy, found_first, info_nce
from components.multimodal.patch_labels import ATTRIBUTES, label_sizes
from components.multimodal.scene_table import SceneTable, read_scenes, vocabulary_of
from components.training.arithmetic import arithmetic
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext

_BATCH = 50
_WEIGHTS = 3  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train on the training scenes, measure retrieval and patches on the test scenes, write both and a card."""
    params = stage.params
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    scenes = read_scenes(directory, "train", params.train_scenes, params.patch_size)
    test = read_scenes(directory, "test", params.test_scenes, params.patch_size)
    words = vocabulary_of(scenes)
    description = specification(
        "components.multimodal.contrastive",
        words=words,
        image_side=scenes.world.side,
        patch_size=params.patch_size,
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        mlp_ratio=params.mlp_ratio,
        text_layers=params.text_layers,
        context=max(len(caption.replace(",", " ,").split()) for caption in scenes.captions + test.captions),
        label_sizes=list(label_sizes(scenes.world)),
        temperature=params.temperature,
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    tokens, lengths = _captions(model, scenes)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        rows = torch.randint(len(scenes), (params.batch_size,), generator=generator)
        longest = int(lengths[rows].max())
        return scenes.pictures[rows], tokens[rows, :longest].long(), lengths[rows], scenes.labels[rows].long()

    def loss(model: nn.Module, batch: tuple[Tensor, ...], _: torch.Generator) -> tuple[Tensor, dict]:
        pictures, captions, number, labels = batch
        seen = model(pictures)
        similarities = model.similarities(model.image_vectors(seen), model.text_vectors(captions, number))
        contrast = info_nce(similarities)
        patches = model.patch_heads.loss(seen[:, 1:], labels.unsqueeze(2))
        found = (similarities.argmax(1) == torch.arange(len(seen), device=seen.device)).float().mean()
        series = {"info_nce": contrast, "patch_loss": patches, "batch_recall": found, "log_scale": model.log_scale}
        return contrast + params.patch_weight * patches, series

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
        units={"loss": "nats", "info_nce": "nats", "patch_loss": "nats", "batch_recall": "share"},
    )
    table = MetricTable()
    facts = _measure(stage, model, test, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, model, description, _card(stage, model, facts, len(scenes), len(test)))


def _captions(model: ContrastiveViT, scenes: SceneTable) -> tuple[Tensor, Tensor]:
    tokens, lengths = model.words.table(scenes.captions)
    return torch.from_numpy(tokens), torch.from_numpy(lengths)


@torch.no_grad()
def _measure(stage: StageContext, model: ContrastiveViT, test: SceneTable, table: MetricTable) -> dict[str, float]:
    """Measure retrieval among all test scenes, both ways, and the classes of patches that show something."""
    tokens, lengths = _captions(model, test)
    images, texts = [], []
    right: dict[str, list[Tensor]] = {name: [] for name in ATTRIBUTES}
    for rows in torch.arange(len(test)).split(_BATCH):
        seen = model(test.pictures[rows].to(stage.device))
        images.append(model.image_vectors(seen).cpu())
        texts.append(model.text_vectors(tokens[rows].long().to(stage.device), lengths[rows].to(stage.device)).cpu())
        logits = [each.squeeze(-2).cpu() for each in model.patch_heads(seen[:, 1:])]
        for name, each in attribute_accuracy(logits, test.labels[rows].long()).items():
            right[name].append(each)
    wordings = {caption: number for number, caption in enumerate(dict.fromkeys(test.captions))}
    same = torch.tensor([wordings[caption] for caption in test.captions])
    found = found_first(torch.cat(images), torch.cat(texts), same)
    back = found_first(torch.cat(texts), torch.cat(images), same)
    table.add_items("caption_recall", found.double().tolist(), unit="share")
    table.add_items("picture_recall", back.double().tolist(), unit="share")
    facts = {"caption_recall": float(found.double().mean()), "picture_recall": float(back.double().mean())}
    for name, parts in right.items():
        values = torch.cat(parts).double()
        if len(values):
            facts[f"patch_{name}_accuracy"] = float(values.mean())
            table.add(f"patch_{name}_accuracy", float(values.mean()), unit="share", samples=len(values))
    return facts


def _card(stage: StageContext, model: ContrastiveViT, facts: dict[str, float], trained: int, tested: int) -> str:
    params, encoder = stage.params, model.encoder
    count = sum(parameter.numel() for parameter in encoder.parameters())
    data = next(name for name in stage.inputs if name.startswith("data/")).removeprefix("data/")
    patches = ", ".join(
        f"{name} {100 * facts[f'patch_{name}_accuracy']:.1f}%"
        for name in ATTRIBUTES
        if f"patch_{name}_accuracy" in facts
    )
    return f"""# {stage.paper}

An image encoder of {encoder.image_side}-pixel scenes that stands in for CLIP: patches of {params.patch_size} pixels ({encoder.rows} x {encoder.rows} of
them and a class token), {params.layers} blocks of width {params.width}, {params.heads} heads, {count:,} parameters, with a text tower of {params.text_layers} blocks.

- Trained on: {data} ({trained:,} scenes), {params.steps:,} steps of {params.batch_size}, AdamW {params.learning_rate:g} with cosine decay, weight decay
  {params.weight_decay:g}, seed {stage.seed}, {arithmetic(stage.device)}; InfoNCE between the class token and the caption (temperature learned), plus the
  cross-entropy of what each patch shows (shape, colour and size of an object, a glyph and its place on the sign, the
  centre of an object), patches that show something and those that show nothing weighing one half each.
- Retrieval among {tested:,} test scenes: {100 * facts["caption_recall"]:.1f}% of the pictures find their own caption first, {100 * facts["picture_recall"]:.1f}% of the
  captions their own picture (chance {100 / tested:.2g}%).
- Patches that show something are classified rightly: {patches}.
- Use: features for language models (penultimate layer), attention maps of a class token, retrieval.
- Not for: pictures of the world.

```python
from components.bases import load_base

base = load_base("{stage.paper}")
tokens = base(pictures)                            # (B, 1 + {encoder.patches}, {params.width}), class token first, then row by row
features = base.encoder.hidden(unit, {params.layers - 1})[:, 1:]     # penultimate layer; unit: pictures in [0, 1]
vectors = base.image_vectors(tokens)               # compare with base.text_vectors(word ids, lengths)
```

`components.nn.attention_map.attention_map(base.encoder.blocks[l], base.encoder.hidden(unit, l))` gives the attention
weights of block l.
"""  # noqa: E501
