"""Recipe of the encoder that judges whether two utterances have the same speaker."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.bases import construct, save_base, specification
from components.data.speech import SAMPLE_RATE, Speech, read_speech
from components.metrics.tables import MetricTable
from components.metrics.verification import all_pairs, equal_error_rate
from components.speech.speaker import AdditiveMarginSoftmax
from components.speech.waveform_augmentation import WaveformAugmentation
from components.training.arithmetic import arithmetic
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.utterances import (
    DIGITS,
    SENTENCES,
    cut_at,
    in_batches,
    joined,
    noise_of,
    scale_sample,
    speech_folder,
    utterances,
)
from flows.studies.context import StageContext

_WEIGHTS = 3  # random stream of this stage
_BATCH = 32
_SETS = {"digits": (DIGITS, "test"), "sentences": (SENTENCES, "test"), "held_out": (SENTENCES, "held_out")}


class Voices(NamedTuple):
    """A training batch."""

    waveform: Tensor
    samples: Tensor
    speakers: Tensor


class _Classifier(nn.Module):
    """The encoder and the weights that its training tells speakers apart by."""

    def __init__(self, encoder: nn.Module, head: AdditiveMarginSoftmax) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head


def train(stage: StageContext) -> None:
    """Train an encoder on the training speakers, measure pairs of test utterances, write it and a card."""
    params = stage.params
    heard = utterances(stage, "train", params.train_utterances)
    names = sorted(set(heard.speakers))
    places = {name: place for place, name in enumerate(names)}
    speakers = torch.tensor([places[name] for name in heard.speakers])
    description = specification("components.speech.speaker", channels=params.channels, width=params.width)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    encoder = construct(description)
    head = AdditiveMarginSoftmax(params.width, len(names), scale=params.scale, margin=params.margin)
    model = _Classifier(encoder, head)
    encoder.fit_scale(*scale_sample(heard))
    longest = round(params.seconds * SAMPLE_RATE)
    # Level and bandwidth shall not tell who speaks.
    change, noise = WaveformAugmentation(noise_share=0.2, low_pass_share=0.1), noise_of(stage)

    def draw_batch(step: int, generator: torch.Generator) -> Voices:
        rows = torch.randint(len(heard), (params.batch_size,), generator=generator)
        room = (heard.lengths[rows] - longest).clamp(min=0)
        starts = (torch.rand(len(rows), generator=generator) * (room + 1)).long()
        waveform, samples = cut_at(heard, rows, starts, longest)
        return Voices(change(waveform, samples, noise, generator), samples, speakers[rows])

    def loss(model: nn.Module, batch: Voices, _: torch.Generator) -> tuple[Tensor, dict]:
        vectors = model.encoder(batch.waveform, batch.samples)
        right = (model.head.cosines(vectors).argmax(1) == batch.speakers).float().mean()
        return model.head(vectors, batch.speakers), {"train_accuracy": right}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats", "train_accuracy": "share"},
    )
    table = MetricTable()
    facts = _measure(stage, encoder, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, encoder, description, _card(stage, encoder, facts, heard, len(names)))


@torch.no_grad()
def _measure(stage: StageContext, encoder: nn.Module, table: MetricTable) -> dict[str, float]:
    """Measure the equal error rate over all pairs of a set, and of all test utterances of known speakers together."""
    sets = {
        name: read_speech(speech_folder(stage, data), split, stage.params.test_utterances)
        for name, (data, split) in _SETS.items()
        if f"data/{data}" in stage.inputs
    }
    known = joined([speech for name, speech in sets.items() if name != "held_out"])
    facts = {}
    for name, speech in {"": known, **sets}.items():
        names = sorted(set(speech.speakers))
        if len(names) < 2:
            continue
        metric = f"eer_{name}" if name else "eer"
        speakers = torch.tensor([names.index(speaker) for speaker in speech.speakers])
        facts[metric] = equal_error_rate(*all_pairs(_vectors(stage, encoder, speech), speakers))
        table.add(metric, facts[metric], unit="share", samples=len(speech))
    return facts


def _vectors(stage: StageContext, encoder: nn.Module, speech: Speech) -> Tensor:
    vectors = torch.zeros(len(speech), stage.params.width)
    for rows, batch in in_batches(speech, _BATCH, stage.device):
        vectors[rows] = encoder(*batch).float().cpu()
    return vectors


def _card(stage: StageContext, encoder: nn.Module, facts: dict[str, float], heard: Speech, speakers: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in encoder.parameters())
    rates = ", ".join(f"{name.removeprefix('eer_')} {100 * value:.1f}%" for name, value in facts.items())
    return f"""# {stage.paper}

Dilated convolutions over 40 log-mel bands, mean and deviation over time, a vector of {params.width} numbers; {count:,} parameters.

- Trained on: {len(heard):,} utterances of {speakers} speakers and voices, additive margin softmax, {params.steps:,} steps of
  {params.batch_size} stretches of at most {params.seconds:g} s, AdamW {params.learning_rate:g}, seed {stage.seed}, {arithmetic(stage.device)}.
- Equal error rate over all pairs of utterances that no training heard (eer: all of known speakers): {rates}.
- Use: the cosine of two vectors judges whether sound that a system makes keeps the speaker.
- Not for: real people. It knows six of them, and voices of a synthesiser.

```python
from components.bases import load_base

judge = load_base("{stage.paper}")
vectors = judge(waveform, samples)   # (B, S) at 8 kHz and (B,) to (B, {params.width})
```
"""  # noqa: E501
