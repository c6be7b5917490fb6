"""Recipe of the speech codec: eight residual codes of a waveform every 20 ms, any number of which can be used."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from components.audio.spectral_loss import SpectralLoss, draw_windows
from components.bases import construct, save_base
from components.compression import range_coding
from components.data.speech import SAMPLE_RATE, Speech
from components.metrics.codebook import usage_per_index
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.rendered_speech import (
    add_word_errors,
    drawn_stretches,
    flat_mel_distance,
    measure,
    measured_sets,
    rendered,
    write_examples,
)
from flows.studies.bases.residual_codec import described, rates, training_speech
from flows.studies.context import StageContext

_WEIGHTS, _START = 3, 4  # random streams of this stage


def train(stage: StageContext) -> None:
    """Train on stretches of speech, measure on utterances that no training heard, write the codec and a card."""
    params = stage.params
    parts = training_speech(stage)
    description = described("components.tokenizers.audio.codec", params)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    errors = SpectralLoss().to(stage.device)
    length = round(params.seconds * SAMPLE_RATE)
    starting = torch.Generator().manual_seed(derive_seed(stage.seed, _START))
    model.start_from(drawn_stretches(parts, params.start_stretches, length, starting), starting)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, int, tuple[int, ...]]:
        waveforms = drawn_stretches(parts, params.batch_size, length, generator)
        return waveforms, model.draw_step(generator), draw_windows(generator)

    def loss(model: nn.Module, batch: tuple[Tensor, int, tuple[int, ...]], _: torch.Generator) -> tuple[Tensor, dict]:
        waveforms, kept, windows = batch
        result = model(waveforms, kept)
        found = errors(result.decoded[:, : waveforms.shape[1]], waveforms, windows)
        # The quantizer sums over the dimensions of a vector; its loss is meant per dimension.
        quantized = result.codes.loss / params.code_dim
        series = {"mel_error": found.mel, "stft_error": found.stft, "quantizer_loss": quantized, "kept": float(kept)}
        return params.mel_weight * found.mel + found.stft + quantized, series

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        after_step=lambda model, step, generator: model.after_step(step, generator),
        units={"mel_error": "nats", "stft_error": "nats", "kept": "codebooks"},
    )
    table = MetricTable()
    facts = _measure(stage, model, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, model, description, _card(stage, model, facts, sum(part.seconds for part in parts)))


@torch.no_grad()
def _measure(stage: StageContext, model: nn.Module, table: MetricTable) -> dict[str, float]:
    facts: dict[str, float] = {}
    examples = {}
    every = rates(len(model.codebook_sizes))
    for name, speech in measured_sets(stage, stage.params.test_utterances).items():
        shown = {"original": speech.waveform(0)}
        for kept in every:
            decoded = rendered(speech, lambda waveforms, kept=kept: model(waveforms, kept).decoded, stage.device)
            shown[f"{model.bits_per_second(kept) / 1000:.1f} kbps"] = decoded[0]
            last = kept == every[-1]
            found = measure(table, speech, decoded, {"codebooks": kept, "speech": name}, all_of_them=last)
            facts |= {f"{metric}_{name}_{kept}": value for metric, value in found.items()}
            if name == "digits":
                errors = add_word_errors(stage, table, f"digit_wer_rvq{kept}", speech, decoded)
                if errors is not None:
                    facts[f"digit_wer_{kept}"] = errors
        examples[f"{name} {speech.names[0].rpartition('/')[2]}"] = shown
        if name == "digits":
            facts |= _of_digits(model, table, speech, facts, every, stage.device)
    write_examples(stage.output, examples)
    return facts


def _of_digits(
    model: nn.Module, table: MetricTable, speech: Speech, facts: dict[str, float], every: list[int], device: str
) -> dict[str, float]:
    """Add what gates read: distance against a floor without time, gain of finer codes, use of codes, bit rates."""
    distances = [facts[f"mel_distance_digits_{kept}"] for kept in every]
    indices = [model.encode(speech.waveform(row).unsqueeze(0).to(device))[0].cpu() for row in range(len(speech))]
    codes = torch.cat(indices)
    used = usage_per_index(codes, model.codebook_sizes)
    found = {
        "mel_distance_share": (distances[-1] / flat_mel_distance(speech), "share"),
        # The least gain of a doubling of the rate: above 0 where every doubling helps.
        "least_gain": (min(one - other for one, other in itertools.pairwise(distances)), "dB")
        if len(distances) > 1
        else (0.0, "dB"),
        "codebook_usage": (float(used.min()), "share"),
    }
    for name, (value, unit) in found.items():
        table.add(name, value, unit=unit, samples=len(speech))
    coded = {}
    for kept in every:
        stream = range_coding.encode(codes[:, :kept].numpy(), model.codebook_sizes[:kept])
        seconds = len(codes) / model.vectors_per_second
        for name, value in (("bit_rate", model.bits_per_second(kept)), ("coded_rate", 8 * len(stream) / seconds)):
            table.add(name, value, unit="bits/s", at={"codebooks": kept}, samples=len(codes))
            coded[f"{name}_{kept}"] = value
    return {name: value for name, (value, _) in found.items()} | coded


def _card(stage: StageContext, model: nn.Module, facts: dict[str, float], seconds: float) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    every = rates(len(model.codebook_sizes))
    top = every[-1]
    rows = "\n".join(
        f"| {kept} | {facts[f'bit_rate_{kept}'] / 1000:.2f} | {facts[f'coded_rate_{kept}'] / 1000:.2f} | "
        + " | ".join(
            f"{facts[f'mel_distance_{name}_{kept}']:.2f}" if f"mel_distance_{name}_{kept}" in facts else "-"
            for name in ("digits", "sentences", "held_out_voices")
        )
        + (f" | {facts[f'digit_wer_{kept}']:.1%} |" if f"digit_wer_{kept}" in facts else " | - |")
        for kept in every
    )
    return f"""# {stage.paper}

