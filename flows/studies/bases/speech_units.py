"""Recipe of the semantic tokens: clusters of every layer of a speech encoder, and the units of every utterance."""

from __future__ import annotations

import json

import polars as pl
import torch

from components.bases import construct, load_model, save_base, specification
from components.data import tables
from components.data.speech import read_speech
from components.metrics.codebook import perplexity, usage
from components.metrics.tables import MetricTable, write_parquet
from components.metrics.unit_quality import UnitQuality
from components.tokenizers.audio.ssl_kmeans import SSLKMeans
from flows.studies.bases.phones import phone_frames, phone_quality
from flows.studies.bases.ssl_encoder import frames_of, layer_of
from flows.studies.bases.utterances import DIGITS, SENTENCES, in_batches, speech_folder, utterances
from flows.studies.context import StageContext

_BATCH = 32


def train(stage: StageContext) -> None:
    """Cluster training frames, measure units on test sentences, store the units of all utterances and a card."""
    params = stage.params
    ((folder),) = (path for name, path in stage.inputs.items() if name.startswith("bases/"))
    encoder = load_model(folder)
    streams = [[layer, size] for layer in params.layers for size in params.codes]
    described = json.loads((folder / "config.json").read_text())
    description = specification("components.tokenizers.audio.ssl_kmeans", encoder=described, streams=streams)
    model = construct(description)
    model.encoder.load_state_dict(encoder.state_dict())
    model.to(stage.device).eval()
    heard = utterances(stage, "train", params.train_utterances)
    for layer in params.layers:
        # One layer at a time: the frames of all of them would not fit into a small memory.
        frames = torch.cat(frames_of(heard, layer_of(model.encoder, layer), stage.device))
        model.fit_layer(layer, frames, stage.seed)
    table = MetricTable()
    facts = _measure(stage, model, table)
    table.write(stage.output)
    write_parquet(_stored(stage, model), stage.output / "units.parquet")
    save_base(stage.output, model, description, _card(stage, model, facts, folder.name, len(heard)))


@torch.no_grad()
def _measure(stage: StageContext, model: SSLKMeans, table: MetricTable) -> dict[tuple[int, int], UnitQuality]:
    """Measure, for every stream, what its units tell about phonemes, and how evenly they are used."""
    test = phone_frames(stage, model.encoder, stage.params.test_utterances)
    found: dict[tuple[int, int], UnitQuality] = {}
    for layer in stage.params.layers:
        features = frames_of(test.speech, layer_of(model.encoder, layer), stage.device)
        for size in stage.params.codes:
            quality = phone_quality(test, features, model.centres(layer, size).cpu())
            found[layer, size] = quality
            at = {"layer": layer, "codes": size}
            for name, unit in (("normalised_information", "share"), ("phone_purity", "share")):
                table.add(name, getattr(quality, name), unit=unit, at=at, samples=len(test.phones))
    units = torch.cat([_inside(model, batch) for _, batch in in_batches(test.speech, _BATCH, stage.device)])
    for place, (layer, size) in enumerate(model.streams):
        at = {"layer": layer, "codes": size}
        table.add("usage", usage(units[:, place], size), unit="share", at=at, samples=len(units))
        table.add("perplexity", perplexity(units[:, place], size), unit="codes", at=at, samples=len(units))
    return found


def _inside(model: SSLKMeans, batch) -> torch.Tensor:
    units = model.encode(*batch)
    return units[units[..., 0] >= 0].cpu()


def _stored(stage: StageContext, model: SSLKMeans) -> pl.DataFrame:
    """Return the units of every utterance of every split: one column for each stored stream."""
    streams = [stream for stream in model.streams if stream[0] in stage.params.stored_layers]
    if not streams:
        return pl.DataFrame(schema={"dataset": pl.String, "utterance": pl.String})
    part, frames = model.only(streams), []
    for data in (DIGITS, SENTENCES):
        if f"data/{data}" not in stage.inputs:
            continue
        for split in tables.split_names(speech_folder(stage, data)):
            speech = read_speech(speech_folder(stage, data), split)
            units: list[list[list[int]]] = [[]] * len(speech)
            for rows, batch in in_batches(speech, _BATCH, stage.device):
                for row, each in zip(rows, part.encode(*batch).cpu(), strict=True):
                    units[row] = each[each[:, 0] >= 0].t().tolist()
            columns = {"dataset": [data] * len(speech), "utterance": speech.names}
            for place, (layer, size) in enumerate(streams):
                series = pl.Series([each[place] for each in units], dtype=pl.List(pl.UInt16))
                columns[f"layer{layer}_{size}"] = series
            frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def _card(
    stage: StageContext, model: SSLKMeans, facts: dict[tuple[int, int], UnitQuality], encoder: str, heard: int
) -> str:
    rows = "\n".join(
        f"| {layer} | {size} | {quality.normalised_information:.3f} | {quality.phone_purity:.3f} |"
        for (layer, size), quality in facts.items()
    )
    stored = ", ".join(map(str, stage.params.stored_layers))
    layer, size = next(((layer, size) for layer, size in model.streams if (layer, size) == (3, 200)), model.streams[0])
    return f"""# {stage.paper}

Semantic tokens of speech: k-means of the layers of {encoder}, {model.encoder.frame_rate:g} units a second and stream.

- Clusters: mini-batch k-means of the frames of {heard:,} training utterances, seed {stage.seed}.
- `units.parquet`: the units of every utterance of every split, layers {stored}.
- Not for: sound. What a unit leaves out (speaker, pitch) is gone.

| layer | codes | share of the phonemes' entropy | phone purity |
|---|---|---|---|
{rows}

```python
from components.bases import load_base

tokenizer = load_base("{stage.paper}").only([({layer}, {size})])
units = tokenizer.encode(waveform, samples)   # (B, T, 1), -1 behind the end
```
"""


def stored_units(directory, dataset: str, layer: int, size: int) -> dict[str, list[int]]:
    """Return the stored units of a stream by name of the utterance."""
    frame = pl.read_parquet(directory / "units.parquet", columns=["dataset", "utterance", f"layer{layer}_{size}"])
    frame = frame.filter(pl.col("dataset") == dataset)
    return dict(zip(frame["utterance"].to_list(), frame[f"layer{layer}_{size}"].to_list(), strict=True))
