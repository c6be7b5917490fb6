"""Recipe of the speech encoders that learn without labels: masked prediction of clusters, in two iterations.

cepstra -- k-means -- targets -- encoder 1 -- layer 3 -- k-means -- targets -- encoder 2, which is kept

    L = alpha L_masked + (1 - alpha) L_open

Where only hidden frames count (alpha = 1), a training as short as this makes the layers forget what the open ones are:
their clusters say less about phonemes than those of an untrained network.

Source: Hsu et al. 2021, "HuBERT", sections II-B and II-C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor, nn

from components.audio.mfcc import with_slopes
from components.bases import construct, save_base, specification
from components.data.speech import SAMPLE_RATE, Speech, mixed
from components.metrics.tables import CurveTable, MetricTable
from components.quantizers.minibatch_kmeans import minibatch_kmeans
from components.quantizers.nearest import nearest_codes
from components.speech.masked_prediction import MaskedUnitHead, span_mask
from components.speech.ssl_encoder import STACK, SSLEncoder
from components.training.arithmetic import arithmetic
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.bases.phones import phone_frames, phone_quality
from flows.studies.bases.utterances import cut_at, in_batches, noise_of, part_of, scale_sample, utterances
from flows.studies.context import StageContext

_WEIGHTS, _CLUSTERS = 3, 4  # random streams of this stage
_BATCH = 32
_MIXED_SHARE = 0.3
_SPEAKER_RATIO, _NOISE_RATIO = (0.0, 10.0), (0.0, 20.0)  # dB
FrameFeatures = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Waveforms (B, S), samples (B,) -> features (B, T, D) and their frames (B,)."""


class Stretches(NamedTuple):
    """A training batch: waveforms (B, S), samples (B,), targets (B, T)."""

    waveform: Tensor
    samples: Tensor
    units: Tensor


