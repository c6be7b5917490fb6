"""Evaluation of dMel's arms: resynthesis, text of speech, speech of text, and the time that speaking takes."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from components.audio.parallel_channel_lm import Spoken
from components.bases import construct, load_model
from components.data.fsdd_connected import DIGITS
from components.data.speech import SAMPLE_RATE, read_speech
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.audio_tokenizer import evaluate as study
from flows.studies.audio_tokenizer.dmel.strings import (
    Strings,
    Tokenization,
    Tokens,
    description,
    renderer,
    train_speech,
)
from flows.studies.audio_tokenizer.speech_sets import error_rows
from flows.studies.bases.rendered_speech import write_wav
from flows.studies.context import StageContext

_DRAWS = 7  # random stream of spoken frames
_READ_TOGETHER = 50
_MOST_SYMBOLS = 6
_SHOWN = 5  # a string of several digits is more to hear


def evaluate(stage: StageContext) -> None:
    """Evaluate an arm as its task asks."""
    tasks = {"resynthesis": study.evaluate, "recognition": _recognition, "synthesis": _synthesis, "speed": _speed}
    tasks[stage.params.task](stage)


def _prepared(stage: StageContext, count: int) -> tuple[nn.Module, Tokenization, Strings]:
    speech = train_speech(stage)
    tokenization = Tokenization(stage, speech)
    test = read_speech(stage.inputs[f"data/{stage.params.strings}"], "test", count)
    model = load_model(stage.inputs["train"]).to(stage.device)
    return model, tokenization, tokenization.strings(test, sorted(set(speech.speakers)))


def _on(batch: Spoken, device: str) -> Spoken:
    return Spoken(*(None if each is None else each.to(device) for each in batch))


def _recognition(stage: StageContext) -> None:
    """Read every test string, and the speech of another one in its place."""
    model, tokenization, strings = _prepared(stage, stage.params.test_strings)
    table = MetricTable()
    table.add("token_rate", tokenization.facts.frame_rate, unit="tokens/s", samples=len(strings.frames))
    read: list[str] = []
    for rows in torch.arange(len(strings.frames)).split(_READ_TOGETHER):
        batch = _on(strings.batch(rows.tolist()), stage.device)
        read += [" ".join(DIGITS[digit] for digit in text) for text in model.transcribe(batch, _MOST_SYMBOLS)]
    names = [name.rpartition("/")[2] for name in strings.speech.names]
    texts = strings.speech.texts
    other = [read[place] for place in others(texts)]
    for speech, transcripts in (("own", read), ("other", other)):
        rows = error_rows(transcripts, texts)
        table.add_items("asr_wer", rows, unit="percent", at={"speech": speech}, items=names, normaliser="words")
    table.write(stage.output)


def others(texts: list[str]) -> list[int]:
    """Return for every text the place of the next one that says something else, going round; its own if none does."""
    count, found = len(texts), []
    for place in range(count):
        steps = (step for step in range(1, count) if texts[(place + step) % count] != texts[place])
        found.append((place + next(steps, 0)) % count)
    return found


@torch.no_grad()
def _synthesis(stage: StageContext) -> None:
    """Speak the test texts, with and without them, and render natural tokens in the same way."""
    params = stage.params
    model, tokenization, strings = _prepared(stage, params.spoken_strings)
    render = renderer(stage, tokenization)
    judge = study.judge_of(stage, words=DIGITS, texts=train_speech(stage).texts)
    texts, speakers = strings.speech.texts, strings.speech.speakers
    names = [name.rpartition("/")[2] for name in strings.speech.names]
    table = MetricTable()
    table.add("token_rate", tokenization.facts.frame_rate, unit="tokens/s", samples=len(texts))
    voices = study.Speakers(stage)
    (stage.output / "examples").mkdir()
    for version in ("given", "removed", "natural"):
        frames = strings.frames if version == "natural" else _spoken(stage, model, tokenization.facts, strings, version)
        sounds = [
            _sound(render, each.to(stage.device), speaker) for each, speaker in zip(frames, speakers, strict=True)
        ]
        rows = error_rows(judge.transcribe(sounds), texts)
        if version == "natural":
            table.add_items("ceiling_wer", rows, unit="percent", items=names, normaliser="words")
            continue
        table.add_items("tts_wer", rows, unit="percent", at={"text": version}, items=names, normaliser="words")
        if version == "given":
            seconds = [len(each) / tokenization.facts.frame_rate for each in frames]
            table.add_items("generated_seconds", seconds, unit="s", items=names)
            right = voices.recognised(voices.vectors(sounds), speakers)
            table.add_items("generated_speaker_accuracy", right, unit="percent", items=names)
            shown = max(range(min(_SHOWN, len(texts))), key=lambda row: len(texts[row]))
            kept = sounds[shown][: round(params.example_seconds * SAMPLE_RATE)]
            write_wav(stage.output / "examples" / "spoken.wav", kept)
    table.write(stage.output)


def _spoken(stage: StageContext, model: nn.Module, facts: Tokens, strings: Strings, version: str) -> list[Tensor]:
    generator = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, _DRAWS))
    longest, found = round(stage.params.longest_seconds * facts.frame_rate), []
    for rows in torch.arange(len(strings.frames)).split(stage.params.generated_together):
        batch = _on(strings.batch(rows.tolist()), stage.device)
        if version == "removed":
            batch = batch._replace(text_counts=torch.zeros_like(batch.text_counts))
        found += model.speak(batch, longest, generator, temperature=stage.params.temperature)
        stage.progress(len(found), len(strings.frames))
    return found


def _sound(render, frames: Tensor, speaker: str) -> Tensor:
    # A string that ended at once is silence, which the judge reads as nothing.
    return render(frames, speaker).clamp(-1, 1).cpu() if len(frames) else torch.zeros(SAMPLE_RATE // 10)


def _speed(stage: StageContext) -> None:
    """Time both decoders on networks that are not trained: what a frame takes does not depend on weights."""
    params = stage.params
    table, facts = MetricTable(), Tokens(params.bands, 2**params.lm_bits, SAMPLE_RATE / params.lm_hop)
    text = torch.arange(3, device=stage.device)[None]
    one = torch.ones(1, dtype=torch.int64, device=stage.device)
    batch = Spoken(text[:, :0, None], one * 0, text, one * 3, torch.ones(1, 1, device=stage.device))
    models = {}
    for decoder, group_size in (("parallel", 0), ("groups", params.group_size)):
        changed = params.model_copy(update={"group_size": group_size, "task": "synthesis"})
        torch.manual_seed(derive_seed(stage.seed))
        models[decoder] = construct(description(changed, facts, 1)).to(stage.device).eval()
    times: dict[str, list[float]] = {decoder: [] for decoder in models}
    for run in range(params.timed_runs + 1):
        for decoder, model in models.items():
            generator = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, run))
            began = time.perf_counter()
            model.speak(batch, params.timed_frames, generator, stop=False)[0].cpu()
            if run:  # the first one warms up
                times[decoder].append(time.perf_counter() - began)
    for decoder, seconds in times.items():
        rate = params.timed_frames / statistics.median(seconds)
        table.add("frames_per_second", rate, unit="frames/s", at={"decoder": decoder}, samples=len(seconds))
    table.write(stage.output)
