"""Training of an arm's network: speech to text, or text to speech, over one kind of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.audio.frame_masks import drawn_bands, drawn_spans
from components.audio.parallel_channel_lm import Spoken
from components.bases import construct, save_model
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.audio_tokenizer.dmel.strings import Tokenization, description, train_speech
from flows.studies.bases.utterances import like_lengths
from flows.studies.context import StageContext

_WEIGHTS = 3  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train the network of a recognition or synthesis arm on strings of digits; write it and its curves."""
    params = stage.params
    speech = train_speech(stage)
    tokenization = Tokenization(stage, speech)
    strings = tokenization.strings(speech, sorted(set(speech.speakers)))
    described = description(params, tokenization.facts, len(strings.known))
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(described)
    reads = params.task == "recognition"
    share, span = (params.read_share, params.read_span) if reads else (params.history_share, params.history_span)
    bands = params.read_bands if reads and params.tokens == "mel_bins" else 0

    def draw_batch(step: int, generator: torch.Generator) -> Spoken:
        batch = strings.batch(like_lengths(speech, params.batch_size, generator).tolist())
        count, length = batch.frames.shape[:2]
        hidden = drawn_spans(batch.frame_counts, length, share, span, generator)
        channels = drawn_bands(count, tokenization.facts.channels, bands, generator)
        return batch._replace(hidden_frames=hidden, hidden_channels=channels)

    def loss(model: nn.Module, batch: Spoken, _: torch.Generator) -> tuple[Tensor, dict]:
        return (model.text_loss(batch) if reads else model.speech_loss(batch)), {}

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(params.steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint,
        progress=stage.progress,
        units={"loss": "nats/symbol" if reads else "nats/channel"},
    )
    curves.write(stage.output)
    save_model(stage.output, model, described)
