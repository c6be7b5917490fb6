"""Measure the distances that an arm's tokens cause; nothing is learned, and several arms read one measurement."""

from __future__ import annotations

import json

import numpy as np
import torch

from components.analysis.sticky_scoring import distance_curves, token_distances
from components.metrics.tables import write_parquet
from components.training.weights import write_tensors
from flows.studies.analysis.sticky_tokens.params import TrainParams
from flows.studies.analysis.sticky_tokens.sources import read_sources
from flows.studies.context import StageContext

DISTANCES, TOKENS, FACTS = "distances.safetensors", "tokens.parquet", "sample.json"


def train(stage: StageContext) -> None:
    """Write the distances, the tokens, and the sentences of the pairs.

    Verification: (T, P, M, K) on verification pairs, and with the most copies on pairs above the mean similarity.
    Ranking: on scoring pairs, with the distance of each token alone. Definition: on verification pairs.
    """
    params: TrainParams = stage.params
    sources = read_sources(stage)
    encoder, sentences = sources.encoder, sources.sentences()
    sets = sources.pairs(sentences)
    tokens = sources.tokens()
    texts = tokens["token"].to_list()
    chosen = sets.scoring if params.measure == "ranking" else sets.verification
    edits = sources.edits(sentences, chosen, params.copies)
    distances, realised = distance_curves(encoder, texts, edits, progress=stage.progress)
    found = {"distances": distances}
    if params.measure == "ranking":
        found["apart"] = token_distances(encoder, texts, edits.first)
    elif params.measure == "verification" and len(sets.above):
        above = sources.edits(sentences, sets.above, params.copies[-1:])
        found["above"] = distance_curves(encoder, texts, above)[0]
    write_tensors(
        {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}, stage.output / DISTANCES
    )
    write_parquet(tokens.with_columns(realised=realised.mean(1)), stage.output / TOKENS)
    facts = {
        "centre": sources.centre,
        "second": [sentences[row] for row in chosen.second],
        "copies": list(edits.counts),
    }
    (stage.output / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
