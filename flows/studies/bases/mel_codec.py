"""Recipe of the mel codec: four residual codes of log-mel frames every 20 ms, rendered by a frozen mel vocoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.bases import construct, save_base
from components.compression import range_coding
from components.data.speech import SAMPLE_RATE
from components.metrics.codebook import usage_per_index
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.rendered_speech import (
    add_word_errors,
    drawn_stretches,
    flat_mel_distance,
    frozen_base,
    measure,
    measured_sets,
    rendered,
    write_examples,
)
from flows.studies.bases.residual_codec import described, rates, training_speech
from flows.studies.bases.utterances import UtteranceError
from flows.studies.context import StageContext

_WEIGHTS, _START = 3, 4  # random streams of this stage
VOCODER = "mel-vocoder"


def train(stage: StageContext) -> None:
    """Train on frames of speech, measure rendered utterances that no training heard, write the codec and a card.

    Raises:
        UtteranceError: The base names no mel vocoder.
    """
    params = stage.params
    vocoder = frozen_base(stage, VOCODER)
    if vocoder is None:
        raise UtteranceError(f"{stage.paper} is rendered by a {VOCODER}; name one under 'bases' of params/bases.yaml.")
    parts = training_speech(stage)
    description = described("components.tokenizers.audio.mel_codec", params)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(description)
    length = round(params.seconds * SAMPLE_RATE)
    starting = torch.Generator().manual_seed(derive_seed(stage.seed, _START))
    some = model.spectra(drawn_stretches(parts, params.start_stretches, length, starting))
    model.fit_scale(some)
    model.start_from(some, starting)

    def draw_batch(step: int, generator: torch.Generator) -> tuple[Tensor, int]:
        return drawn_stretches(parts, params.batch_size, length, generator), model.draw_step(generator)

    def loss(model: nn.Module, batch: tuple[Tensor, int], _: torch.Generator) -> tuple[Tensor, dict]:
        waveforms, kept = batch
        frames = model.spectra(waveforms)
        result = model(frames, kept)
        absolute, squared = model.errors(result.decoded, frames)
        # The quantizer sums over the dimensions of a vector; its loss is meant per dimension.
        quantized = result.codes.loss / params.code_dim
        series = {"absolute": absolute, "squared": squared, "quantizer_loss": quantized, "kept": float(kept)}
        return absolute + squared + quantized, series

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
        units={"kept": "codebooks"},
    )
    table = MetricTable()
    facts = _measure(stage, model, vocoder, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_base(stage.output, model, description, _card(stage, model, facts, sum(part.seconds for part in parts)))


@torch.no_grad()
def _measure(stage: StageContext, model: nn.Module, vocoder: nn.Module, table: MetricTable) -> dict[str, float]:
    facts: dict[str, float] = {}
    examples = {}
    total = len(model.codebook_sizes)
    every = rates(total)
    for name, speech in measured_sets(stage, stage.params.test_utterances).items():
        natural = rendered(speech, lambda waveforms: vocoder(model.spectra(waveforms)), stage.device)
        ceiling = measure(table, speech, natural, {"codebooks": "none", "speech": name}, all_of_them=False)
        facts[f"ceiling_{name}"] = ceiling["mel_distance"]
        shown = {"original": speech.waveform(0), "vocoder": natural[0]}
        for kept in every:

            def render(waveforms: Tensor, kept: int = kept) -> Tensor:
                return vocoder(model(model.spectra(waveforms), kept).decoded)

            decoded = rendered(speech, render, stage.device)
            shown[f"{model.bits_per_second(kept) / 1000:.1f} kbps"] = decoded[0]
            found = measure(table, speech, decoded, {"codebooks": kept, "speech": name}, all_of_them=kept == every[-1])
            facts |= {f"{metric}_{name}_{kept}": value for metric, value in found.items()}
            if name == "digits":
                errors = add_word_errors(stage, table, f"digit_wer_rvq{kept}", speech, decoded)
                if errors is not None:
                    facts[f"digit_wer_{kept}"] = errors
        examples[f"{name} {speech.names[0].rpartition('/')[2]}"] = shown
        if name == "digits":
            waves = [speech.waveform(row).unsqueeze(0).to(stage.device) for row in range(len(speech))]
            codes = torch.cat([model.encode(model.spectra(wave))[0].cpu() for wave in waves])
            stream = range_coding.encode(codes.numpy(), model.codebook_sizes)
            rate = 8 * len(stream) / (len(codes) / model.vectors_per_second)
            values = {
                "mel_distance_share": (facts[f"mel_distance_digits_{total}"] / flat_mel_distance(speech), "share"),
                "codebook_usage": (float(usage_per_index(codes, model.codebook_sizes).min()), "share"),
                "bit_rate": (model.bits_per_second(), "bits/s"),
                "coded_rate": (rate, "bits/s"),
            }
            for metric, (value, unit) in values.items():
                table.add(metric, value, unit=unit, samples=len(speech))
                facts[metric] = value
    write_examples(stage.output, examples)
    return facts


def _card(stage: StageContext, model: nn.Module, facts: dict[str, float], seconds: float) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    total = len(model.codebook_sizes)
    measured = "\n".join(
        f"  - {name}: {facts[f'mel_distance_{name}_{total}']:.2f} dB; natural frames through the vocoder "
        f"{facts[f'ceiling_{name}']:.2f} dB"
        for name in ("digits", "sentences", "held_out_voices")
        if f"mel_distance_{name}_{total}" in facts
    )
    judged = (
        f" Word errors of the judge on digits: {facts[f'digit_wer_{total}']:.1%}."
        if f"digit_wer_{total}" in facts
        else ""
    )
    return f"""# {stage.paper}

A codec of log-mel frames ({model.bands} bands every 10 ms): {params.codebooks} residual codes of {params.codebook_size} every 20 ms, {params.blocks} ConvNeXt blocks of width {params.width}
in the encoder and as many in the decoder ({count:,} parameters beside the codebooks). A frozen mel vocoder renders it.

- Trained on: {seconds / 3600:.2f} h of clean speech (connected digits, synthetic sentences), {params.steps:,} steps of {params.batch_size} x {params.seconds:g} s,
  AdamW {params.learning_rate:g} with cosine decay, absolute + squared error in deviations of a band, seed {stage.seed}.
- Rendered utterances that no training heard, mel distance with all codebooks ({facts["bit_rate"] / 1000:.2f} kbps, {facts["coded_rate"] / 1000:.2f} after an adaptive
  range coder):
{measured}
- Mel distance of digits: {facts["mel_distance_share"]:.1%} of that of each utterance's mean frame; the least used codebook uses {facts["codebook_usage"]:.1%} of
  its codes.{judged}
- Use: the start of codecs that a paper trains on per arm and seed, which takes minutes. `examples/` has WAV files.
- Not for: music, noise, other sample rates, or comparing codecs by waveform measures.

```python
from components.bases import load_base

codec, vocoder = load_base("{stage.paper}"), load_base("mel-vocoder")
tokens = codec.encode(codec.spectra(waveforms))   # waveforms (B, S) at 8 kHz; tokens (B, S / 160, {params.codebooks})
rendered = vocoder(codec.decode(tokens))          # (B, 160 P)
```
"""  # noqa: E501
