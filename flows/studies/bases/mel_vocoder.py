"""Recipe of the mel vocoder: log-mel frames to a waveform, which renders what other models predict as frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.audio.spectral_loss import SpectralLoss, draw_windows
from components.bases import construct, save_base, specification
from components.data.speech import SAMPLE_RATE, read_speech
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.rendered_speech import (
    drawn_stretches,
    flat_mel_distance,
    measure,
    measured_sets,
    rendered,
    write_examples,
)
from flows.studies.bases.utterances import DIGITS, SENTENCES, speech_folder
from flows.studies.context import StageContext

_WEIGHTS = 3  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train on stretches of speech, measure on utterances that no training heard, write the network and a card."""
    params = stage.params
    parts = [
        read_speech(speech_folder(stage, name), "train", params.train_utterances)
        for name in (DIGITS, SENTENCES)
        if f"data/{name}" in stage.inputs
    ]
    description = specification("components.audio.mel_vocoder", width=params.width, blocks=params.blocks)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    errors = SpectralLoss().to(stage.device)
    length = round(params.seconds * SAMPLE_RATE)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, tuple[int, ...]]:
        return drawn_stretches(parts, params.batch_size, length, generator), draw_windows(generator)

    def loss(model: nn.Module, batch: tuple[Tensor, tuple[int, ...]], _: torch.Generator) -> tuple[Tensor, dict]:
        waveforms, windows = batch
        found = errors(model(model.spectra(waveforms))[:, : waveforms.shape[1]], waveforms, windows)
        return params.mel_weight * found.mel + found.stft, {"mel_error": found.mel, "stft_error": found.stft}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"mel_error": "nats", "stft_error": "nats"},
    )
    table = MetricTable()
    facts = _measure(stage, model, table)
    table.write(stage.output)
    curves.write(stage.output)
    seconds = sum(part.seconds for part in parts)
    save_base(stage.output, model, description, _card(stage, model, facts, seconds))


@torch.no_grad()
def _measure(stage: StageContext, model: nn.Module, table: MetricTable) -> dict[str, float]:
    facts: dict[str, float] = {}
    examples = {}
    for name, speech in measured_sets(stage, stage.params.test_utterances).items():
        decoded = rendered(speech, lambda waveforms: model(model.spectra(waveforms)), stage.device)
        found = measure(table, speech, decoded, {"speech": name})
        facts |= {f"{metric}_{name}": value for metric, value in found.items()}
        examples[f"{name} {speech.names[0].rpartition('/')[2]}"] = {
            "original": speech.waveform(0),
            "vocoder": decoded[0],
        }
        if name == "digits":
            share = found["mel_distance"] / flat_mel_distance(speech)
            table.add("mel_distance_share", share, unit="share", samples=len(speech))
            facts["mel_distance_share"] = share
    write_examples(stage.output, examples)
    return facts


def _card(stage: StageContext, model: nn.Module, facts: dict[str, float], seconds: float) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    measured = "\n".join(
        f"  - {name}: mel distance {facts[f'mel_distance_{name}']:.2f} dB, intelligibility (STOI) "
        f"{facts.get(f'stoi_{name}', float('nan')):.3f}, SI-SDR {facts[f'si_sdr_{name}']:.1f} dB"
        for name in ("digits", "sentences", "held_out_voices")
        if f"mel_distance_{name}" in facts
    )
    return f"""# {stage.paper}

Log-mel frames ({model.bands} bands every 10 ms) to 8 kHz speech: {params.blocks} ConvNeXt blocks of width {params.width} at 100 Hz predict
magnitudes and phases of a short-time Fourier transform, which is inverted ({count:,} parameters).

- Trained on: {seconds / 3600:.2f} h of clean speech (connected digits, synthetic sentences), {params.steps:,} steps of {params.batch_size} x {params.seconds:g} s,
  AdamW {params.learning_rate:g} with cosine decay, {params.mel_weight:g} mel + 1 STFT error, seed {stage.seed}. No adversary.
- On utterances that no training heard:
{measured}
- Mel distance of digits: {facts["mel_distance_share"]:.1%} of that of each utterance's mean frame.
- Use: to render frames that other models predict, frozen. `examples/` has WAV files, `examples.png` their spectrograms.
- Not for: music, noise, other sample rates. Phases are free, so SI-SDR says nothing about how it sounds.

```python
from components.bases import load_base

vocoder = load_base("{stage.paper}")
frames = vocoder.spectra(waveforms)   # waveforms (B, S) at 8 kHz in [-1, 1]; frames (B, S / 80, {model.bands})
rendered = vocoder(frames)            # (B, 80 T)
```
"""  # noqa: E501
