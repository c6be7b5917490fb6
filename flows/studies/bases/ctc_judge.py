"""Recipe of the recogniser that judges whether speech can be understood.

It hears natural digits, synthesised sentences, both changed in level, noise and bandwidth, and some of them rendered
by Griffin-Lim from mel bands; never the sound of a system that it will judge.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.audio.spectra import LogMelFrames
from components.bases import construct, save_base, specification
from components.data.fsdd_connected import DIGITS as DIGIT_WORDS
from components.data.speech import Speech, read_speech, to_samples
from components.metrics.tables import MetricTable
from components.metrics.word_error import character_errors, word_errors
from components.speech.ctc import needed_frames, padded
from components.speech.griffin_lim import resynthesised
from components.speech.judge import CTCJudge, save_judge
from components.speech.spec_augment import SpecAugment
from components.speech.waveform_augmentation import WaveformAugmentation
from components.training.arithmetic import arithmetic
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.utterances import (
    DIGITS,
    SENTENCES,
    add_error_rate,
    joined,
    like_lengths,
    noise_of,
    part_of,
    scale_sample,
    speech_folder,
    utterances,
)
from flows.studies.context import StageContext

_WEIGHTS, _RESYNTHESIS = 3, 4  # random streams of this stage
_RENDER_BATCH = 16
SETS = {"digits": (DIGITS, "test"), "sentences": (SENTENCES, "test"), "held_out": (SENTENCES, "held_out")}
"""What is measured, each with a gate of its own: data set and split."""


class Spoken(NamedTuple):
    """A training batch."""

    waveform: Tensor
    samples: Tensor
    labels: Tensor
    lengths: Tensor


def train(stage: StageContext) -> None:
    """Train a recogniser, measure it on what no training heard, write it with its lexicon, texts and a card."""
    params = stage.params
    natural = utterances(stage, "train", params.train_utterances)
    description = specification(
        "components.speech.recogniser",
        channels=params.channels,
        hidden=params.hidden,
        dropout=params.dropout,
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    model.fit_scale(*scale_sample(natural))
    heard = _kept(joined([natural, _rendered(stage, natural, params)]), model)
    transcripts = [model.spell(text) for text in heard.texts]
    change, masks, noise = WaveformAugmentation(), SpecAugment(), noise_of(stage)

    def draw_batch(step: int, generator: torch.Generator) -> Spoken:
        rows = like_lengths(heard, params.batch_size, generator)
        waveform, samples = heard.padded(rows)
        labels, lengths = padded([transcripts[row] for row in rows.tolist()])
        return Spoken(change(waveform, samples, noise, generator), samples, labels, lengths)

    def loss(model: nn.Module, batch: Spoken, generator: torch.Generator) -> tuple[Tensor, dict]:
        return model.loss(*batch, generator, masks), {}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/character"},
    )
    words = sorted({word for text in natural.texts for word in text.split()} | set(DIGIT_WORDS))
    judge = CTCJudge(
        model,
        words,
        natural.texts,
        beams=params.beams,
        language_weight=params.language_weight,
        word_bonus=params.word_bonus,
    )
    table = MetricTable()
    facts = _measure(stage, judge, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_judge(stage.output, judge)
    save_base(stage.output, model, description, _card(stage, judge, facts, natural, heard))


def _rendered(stage: StageContext, natural: Speech, params) -> Speech:
    """Return a share of the utterances, drawn at random, rendered by Griffin-Lim from their mel bands."""
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _RESYNTHESIS))
    count = max(1, round(params.resynthesised_share * len(natural)))
    rows = torch.randperm(len(natural), generator=generator)[:count].sort().values
    # Another window than that of the recogniser and of the encoders: what it must bear is the loss of phases.
    bands = LogMelFrames(window=256)
    parts: dict[int, Tensor] = {}
    for places in natural.lengths[rows].argsort(stable=True).split(_RENDER_BATCH):
        waveform, samples = natural.padded(rows[places])
        sound = resynthesised(waveform, bands, iterations=params.resynthesis_iterations, generator=generator)
        for place, each, length in zip(places.tolist(), sound, samples.tolist(), strict=True):
            parts[place] = to_samples(each[:length])
    lengths = natural.lengths[rows]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Speech(natural.frame[rows.tolist()], torch.cat([parts[place] for place in range(count)]), offsets)


def _kept(speech: Speech, model: nn.Module) -> Speech:
    """Return the utterances whose characters fit into their frames; no alignment spells the few others."""
    fits = [
        row
        for row, (text, samples) in enumerate(zip(speech.texts, speech.lengths.tolist(), strict=True))
        if needed_frames(model.spell(text)) <= model.frames_of(samples)
    ]
    return part_of(speech, fits)


def _measure(stage: StageContext, judge: CTCJudge, table: MetricTable) -> dict[str, float]:
    """Measure word errors with the lexicon and character errors without one, of every set that there is."""
    facts: dict[str, float] = {}
    for name, (data, split) in SETS.items():
        if f"data/{data}" not in stage.inputs:
            continue
        speech = read_speech(speech_folder(stage, data), split, stage.params.test_utterances)
        waveforms = speech.waveforms()
        words = word_errors(judge.transcribe(waveforms), speech.texts)
        characters = character_errors(judge.spell(waveforms), speech.texts)
        facts[f"wer_{name}"] = add_error_rate(table, f"wer_{name}", words)
        facts[f"cer_{name}"] = add_error_rate(table, f"cer_{name}", characters)
    return facts


def _card(stage: StageContext, judge: CTCJudge, facts: dict[str, float], natural: Speech, heard: Speech) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in judge.recogniser.parameters())
    rows = "\n".join(
        f"- {name}: word error rate {100 * facts[f'wer_{name}']:.1f}%, character error rate without a lexicon "
        f"{100 * facts[f'cer_{name}']:.1f}%."
        for name in SETS
        if f"wer_{name}" in facts
    )
    return f"""# {stage.paper}

A recogniser of characters by CTC: 40 log-mel bands at 100 Hz, two convolutions of stride 2 ({params.channels} channels), two
bidirectional recurrent layers ({params.hidden} channels each way), {count:,} parameters.

- Trained on: {len(natural):,} utterances ({natural.seconds / 3600:.1f} h of connected digits and synthesised sentences) and {len(heard) - len(natural):,} more
  of them rendered by Griffin-Lim, changed in level, noise and bandwidth, with SpecAugment; {params.steps:,} steps of
  {params.batch_size}, AdamW {params.learning_rate:g}, seed {stage.seed}, {arithmetic(stage.device)}.
- Decoding: beam search ({params.beams} prefixes) over {len(judge.words)} words with a trigram of the training texts.
{rows}
- Use: a judge of whether speech that systems make can be understood. None of their sound is in its training.
- Not for: recognising real speech. It knows its few words.

```python
from pathlib import Path

from components.speech.judge import load_judge

judge = load_judge(Path("bases/{stage.paper}"))
texts = judge.transcribe(waveforms)   # a list of (S,) at 8 kHz, in [-1, 1)
```
"""  # noqa: E501
