"""Recipe of the unit vocoder: units and a speaker become mel frames, which a frozen mel vocoder renders."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.bases import construct, load_model, save_base, specification
from components.data.speech import SAMPLE_RATE, Speech, read_speech
from components.metrics.tables import MetricTable
from components.metrics.word_error import word_errors
from components.speech.judge import load_judge
from components.speech.unit_vocoder import UnitVocoder
from components.tokenizers.audio.ssl_kmeans import SSLKMeans
from components.training.arithmetic import arithmetic
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.utterances import (
    DIGITS,
    UtteranceError,
    add_error_rate,
    cut_at,
    in_batches,
    scale_sample,
    speech_folder,
    utterances,
)
from flows.studies.context import StageContext

_WEIGHTS = 3  # random stream of this stage
_BATCH = 32


class Stretches(NamedTuple):
    """A training batch: units (B, T, C), their speakers (B,), streams that are used (B, C), waveforms (B, S)."""

    units: Tensor
    speakers: Tensor
    present: Tensor
    waveform: Tensor
    samples: Tensor


class _WithSpectra(nn.Module):
    """The network beside the frozen front end that its targets come from, so that both move to one device."""

    def __init__(self, network: UnitVocoder, spectra: nn.Module) -> None:
        super().__init__()
        self.network, self.spectra = network, spectra


def train(stage: StageContext) -> None:
    """Train on units of the training utterances, render digits that no training heard, write the network and a card."""
    params = stage.params
    tokenizer = load_model(_base(stage, "speech-units")).only(params.streams).to(stage.device)
    vocoder = load_model(_base(stage, "mel-vocoder")).to(stage.device)
    heard = utterances(stage, "train", params.train_utterances)
    speakers = sorted(set(heard.speakers))
    description = specification(
        "components.speech.unit_vocoder",
        codebook_sizes=list(tokenizer.codebook_sizes),
        speakers=speakers,
        bands=vocoder.bands,
        width=params.width,
        blocks=params.blocks,
    )
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    network = construct(description)
    some = scale_sample(heard)
    with torch.no_grad():
        frames = vocoder.spectra(some.waveform.to(stage.device)).cpu()
    inside = torch.arange(frames.shape[1]) * vocoder.samples_per_frame < some.samples[:, None]
    network.fit_scale(frames[inside])
    model = _WithSpectra(network, vocoder.spectra)
    curves = fit(
        model,
        _drawn_from(stage, heard, tokenizer, network.speaker_ids(heard.speakers), network.unknown),
        _mel_error,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "ln amplitude"},
    )
    table = MetricTable()
    facts = _measure(stage, network, tokenizer, vocoder, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, network, description, _card(stage, network, facts, heard))


def _base(stage: StageContext, name: str) -> Path:
    found = [path for key, path in stage.inputs.items() if key.startswith(f"bases/{name}")]
    if len(found) != 1:
        raise UtteranceError(f"{stage.paper} needs one base {name!r}; name it under 'bases' of params/bases.yaml.")
    return found[0]


def _drawn_from(stage: StageContext, heard: Speech, tokenizer: SSLKMeans, speakers: Tensor, unknown: int):
    """Return what draws a batch of stretches; the units of all utterances are made before."""
    params, hop = stage.params, tokenizer.encoder.samples_per_frame
    parts: list[Tensor] = [torch.empty(0)] * len(heard)
    for rows, batch in in_batches(heard, _BATCH, stage.device):
        for row, each in zip(rows, tokenizer.encode(*batch).to(torch.int16).cpu(), strict=True):
            parts[row] = each[each[:, 0] >= 0]
    frames = torch.tensor([len(each) for each in parts])
    firsts = torch.cat([frames.new_zeros(1), frames.cumsum(0)])
    units, count = torch.cat(parts), max(1, round(params.seconds * SAMPLE_RATE / hop))
    streams = len(params.streams)

    def draw(step: int, generator: torch.Generator) -> Stretches:
        rows = torch.randint(len(heard), (params.batch_size,), generator=generator)
        room = (frames[rows] - count).clamp(min=0)
        starts = (torch.rand(len(rows), generator=generator) * (room + 1)).long()
        waveform, samples = cut_at(heard, rows, starts * hop, count * hop)
        places = starts[:, None] + torch.arange(count)
        taken = units[(firsts[rows][:, None] + places).clamp(max=len(units) - 1)].long()
        taken = taken.masked_fill((places >= frames[rows][:, None])[..., None], -1)
        draws = torch.rand(2, len(rows), generator=generator)
        present = torch.rand(len(rows), streams, generator=generator) < 0.5
        # At least one stream: a drawn one, where the draw left all out.
        fallback = torch.randint(streams, (len(rows), 1), generator=generator)
        present |= ~present.any(1, keepdim=True) & (torch.arange(streams) == fallback)
        alone = (draws[0] < params.first_share)[:, None]
        present = torch.where(alone, torch.arange(streams) == 0, present)
        told = torch.where(draws[1] < params.unknown_share, unknown, speakers[rows])
        return Stretches(taken, told, present, waveform, samples)

    return draw


def _mel_error(model: _WithSpectra, batch: Stretches, _: torch.Generator) -> tuple[Tensor, dict]:
    """Return the mean absolute error of log-mel frames inside the utterances."""
    with torch.no_grad():
        target = model.spectra(batch.waveform).float()
    found = model.network(batch.units, batch.speakers, batch.present)
    places = torch.arange(target.shape[1], device=target.device) * model.spectra.hop
    inside = (places < batch.samples[:, None]).float()
    error = (found - target).abs().mean(-1)
    return (error * inside).sum() / inside.sum(), {}


@torch.no_grad()
def _measure(
    stage: StageContext, network: UnitVocoder, tokenizer: SSLKMeans, vocoder: nn.Module, table: MetricTable
) -> dict[str, float]:
    """Measure word errors of digits rendered from units of the first stream, and from natural mel frames."""
    speech = read_speech(speech_folder(stage, DIGITS), "test", stage.params.test_utterances)
    judge = load_judge(_base(stage, "ctc-judge"))
    judge.recogniser.to(stage.device)
    speakers = network.speaker_ids(speech.speakers).to(stage.device)
    present = (torch.arange(len(stage.params.streams), device=stage.device) == 0)[None]
    rendered: dict[str, list[Tensor]] = {"mel": [], "units": []}
    distances = []
    for row, wave in enumerate(speech.waveforms()):
        # One by one: convolutions of a padded batch would hear what lies behind the end.
        wave = wave.to(stage.device)[None]
        natural = vocoder.spectra(wave)
        units = tokenizer.encode(wave, torch.tensor([wave.shape[1]], device=stage.device))
        made = network(units, speakers[row : row + 1], present)[:, : natural.shape[1]]
        distances.append(float((made - natural).abs().mean()))
        for name, frames in (("mel", natural), ("units", made)):
            rendered[name].append(vocoder(frames)[0, : wave.shape[1]].cpu())
    table.add_items("mel_error", distances, unit="ln amplitude", items=speech.names)
    facts = {"mel_error": sum(distances) / len(distances)}
    for name, waves in rendered.items():
        errors = word_errors(judge.transcribe(waves), speech.texts)
        facts[f"wer_{name}"] = add_error_rate(table, f"wer_{name}", errors)
    return facts


def _card(stage: StageContext, network: UnitVocoder, facts: dict[str, float], heard: Speech) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in network.parameters())
    streams = ", ".join(f"({layer}, {size})" for layer, size in params.streams)
    return f"""# {stage.paper}

Units of a speech encoder and a speaker become log-mel frames: embeddings, {params.blocks} ConvNeXt blocks of width {params.width}, {count:,}
parameters. A mel vocoder renders the frames.

- Streams (layer, codes), any of which may be left out: {streams}.
- Speakers: {len(network.speakers)} by name, and one for all others.
- Trained on: {len(heard):,} utterances ({heard.seconds / 3600:.1f} h), mean absolute error of mel frames, {params.steps:,} steps of
  {params.batch_size} stretches of {params.seconds:g} s, AdamW {params.learning_rate:g}, seed {stage.seed}, {arithmetic(stage.device)}.
- Digits that no training heard, read by the judge: {100 * facts["wer_units"]:.1f}% words wrong from units of the first stream,
  {100 * facts["wer_mel"]:.1f}% from natural mel frames through the same vocoder (the ceiling). Mel error {facts["mel_error"]:.3f}.
- Not for: copying a voice. It knows how few speakers sound, and none by an example.

```python
from components.bases import load_base

network, vocoder = load_base("{stage.paper}"), load_base("mel-vocoder")
waveform = vocoder(network(units, network.speaker_ids(["jackson"])))   # units (1, T, {len(params.streams)}), -1 for a stream left out
```
"""  # noqa: E501
