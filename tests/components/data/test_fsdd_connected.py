"""Connected digits: whole recordings with gaps of noise between them, and no recording in two splits."""

import io
import itertools
import wave

import numpy as np
import polars as pl
import pytest

from components.data import fsdd_connected, parquet
from components.data.fsdd_connected import DIGITS, connected, joined
from components.data.speech import FILE, SCHEMA, SpeechError

SPEAKERS = ("ann", "bo")


def wav(samples) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(np.asarray(samples, "<i2").tobytes())
    return content.getvalue()


@pytest.fixture(scope="module")
def recordings():
    draws = np.random.default_rng(0)
    rows = [
        (wav(draws.integers(-9_000, 9_000, draws.integers(400, 900))), digit, speaker, take, "train")
        for speaker, digit, take in itertools.product(SPEAKERS, range(10), range(50))
    ]
    schema = {"audio": pl.Binary, "digit": pl.Int8, "speaker": pl.String, "index": pl.Int16, "split": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.fixture(scope="module")
def table(recordings):
    return connected(recordings, {"train": 300, "dev": 60, "test": 60})


def test_no_recording_is_in_two_splits_and_test_has_the_publishers_takes(table):
    sources = {
        split: set(part["sources"].explode())
        for (split,), part in table.group_by("split")
    }  # fmt: skip
    for one, other in itertools.combinations(sources.values(), 2):
        assert not one & other
    takes = {split: {int(name.rsplit("_", 1)[1]) for name in names} for split, names in sources.items()}
    assert takes["test"] <= set(range(5))
    assert takes["dev"] <= set(range(5, 8))
    assert takes["train"] == set(range(8, 50))


def test_an_utterance_is_three_to_six_digits_of_one_speaker_and_its_text_names_them(table):
    assert dict(table.schema) == SCHEMA
    assert set(table["sources"].list.len()) == {3, 4, 5, 6}
    for row in table.head(50).iter_rows(named=True):
        digits = [int(name.split("_")[0]) for name in row["sources"]]
        assert row["text"] == " ".join(DIGITS[digit] for digit in digits)
        assert {name.split("_")[1] for name in row["sources"]} == {row["speaker"]}
        assert [word["word"] for word in row["words"]] == row["text"].split()
        assert row["words"][-1]["end"] == len(row["samples"])
    counts = table.filter(pl.col("split") == "train")["speaker"].value_counts()
    assert set(counts["count"]) == {150}


def test_recordings_stand_unchanged_at_their_times_between_gaps_of_the_asked_length():
    draws = np.random.default_rng(1)
    waves = [draws.integers(-9_000, 9_000, size).astype(float) for size in (500, 700, 600)]
    samples, spans = joined(waves, np.random.default_rng(2))
    assert samples.dtype == np.int16
    for place, (wave_, (start, end)) in enumerate(zip(waves, spans, strict=True)):
        assert end - start == len(wave_)
        first, last = (0 if place == 0 else 40), (len(wave_) if place == 2 else len(wave_) - 40)
        np.testing.assert_array_equal(samples[start + first : start + last], wave_[first:last])
    gaps = [start - end for (_, end), (start, _) in itertools.pairwise(spans)]
    assert all(160 <= gap <= 960 for gap in gaps)


def test_a_gap_is_as_loud_as_the_quieter_edge_beside_it():
    loud, quiet = np.full(2_000, 0.0), np.full(2_000, 0.0)
    draws = np.random.default_rng(3)
    loud[:] = draws.normal(0, 3_000, 2_000)
    quiet[:] = draws.normal(0, 100, 2_000)
    samples, (first, second) = joined([loud, quiet], np.random.default_rng(4))
    gap = samples[first[1] : second[0]].astype(float)
    edge = quiet[:120] - quiet[:120].mean()
    # The whole filling, cross-fades included, has exactly that power.
    assert np.sqrt(np.square(gap).mean()) == pytest.approx(np.sqrt(np.square(edge).mean()), rel=0.35)
    still, (first, second) = joined([np.zeros(500), loud], np.random.default_rng(5))
    assert not still[first[1] : second[0]].any()


def test_equal_seeds_give_equal_rows_and_a_file_gives_the_table(recordings, tmp_path, monkeypatch):
    few = {"train": 4, "dev": 2, "test": 2}
    assert connected(recordings, few).equals(connected(recordings, few))
    assert not connected(recordings, few).equals(connected(recordings, few, seed=1))
    parquet.write(recordings, tmp_path / "fsdd.parquet")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(fsdd_connected, "_UTTERANCES", few)
    fsdd_connected.from_recordings({"fsdd/fsdd.parquet": tmp_path / "fsdd.parquet"}, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FILE]
    assert parquet.read(tmp_path / "out" / FILE).equals(connected(recordings, few))


def test_missing_takes_and_unknown_splits_are_named(recordings):
    with pytest.raises(SpeechError, match="no split 'valid'"):
        connected(recordings, {"valid": 1})
    with pytest.raises(SpeechError, match="is missing"):
        connected(recordings.filter(pl.col("index") > 4), {"test": 5})
