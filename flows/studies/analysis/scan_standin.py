"""Stand-in of the scan of a vocabulary for sticky tokens, of the stand-in encoder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import polars as pl

from components.analysis.sticky_vocabulary import usable_tokens, vocabulary
from components.data import ud
from components.encoders.sentence import load_sentence_encoder
from components.metrics.tables import write_parquet
from flows.studies.analysis import sentence_standin

BASES = ("minilm-token-scan",)
_BELOW = 0.8  # share of pairs of sentences that are to lie below the mean similarity


def make(directory: Path) -> None:
    """Write a ranking in the order of the vocabulary, and a mean similarity with pairs of sentences on both sides."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in ("all-minilm-l6-v2", "ud")}
        for name, folder in folders.items():
            folder.mkdir()
            sentence_standin.make(name, folder)
        encoder = load_sentence_encoder(folders["all-minilm-l6-v2"])
        vectors = encoder.encode(ud.sentences(folders["ud"])["text"].to_list())
    names, usable = vocabulary(encoder), usable_tokens(encoder)
    scores = [float(len(usable) - place) for place in range(len(usable))]
    frame = pl.DataFrame({"id": pl.Series(usable, dtype=pl.Int32), "token": [names[place] for place in usable]})
    frame = frame.with_columns(score=pl.Series(scores), no_distance=pl.Series(scores), moved=0.5, realised=1.0)
    write_parquet(frame, directory / "ranking.parquet")
    centre = float((vectors @ vectors.T).flatten().quantile(_BELOW))
    (directory / "scan.json").write_text(json.dumps({"mean_similarity": centre}))
