"""What bases that render speech share: training stretches, measures, and examples to hear and to see."""

from __future__ import annotations

import math
import wave
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from components.audio.spectra import LogMelFrames
from components.bases import load_model
from components.data.speech import SAMPLE_RATE, Speech, read_speech, to_samples
from components.metrics.speech_quality import mel_cepstral_distortion, mel_distance, pitch_errors, si_sdr, stoi
from components.metrics.tables import MetricTable
from components.metrics.word_error import word_errors
from components.speech.judge import load_judge
from flows.studies.bases.utterances import DIGITS, SENTENCES, add_error_rate, speech_folder
from flows.studies.context import StageContext

JUDGE = "ctc-judge"
_PIECE = SAMPLE_RATE * 60  # samples that are rendered together at most, padding included
_MEASURES = {"mel_distance": "dB", "mel_cepstral_distortion": "dB", "si_sdr": "dB", "stoi": "", "pitch_error": "cents"}


def measured_sets(stage: StageContext, count: int) -> dict[str, Speech]:
    """Return what is measured by name: digits, sentences, and sentences of voices that no training heard."""
    sets = {"digits": read_speech(speech_folder(stage, DIGITS), "test", count)}
    if f"data/{SENTENCES}" in stage.inputs:
        sets["sentences"] = read_speech(speech_folder(stage, SENTENCES), "test", count)
        sets["held_out_voices"] = read_speech(speech_folder(stage, SENTENCES), "held_out", count)
    return sets


def drawn_stretches(parts: Sequence[Speech], count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw a batch of stretches (count, length), as many from each data set as from any other."""
    shares = [count // len(parts) + (place < count % len(parts)) for place in range(len(parts))]
    drawn = [part.crops(share, length, generator) for part, share in zip(parts, shares, strict=True) if share]
    return torch.cat(drawn)


@torch.no_grad()
def rendered(speech: Speech, render: Callable[[Tensor], Tensor], device: str) -> list[Tensor]:
    """Render every utterance and cut it to its own length, on the CPU.

    Args:
        speech: N utterances.
        render: Waveforms (B, at least S) of waveforms (B, S).
        device: Where.
    """
    # In batches of like lengths: what a network makes of the silence behind a shorter one is cut off.
    order = speech.lengths.argsort(stable=True)
    size = max(1, _PIECE // int(speech.lengths.max()))
    found: dict[int, Tensor] = {}
    for rows in order.split(size):
        waveforms, lengths = speech.padded(rows)
        decoded = render(waveforms.to(device)).clamp(-1, 1).cpu()
        for row, one, length in zip(rows.tolist(), decoded, lengths.tolist(), strict=True):
            found[row] = one[:length]
    return [found[row] for row in range(len(speech))]


def measure(
    table: MetricTable, speech: Speech, decoded: Sequence[Tensor], at: Mapping[str, object], all_of_them: bool = True
) -> dict[str, float]:
    """Add measures of rendered utterances, one value each, and return their means.

    Args:
        table: Gains them.
        speech: The originals.
        decoded: Rendered waveforms (S,).
        at: Condition; empty for none.
        all_of_them: Also the slow ones, intelligibility and pitch.
    """
    frames = LogMelFrames()
    values: dict[str, list[float]] = {}
    for row, waveform in enumerate(decoded):
        original = speech.waveform(row)
        values.setdefault("mel_distance", []).append(mel_distance(waveform, original, frames))
        values.setdefault("mel_cepstral_distortion", []).append(mel_cepstral_distortion(waveform, original, frames))
        values.setdefault("si_sdr", []).append(si_sdr(waveform, original))
        if all_of_them:
            values.setdefault("stoi", []).append(stoi(waveform, original))
            values.setdefault("pitch_error", []).append(pitch_errors(waveform, original).cents)
    facts = {}
    for name, each in values.items():
        # Some utterances are too short to be judged, or have no voiced frame.
        heard = [(value, item) for value, item in zip(each, speech.names, strict=True) if not math.isnan(value)]
        if heard:
            table.add_items(
                name, [value for value, _ in heard], unit=_MEASURES[name], at=at, items=[i for _, i in heard]
            )
            facts[name] = sum(value for value, _ in heard) / len(heard)
    return facts


def flat_mel_distance(speech: Speech) -> float:
    """Return the mel distance of utterances from their own mean frame, dB: a floor that knows no time."""
    frames = LogMelFrames()
    total = 0.0
    for row in range(len(speech)):
        (one,) = frames(speech.waveform(row).unsqueeze(0))
        total += 20 / math.log(10) * float((one - one.mean(0)).abs().mean())
    return total / len(speech)


def add_word_errors(
    stage: StageContext, table: MetricTable, metric: str, speech: Speech, decoded: Sequence[Tensor]
) -> float | None:
    """Add the word error rate of the judge on rendered utterances, where the base names the judge."""
    if f"bases/{JUDGE}" not in stage.inputs:
        return None
    judge = load_judge(stage.inputs[f"bases/{JUDGE}"])
    judge.recogniser.to(stage.device)
    return add_error_rate(table, metric, word_errors(judge.transcribe(list(decoded)), speech.texts))


def frozen_base(stage: StageContext, beginning: str) -> torch.nn.Module | None:
    """Return the base whose name begins so, on the stage's device and without gradient, or None."""
    for name, path in stage.inputs.items():
        if name.startswith(f"bases/{beginning}"):
            return load_model(path).to(stage.device).requires_grad_(False)
    return None


def write_wav(path: Path, waveform: Tensor) -> None:
    """Write a waveform (S,) as 16-bit WAV at 8 kHz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(to_samples(waveform).numpy().astype("<i2").tobytes())


def write_examples(directory: Path, examples: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write `examples/<utterance>-<version>.wav` and `examples.png`, the spectrogram of every version.

    Args:
        directory: Existing directory.
        examples: For each utterance, its versions (original first) by name: waveforms (S,).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    (directory / "examples").mkdir(exist_ok=True)
    frames = LogMelFrames()
    columns, rows = len(examples), max(len(versions) for versions in examples.values())
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 1.7 * rows + 0.6), squeeze=False)
    for column, (utterance, versions) in enumerate(examples.items()):
        for row, (version, waveform) in enumerate(versions.items()):
            write_wav(directory / "examples" / f"{_file(utterance)}-{_file(version)}.wav", waveform)
            axis = axes[row][column]
            picture = 20 / math.log(10) * frames(waveform.unsqueeze(0))[0].t()
            image = axis.imshow(
                picture.numpy(),
                origin="lower",
                aspect="auto",
                vmin=-80,
                vmax=0,
                extent=(0, len(waveform) / SAMPLE_RATE, 0, len(picture)),
            )
            axis.set_title(f"{utterance}: {version}" if row == 0 else version, fontsize=8)
            axis.set_ylabel("mel band", fontsize=7)
            axis.tick_params(labelsize=6)
        axes[len(versions) - 1][column].set_xlabel("time (s)", fontsize=7)
    # Fixed margins: finding them would draw everything three times.
    figure.subplots_adjust(left=0.05, right=0.9, bottom=0.45 / (1.7 * rows), top=0.93, hspace=0.55, wspace=0.2)
    figure.colorbar(image, cax=figure.add_axes((0.92, 0.2, 0.012, 0.6)), label="dB of full scale")
    # The library's version in the file would make equal pictures differ.
    figure.savefig(directory / "examples.png", dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
