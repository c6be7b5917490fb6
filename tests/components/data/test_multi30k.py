import gzip
import json

import polars as pl
import pytest

from components.data import multi30k


def raw(directory, lines=2, missing=(), other=()):
    """Write the publisher's files: `lines` descriptions per split and language."""
    paths = {}
    for split in multi30k.SPLITS:
        for language in multi30k.LANGUAGES:
            if (split, language) in missing:
                continue
            count = lines + ((split, language) in other)
            text = "".join(f" {split} {language} {line}: ein Hündchen \n" for line in range(count))
            path = directory / f"{split}.{language}.gz"
            path.write_bytes(gzip.compress(text.encode()))
            paths[path.name] = path
    return paths


def test_lines_of_all_languages_become_rows_and_a_missing_language_is_null(tmp_path):
    multi30k.from_parallel_texts(raw(tmp_path, missing=[("test_2017_mscoco", "cs")]), tmp_path)
    frame = pl.read_parquet(tmp_path / "multi30k.parquet")
    assert frame.columns == ["split", "index", "en", "de", "fr", "cs"]
    assert frame["split"].unique(maintain_order=True).to_list() == list(multi30k.SPLITS)
    assert frame.filter(split="val")["index"].to_list() == [0, 1]
    assert frame.filter(split="val")["de"].to_list() == ["val de 0: ein Hündchen", "val de 1: ein Hündchen"]
    assert frame.filter(split="test_2017_mscoco")["cs"].null_count() == 2
    assert frame["cs"].null_count() == 2


def test_line_breaks_of_other_alphabets_do_not_cut_a_description(tmp_path):
    paths = raw(tmp_path, lines=1)
    for language in multi30k.LANGUAGES:
        paths[f"val.{language}.gz"].write_bytes(gzip.compress("one\u2028still one\ntwo\n".encode()))
    multi30k.from_parallel_texts(paths, tmp_path)
    frame = pl.read_parquet(tmp_path / "multi30k.parquet")
    assert frame.filter(split="val")["en"].to_list() == ["one\u2028still one", "two"]


def test_languages_that_do_not_run_in_parallel_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"val has .*expected equally many"):
        multi30k.from_parallel_texts(raw(tmp_path, other=[("val", "fr")]), tmp_path)
    with pytest.raises(ValueError, match="none of"):
        multi30k.from_parallel_texts({"val.it.gz": tmp_path / "val.it.gz"}, tmp_path)


def test_descriptions_are_those_of_one_split_and_language(tmp_path):
    multi30k.from_parallel_texts(raw(tmp_path, missing=[("test_2017_flickr", "cs")]), tmp_path)
    rule = {"by": "column", "column": "split", "names": list(multi30k.SPLITS)}
    size = (tmp_path / multi30k.FILE).stat().st_size
    meta = {"name": "multi30k", "tables": {multi30k.FILE: {"bytes": size}}, "splits": rule}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert multi30k.descriptions(tmp_path, "val", "fr") == ["val fr 0: ein Hündchen", "val fr 1: ein Hündchen"]
    assert multi30k.descriptions(tmp_path, "test_2017_flickr", "cs") == []
