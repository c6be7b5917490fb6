"""Recipe of the language models of scenes' texts: answer priors are learned before any picture is seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.bases import construct, save_base, specification
from components.language.causal_lm import CausalLM
from components.language.count_models import UnigramCounts
from components.metrics.tables import MetricTable
from components.multimodal.packed_qa import PackedBatch, PackedTexts, joined, pack_captions, pack_questions
from components.multimodal.question_answering import answer_loss, answered
from components.multimodal.scene_table import DENSE, SceneTable, read_scenes, vocabulary_of
from components.multimodal.vlm import VLM
from components.multimodal.words import WordVocabulary
from components.training.arithmetic import arithmetic
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext

_BATCH = 50
_WEIGHTS = 3  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train on the training scenes' texts, measure on the test scenes', write model, words and a card."""
    params = stage.params
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    scenes = read_scenes(directory, "train", params.train_scenes, 4)
    test = read_scenes(directory, "test", params.test_scenes, 4)
    words = WordVocabulary(vocabulary_of(scenes))
    texts = _texts(scenes, words)
    description = specification(
        "components.language.causal_lm",
        vocabulary_size=len(words),
        context=params.context,
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        tied=True,
        positions="rotary",
        mlp_ratio=8 / 3,
        norm="rms",
        activation="swiglu",
        bias=False,
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    language = construct(description)
    model = _blind(language, words)

    def draw_batch(step: int, generator: torch.Generator) -> PackedBatch:
        return texts.batch(torch.randint(len(texts), (params.batch_size,), generator=generator))

    def loss(model: nn.Module, batch: PackedBatch, _: torch.Generator) -> tuple[Tensor, dict]:
        return answer_loss(model(_nothing(batch.tokens, params.width), batch), batch), {}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/token"},
    )
    table = MetricTable()
    facts = _measure(stage, model, texts, test, words, table)
    table.write(stage.output)
    curves.write(stage.output)
    words.save(stage.output)
    save_base(stage.output, language, description, _card(stage, language, words, facts))


def _texts(scenes: SceneTable, words: WordVocabulary) -> PackedTexts:
    """Return every question with its answer and the caption of each scene; every word is predicted."""
    types = sorted(scenes.questions["type"].unique())
    asked = pack_questions(scenes.questions, len(scenes), words, types, texts=True)
    return joined(asked, pack_captions(scenes.captions, words))


def _blind(language: CausalLM, words: WordVocabulary) -> VLM:
    """Return the language model as one that reads packed texts; its projector stays unused."""
    model = VLM(language=language, words=words.entries, rows=1, feature_width=1, merge=1, encoder="")
    model.projector.requires_grad_(False)
    return model


def _nothing(tokens: Tensor, width: int) -> Tensor:
    return torch.zeros(len(tokens), 0, width, device=tokens.device)


@torch.no_grad()
def _measure(
    stage: StageContext,
    model: VLM,
    texts: PackedTexts,
    test: SceneTable,
    words: WordVocabulary,
    table: MetricTable,
) -> dict[str, float]:
    """Measure nats per token beside the counts of the training texts, and answers without a picture, by type."""
    held_out = _texts(test, words)
    unigram = UnigramCounts(texts.targets[texts.targets >= 0].long(), len(words))
    nats, counted = [], []
    for rows in torch.arange(len(test)).split(_BATCH):
        batch = held_out.batch(rows)
        moved = PackedBatch(*(part.to(stage.device) for part in batch))
        logits = model(_nothing(moved.tokens, stage.params.width), moved)
        nats.append(-logits.double().log_softmax(-1).gather(1, moved.targets[:, None])[:, 0].cpu())
        counted.append(unigram.nats(batch.targets[None])[0].double())
    values = {"nats_per_token": torch.cat(nats), "unigram_nats_per_token": torch.cat(counted)}
    for name, each in values.items():
        table.add(name, float(each.mean()), unit="nats/token", samples=len(each), normaliser="tokens")
    types = sorted(test.questions["type"].unique())
    asked = pack_questions(test.questions, len(test), words, types)
    right = answered(model, lambda rows: torch.zeros(len(rows), 0, stage.params.width, device=stage.device), asked)
    general = torch.from_numpy((test.questions["type"] != DENSE).to_numpy().copy())
    table.add_items("blind_accuracy", right[general].double().tolist(), unit="share")
    return {name: float(each.mean()) for name, each in values.items()} | {
        "blind": float(right[general].double().mean()),
        "trained": len(texts),
        "tested": len(test),
    }


def _card(stage: StageContext, language: CausalLM, words: WordVocabulary, facts: dict[str, float]) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in language.parameters())
    data = next(name for name in stage.inputs if name.startswith("data/")).removeprefix("data/")
    return f"""# {stage.paper}

A causal transformer over the {len(words)} words of captions, questions and answers about scenes: {params.layers} layers, width {params.width},
{params.heads} heads, rotary positions, RMSNorm, SwiGLU, tied embedding, context {params.context}, {count:,} parameters. It has seen no picture.

- Trained on: the texts of {data} ({facts["trained"]:,} scenes, a caption and eight questions each, every text by itself),
  {params.steps:,} steps of {params.batch_size} scenes, AdamW {params.learning_rate:g} with cosine decay, seed {stage.seed},
  {arithmetic(stage.device)}.
- Held out ({facts["tested"]:,} scenes): {facts["nats_per_token"]:.3f} nats per token (counts of single words: {facts["unigram_nats_per_token"]:.3f}). It answers
  {100 * facts["blind"]:.1f}% of the general questions rightly without a picture, which is what their words give away.
- Use: the language half of small vision-language models, whose answer priors are then learned already.
- Not for: any text but these.

```python
from components.bases import load_base

language = load_base("{stage.paper}")   # components.language.causal_lm.CausalLM
# bases/{stage.paper}/words.json lists its words: components.multimodal.words.WordVocabulary.load
```
"""  # noqa: E501
