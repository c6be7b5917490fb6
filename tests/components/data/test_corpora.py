import json

import polars as pl
import pytest

from components.data import corpora, gsm8k
from components.data.errors import DataError, UnknownSplit
from components.data.python_source import collect
from components.metrics.tables import write_parquet


def data_set(directory, frame, splits=("train", "test")):
    write_parquet(frame, directory / "table.parquet")
    meta = {
        "name": "toy",
        "tables": {"table.parquet": {"bytes": (directory / "table.parquet").stat().st_size}},
        "splits": {"by": "column", "column": "split", "names": list(splits)},
    }
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory


def test_rows_of_text_are_documents(tmp_path):
    directory = data_set(tmp_path, pl.DataFrame({"split": ["train", "test", "train"], "text": ["a", "b", "c"]}))
    assert corpora.training_documents(directory) == ["a", "c"]
    assert corpora.documents(directory, "test") == ["b"]


def test_problems_are_written_out_with_their_answers(tmp_path):
    frame = pl.DataFrame({"split": ["train"], "question": ["1 + 1?"], "answer": ["2\n#### 2"], "final": ["2"]})
    assert corpora.documents(data_set(tmp_path, frame), "train") == ["Question: 1 + 1?\nAnswer: 2\n#### 2\n"]


def test_without_a_training_part_the_validation_part_is_trained_on(tmp_path):
    frame = pl.DataFrame({"split": ["validation", "test"], "text": ["a", "b"]})
    assert corpora.training_documents(data_set(tmp_path, frame, ("validation", "test"))) == ["a"]
    with pytest.raises(UnknownSplit, match="to train on"):
        corpora.training_documents(data_set(tmp_path, frame, ("test",)))


def test_tables_without_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected `text`"):
        corpora.documents(data_set(tmp_path, pl.DataFrame({"split": ["train"], "label": [1]})), "train")


def test_json_lines_become_tables_with_the_final_answer(tmp_path):
    rows = [{"question": "Wie viel?", "answer": "so viel\n#### 1,200"}, {"question": "q", "answer": "a\n#### -3 "}]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    gsm8k.from_json_lines({"train.jsonl": path}, tmp_path)
    frame = pl.read_parquet(tmp_path / "train.parquet")
    assert frame.columns == ["question", "answer", "final"]
    assert frame["final"].to_list() == ["1,200", "-3"]
    assert frame["question"].to_list() == ["Wie viel?", "q"]


def test_modules_are_collected_without_tests_and_very_long_files(tmp_path, monkeypatch):
    package = tmp_path / "toylibrary"
    (package / "tests").mkdir(parents=True)
    code = "value = 1  # äöü\n" * 20
    for name, text in (("__init__.py", code), ("part.py", code), ("tests/test_it.py", code), ("short.py", "x\n")):
        (package / name).write_text(text)
    (package / "table.py").write_text("x = 1\n" * 20_000)
    monkeypatch.syspath_prepend(str(tmp_path))
    collect(tmp_path, packages=["toylibrary"])
    frame = pl.read_parquet(tmp_path / "sources.parquet")
    assert frame["module"].to_list() == ["toylibrary.__init__", "toylibrary.part"]
    assert frame["text"].to_list() == [code, code]
    assert set(frame["package"]) == {"toylibrary"}
    with pytest.raises(DataError, match="'nosuchpackage' is not installed"):
        collect(tmp_path, packages=["nosuchpackage"])