class Learner(nn.Module):
    """An encoder and the head that its training predicts clusters by."""

    def __init__(self, encoder: SSLEncoder, codes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, MaskedUnitHead(encoder.width, codes)


def train(stage: StageContext) -> None:
    """Train twice, compare the clusters of every layer with phonemes, write the second encoder and a card."""
    params = stage.params
    heard = utterances(stage, "train", params.train_utterances)
    description = specification(
        "components.speech.ssl_encoder",
        width=params.width,
        layers=params.layers,
        heads=params.heads,
        feed_forward=params.feed_forward,
        position_kernel=params.position_kernel,
    )
    features: FrameFeatures = cepstra_of(construct(description).to(stage.device))
    curves, learner = [], None
    for iteration, count in enumerate((params.first_steps, params.second_steps)):
        units = _targets(stage, heard, features, iteration)
        torch.manual_seed(derive_seed(stage.seed, _WEIGHTS, iteration))
        learner = Learner(construct(description), params.codes)
        learner.encoder.fit_scale(*scale_sample(heard))
        found = _learned(stage, learner, heard, units, iteration, count).frame()
        curves.append(found.with_columns(pl.format("iteration_{}_{}", pl.lit(iteration + 1), "series").alias("series")))
        features = layer_of(learner.encoder, params.target_layer)
    table = MetricTable()
    facts = _measure(stage, learner.encoder, heard, table)
    table.write(stage.output)
    CurveTable.from_frame(pl.concat(curves)).write(stage.output)
    save_base(stage.output, learner.encoder, description, _card(stage, learner.encoder, facts, heard))


def cepstra_of(encoder: SSLEncoder) -> FrameFeatures:
    """Return cepstra with slopes at the encoder's frame rate: means of the frames that it reads as one."""

    def features(waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        found = with_slopes(encoder.mel(waveform), (samples + encoder.mel.hop - 1) // encoder.mel.hop)
        found = torch.cat([found, found[:, -1:]], 1) if found.shape[1] % STACK else found
        return found.unflatten(1, (-1, STACK)).mean(2), encoder.frames(samples)

    return features


def layer_of(encoder: SSLEncoder, layer: int) -> FrameFeatures:
    """Return the features of one layer."""

    def features(waveform: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        (found,), frames = encoder.features(waveform, samples, (layer,))
        return found, frames

    return features


@torch.no_grad()
def frames_of(speech: Speech, features: FrameFeatures, device: str) -> list[Tensor]:
    """Return the features (T, D) of every utterance, on the CPU."""
    found: list[Tensor] = [torch.empty(0)] * len(speech)
    for rows, batch in in_batches(speech, _BATCH, device):
        values, frames = features(*batch)
        for row, value, count in zip(rows, values.cpu(), frames.tolist(), strict=True):
            found[row] = value[:count].clone()
    return found


def centres_of(stage: StageContext, heard: Speech, features: FrameFeatures, stream: int) -> Tensor:
    """Cluster the frames of training utterances that are spread evenly, (K, D)."""
    count = min(stage.params.cluster_utterances, len(heard))
    some = part_of(heard, (torch.arange(count) * len(heard)) // count)
    seed = derive_seed(stage.seed, _CLUSTERS, stream)
    return minibatch_kmeans(torch.cat(frames_of(some, features, stage.device)), stage.params.codes, seed=seed)


@torch.no_grad()
def _targets(stage: StageContext, heard: Speech, features: FrameFeatures, iteration: int) -> list[Tensor]:
    """Return the cluster of every frame of every utterance, int64 (T,) each."""
    centres = centres_of(stage, heard, features, iteration).to(stage.device)
    found: list[Tensor] = [torch.empty(0)] * len(heard)
    for rows, batch in in_batches(heard, _BATCH, stage.device):
        values, frames = features(*batch)
        units = nearest_codes(values, centres).cpu()
        for row, each, count in zip(rows, units, frames.tolist(), strict=True):
            found[row] = each[:count].clone()
    return found


def _learned(
    stage: StageContext, learner: Learner, heard: Speech, units: list[Tensor], iteration: int, steps: int
) -> CurveTable:
    params, encoder = stage.params, learner.encoder
    hop = encoder.samples_per_frame
    count = max(1, round(params.seconds * SAMPLE_RATE / hop))
    targets = torch.cat(units)
    firsts = torch.tensor([0, *(len(each) for each in units)]).cumsum(0)
    frames = firsts.diff()
    noise = noise_of(stage)

    def draw_batch(step: int, generator: torch.Generator) -> Stretches:
        rows = torch.randint(len(heard), (params.batch_size,), generator=generator)
        room = (frames[rows] - count).clamp(min=0)
        starts = (torch.rand(len(rows), generator=generator) * (room + 1)).long()
        waveform, samples = cut_at(heard, rows, starts * hop, count * hop)
        places = (firsts[rows] + starts)[:, None] + torch.arange(count)
        stretch = targets[places.clamp(max=len(targets) - 1)]
        if params.denoise:
            waveform = _disturbed(waveform, samples, noise, generator)
        return Stretches(waveform, samples, stretch)

    def loss(learner: nn.Module, batch: Stretches, generator: torch.Generator) -> tuple[Tensor, dict]:
        stacked, found = learner.encoder.stacked(batch.waveform, batch.samples)
        masked = span_mask(found, stacked.shape[1], start=params.mask_start, span=params.mask_span, generator=generator)
        states = learner.encoder(stacked, found, masked)
        hidden = learner.encoder.predicted_from(states)
        nats, right = learner.head(hidden, batch.units, masked)
        heard_frames = (torch.arange(stacked.shape[1], device=found.device) < found[:, None]) & ~masked
        open_nats, open_right = learner.head(hidden, batch.units, heard_frames)
        total = params.masked_weight * nats + (1 - params.masked_weight) * open_nats
        shares = {"masked_accuracy": right, "open_accuracy": open_right, "masked_share": masked.float().mean()}
        return total, {"masked_loss": nats, "open_loss": open_nats, **shares}

    return fit(
        learner,
        draw_batch,
        loss,
        Optimisation(steps, params.learning_rate, params.warmup_steps, weight_decay=params.weight_decay),
        seed=derive_seed(stage.seed, iteration),
        device=stage.device,
        checkpoint=stage.checkpoint / f"iteration-{iteration + 1}",
        progress=stage.progress,
        units={
            "loss": "nats/frame",
            "masked_loss": "nats/masked frame",
            "open_loss": "nats/open frame",
            "masked_accuracy": "share",
            "open_accuracy": "share",
            "masked_share": "share",
        },
    )


def _disturbed(waveform: Tensor, samples: Tensor, noise: Callable, generator: torch.Generator) -> Tensor:
    """Mix a share of stretches (B, S) with noise or, as often, with another one of the batch."""
    count, length = waveform.shape
    inside = torch.arange(length) < samples[:, None]
    draws = torch.rand(3, count, generator=generator)
    other = waveform.roll(1, 0) * inside
    spoken = draws[1] < 0.5
    low, high = (torch.where(spoken, *pair) for pair in zip(_SPEAKER_RATIO, _NOISE_RATIO, strict=True))
    added = torch.where((draws[1] < 0.5)[:, None], other, noise(count, length, generator) * inside)
    return torch.where(
        (draws[0] < _MIXED_SHARE)[:, None], mixed(waveform, added, low + (high - low) * draws[2]), waveform
    )


@torch.no_grad()
def _measure(stage: StageContext, encoder: SSLEncoder, heard: Speech, table: MetricTable) -> dict[str, float]:
    """Measure what clusters of cepstra and of every layer say about phonemes of utterances that no training heard."""
    test = phone_frames(stage, encoder, stage.params.test_utterances)
    found = {}
    for place, name in enumerate(["mfcc", *(f"layer{layer}" for layer in range(1, encoder.layers + 1))]):
        features = cepstra_of(encoder) if not place else layer_of(encoder, place)
        centres = centres_of(stage, heard, features, 10 + place)
        found[name] = phone_quality(test, frames_of(test.speech, features, stage.device), centres)
        at = {"features": name}
        samples = len(test.phones)
        table.add("phone_information", found[name].mutual_information, unit="bits/frame", at=at, samples=samples)
        table.add("phone_purity", found[name].phone_purity, unit="share", at=at, samples=samples)
    chosen = found[f"layer{stage.params.target_layer}"]
    gain = chosen.mutual_information - found["mfcc"].mutual_information
    table.add("phone_information_gain", gain, unit="bits/frame", samples=len(test.phones))
    return {name: each.mutual_information for name, each in found.items()}


def _card(stage: StageContext, encoder: SSLEncoder, facts: dict[str, float], heard: Speech) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in encoder.parameters())
    bits = ", ".join(f"{name} {value:.2f}" for name, value in facts.items())
    kind = (
        "; inputs were mixed with noise or a second speaker, targets were those of clean speech"
        if params.denoise
        else ""
    )
    return f"""# {stage.paper}

A speech encoder that learned without labels: pairs of log-mel frames (50 Hz), a convolution as position, {params.layers} transformer
blocks of width {params.width}, {count:,} parameters.

- Trained on: {len(heard):,} utterances ({heard.seconds / 3600:.1f} h), masked prediction of {params.codes} clusters{kind}.
  {params.first_steps:,} steps with clusters of cepstra, then, from new weights, {params.second_steps:,} with clusters of layer {params.target_layer} of that
  encoder; {params.batch_size} stretches of {params.seconds:g} s, AdamW {params.learning_rate:g}, seed {stage.seed}, {arithmetic(stage.device)}.
- Bits that {params.codes} clusters tell about the phoneme of a frame, on sentences that no training heard: {bits}.
- Use: features and semantic tokens of speech (components.tokenizers.audio.ssl_kmeans).
- Not for: speech of other languages, rooms or microphones. It has heard six people and a synthesiser.

```python
from components.bases import load_base

encoder = load_base("{stage.paper}")
(features,), frames = encoder.features(waveform, samples, ({params.target_layer},))   # (B, T, {params.width}) at 50 Hz
```
"""  # noqa: E501
