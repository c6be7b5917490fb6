"""What a declaration may say, and how a mistake is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from components.data.declaration import DataSet
from components.data.errors import DeclarationError, UnknownDataSet
from components.data.registry import load_declarations

ROOT = Path(__file__).parents[3]
HASH = "a" * 64


def declared(**fields):
    base = {
        "title": "t",
        "licence": "l",
        "attribution": "a",
        "tables": {"text.parquet": {"columns": {"text": "string"}}},
        "editions": {"e": {"says": "s", "content": {"text.parquet": HASH}}},
        "sources": [{"kind": "mirror", "edition": "e", "files": {"text.parquet": HASH}}],
    }
    return base | fields


def test_the_projects_own_declarations_are_valid_and_name_existing_functions():
    from components.data.calls import resolve

    data_sets = load_declarations(ROOT / "params/data.yaml")
    assert {"photos", "digits", "markov", "shapes", "cifar10", "noto-emoji", "tinyshakespeare", "books"} <= set(
        data_sets
    )
    for data_set in data_sets.values():
        for function in data_set.functions():
            assert callable(resolve(function))


# The publisher's clips are lossy files at another rate: what the mirror holds cannot be had from there bit for bit.
MIRROR_ONLY = {"esc10"}
# A package has them too, which the lock leaves out: they may come without a network, and need not be there without one.
OPTIONAL_PACKAGE = {"all-minilm-l6-v2"}


def test_every_source_of_the_projects_data_sets_is_pinned_and_remote():
    for name, data_set in load_declarations(ROOT / "params/data.yaml").items():
        kinds = [source.kind for source in data_set.sources]
        optional = name in OPTIONAL_PACKAGE
        assert optional or data_set.embedded == (set(kinds) <= {"package", "generator"}), name
        if not data_set.embedded or optional:
            assert kinds[0] == "mirror", name
            assert "origin" in kinds or name in MIRROR_ONLY, name


def test_modules_are_those_that_a_code_digest_must_cover():
    data_sets = load_declarations(ROOT / "params/data.yaml")
    assert data_sets["cifar10"].modules() == ["components.data.cifar"]
    assert data_sets["shapes"].modules() == ["components.data.shapes"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"licence_url": "x"}, "Extra inputs are not permitted"),
        ({"tables": {"text.parquet": {"columns": {"text": "str"}}}}, "text has type 'str'; expected one of boolean"),
        ({"tables": {"text.parquet": {"columns": {"t": {"array": ["uint8"]}}}}}, r"\{array: \[type, size\]\}"),
        ({"tables": {"../text.parquet": {"columns": {"t": "string"}}}}, "String should match pattern"),
        ({"editions": {"e": {"says": "s", "content": {"b.parquet": HASH}}}}, "which are not tables"),
        (
            {"sources": [{"kind": "mirror", "edition": "f", "files": {"text.parquet": HASH}}]},
            "serves edition 'f'; declared are",
        ),
        ({"sources": [{"kind": "mirror", "edition": "e", "files": {"../../etc/passwd": HASH}}]}, "match pattern"),
        ({"sources": [{"kind": "mirror", "edition": "e", "files": {"a.parquet": "12"}}]}, "match pattern"),
        ({"sources": [{"kind": "ftp", "edition": "e"}]}, "does not match any of the expected tags"),
        ({"sources": [{"kind": "generator", "edition": "e", "function": "os.system"}]}, "match pattern"),
        ({"embedded": True}, "embedded must be true exactly where"),
        ({"splits": {"by": "column", "column": "split", "names": ["train"]}}, "which the table does not have"),
        ({"splits": {"by": "hash", "column": "text", "shares": {"a": 0.5, "b": 0.4}}}, "add up to 0.9"),
        ({"splits": {"by": "file", "files": {"train": "train.parquet"}}}, "which are not tables"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_reason(change, reason):
    with pytest.raises(ValidationError, match=reason):
        DataSet.model_validate(declared(**change))


def test_a_file_without_hash_needs_a_content_hash():
    source = {"kind": "origin", "edition": "e", "convert": "components.data.texts.one_text"}
    source["files"] = {"a.txt": {"urls": ["https://example.org/a.txt"], "sha256": None}}
    DataSet.model_validate(declared(sources=[source]))
    with pytest.raises(ValidationError, match="one of the two must pin the data"):
        DataSet.model_validate(declared(sources=[source], editions={"e": {"says": "s"}}))


def test_the_message_names_the_file_the_data_set_and_the_key(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"books": declared(titel="x")}))
    with pytest.raises(DeclarationError, match=r"data.yaml, data set 'books': titel: Extra inputs"):
        load_declarations(path)


@pytest.mark.parametrize("text", ["a: [", "", "- a"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(DeclarationError, match=r"data\.yaml"):
        load_declarations(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DeclarationError, match="cannot be read"):
        load_declarations(tmp_path / "data.yaml")


def test_an_unknown_name_suggests_the_nearest(tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"books": declared()}))
    with pytest.raises(UnknownDataSet, match=r"'boks' is not in params/data.yaml. Did you mean 'books'\?"):
        load_declarations(path)["boks"]