A codec of 8 kHz speech: {params.codebooks} residual codes of {params.codebook_size} every 20 ms. Log magnitudes and phases of a short-time Fourier transform
pass through {params.blocks} ConvNeXt blocks of width {params.width} at 50 Hz to vectors of {params.code_dim}; as many blocks predict the spectrum that is
inverted ({count:,} parameters beside the codebooks). Codes follow a moving average ({params.code_ema_decay:g}), start from k-means and are
restarted when used fewer than {params.restart_below} times in {params.restart_every} steps.

- Trained on: {seconds / 3600:.2f} h of clean speech (connected digits, synthetic sentences), {params.steps:,} steps of {params.batch_size} x {params.seconds:g} s,
  AdamW {params.learning_rate:g} with cosine decay, {params.mel_weight:g} mel + 1 STFT error, as many codebooks in a step as a power of two says, seed {stage.seed}.
- On utterances that no training heard, mel distance in dB, and word errors of the judge where it was there:

| codebooks | kbps | coded | digits | sentences | held-out voices | digit errors |
|---|---|---|---|---|---|---|
{rows}

- With {top} codebooks: mel distance {facts["mel_distance_share"]:.1%} of that of each utterance's mean frame; intelligibility (STOI) of
  digits {facts.get(f"stoi_digits_{top}", float("nan")):.3f}; the least used codebook uses {facts["codebook_usage"]:.1%} of its codes. `coded` is an adaptive range coder's rate.
- Use: acoustic tokens. `examples/` has WAV files at every rate, `examples.png` their spectrograms.
- Not for: music, noise, other sample rates. Phases are free, so SI-SDR says nothing about how it sounds.

```python
from components.bases import load_base

codec = load_base("{stage.paper}")
tokens = codec.encode(waveforms)              # waveforms (B, S) at 8 kHz in [-1, 1]; tokens (B, S / 160, {params.codebooks})
coarse = codec.decode(tokens[..., :2])        # (B, 160 P): the first two codebooks
odd = codec.decode(tokens[..., ::2], streams=range(0, {params.codebooks}, 2))
stream = codec.stream()                       # stream.push(codec.values(tokens)), ..., stream.finish()
```
"""  # noqa: E501
