"""The recipe of the scan, on a tiny encoder: what it ranks, and that an interruption changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from components.analysis import sticky_scan
from components.analysis.sticky_vocabulary import usable_tokens, vocabulary
from components.encoders.sentence import load_sentence_encoder
from flows.studies.analysis import sentence_standin, standin
from flows.studies.bases import token_scan
from flows.studies.bases.token_scan_params import Params
from flows.studies.context import StageContext

SETS = ("all-minilm-l6-v2", "ud", "multi30k", "wikitext2")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("data")
    found = {}
    for name in SETS:
        found[f"data/{name}"] = root / name
        found[f"data/{name}"].mkdir()
        (sentence_standin if name in sentence_standin.DATA else standin).make(name, found[f"data/{name}"])
    return found


@pytest.fixture(autouse=True)
def small_blocks_and_a_high_mean(monkeypatch):
    monkeypatch.setattr(sticky_scan, "BLOCK", 5)
    # Sentences of an untrained encoder are all alike: their pairs lie above the mean similarity of its tokens.
    monkeypatch.setattr(token_scan, "mean_similarity", lambda vectors: 0.99)


def context(inputs: dict[str, Path], root: Path, progress=lambda done, total: None) -> StageContext:
    for name in ("run", "log", "checkpoint"):
        (root / name).mkdir(parents=True, exist_ok=True)
    settings = Params(sentences=20, samples=2, copies=(1, 2))
    parts = (root / "run", root / "log", root / "checkpoint")
    return StageContext("base", "scan", "", "", 0, "small", settings, inputs, *parts, progress=progress)


def test_every_usable_token_is_ranked_and_what_it_was_ranked_on_is_written(inputs, tmp_path):
    stage = context(inputs, tmp_path)
    token_scan.train(stage)
    ranking = pl.read_parquet(stage.output / token_scan.RANKING)
    encoder = load_sentence_encoder(inputs["data/all-minilm-l6-v2"])
    assert sorted(ranking["id"]) == usable_tokens(encoder).tolist()
    names = vocabulary(encoder)
    assert ranking["token"].to_list() == [names[place] for place in ranking["id"]]
    assert ranking["score"].is_sorted(descending=True)
    described = json.loads((stage.output / token_scan.DESCRIPTION).read_text())
    assert described["usable"] == len(ranking)
    assert len(described["first"]) == len(described["second"]) == 2
    cosines = (encoder.encode(described["first"]) * encoder.encode(described["second"])).sum(-1)
    assert cosines.tolist() == pytest.approx(described["similarity"], abs=1e-5)
    assert "# scan" in (stage.output / "card.md").read_text()


def test_a_scan_that_was_interrupted_writes_the_same_bytes(inputs, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 10:
            raise Stopped

    whole = context(inputs, tmp_path / "whole")
    token_scan.train(whole)
    with pytest.raises(Stopped):
        token_scan.train(context(inputs, tmp_path / "broken", stop))
    assert not list((tmp_path / "broken" / "run").iterdir())
    blocks = sorted(path.name for path in (tmp_path / "broken" / "checkpoint").iterdir())
    assert blocks == ["single-tokens.safetensors", "tokens-000000.safetensors", "tokens-000005.safetensors"]
    measured = []
    original = sticky_scan.distance_curves
    monkeypatch.setattr(sticky_scan, "distance_curves", lambda *args: measured.append(args[1]) or original(*args))
    resumed = context(inputs, tmp_path / "broken")
    token_scan.train(resumed)
    total = pl.read_parquet(whole.output / token_scan.RANKING).height
    assert sum(map(len, measured)) == total - 10
    for name in (token_scan.RANKING, token_scan.DESCRIPTION, "metrics.parquet", "card.md"):
        assert (whole.output / name).read_bytes() == (resumed.output / name).read_bytes()
