"""The published JSON Schemas say what the models say."""

from __future__ import annotations

import json

import jsonschema
import pytest
from paper_faults import PAPER, STRUCTURAL_FAULTS
from workspace import REPOSITORY, make_workspace, run_in, write

from flows.declarations.document import read_document
from flows.declarations.schema import paper_schema, schema_comment, schema_files


@pytest.fixture(scope="module")
def validator(tmp_path_factory):
    make_workspace(tmp_path_factory.mktemp("schema"))
    schema = paper_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def data_of(tmp_path, text):
    write(tmp_path, "paper.yaml", text)
    return read_document(tmp_path, "paper.yaml", "a paper").data


def test_a_sound_paper_satisfies_its_schema(validator, tmp_path):
    assert list(validator.iter_errors(data_of(tmp_path, PAPER))) == []


@pytest.mark.parametrize("old, new, words", STRUCTURAL_FAULTS)
def test_a_faulty_value_is_underlined_by_editors_too(validator, tmp_path, old, new, words):
    assert list(validator.iter_errors(data_of(tmp_path, PAPER.replace(old, new)))) != []


def test_every_schema_is_sound():
    for text in schema_files().values():
        jsonschema.Draft202012Validator.check_schema(json.loads(text))


def test_a_base_completes_the_parameters_of_its_recipe(tmp_path):
    make_workspace(tmp_path, bases=2)
    schema = json.loads(schema_files()["params/schema/bases.schema.json"])
    validator = jsonschema.Draft202012Validator(schema)
    data = read_document(tmp_path, "params/bases.yaml", "bases").data
    assert list(validator.iter_errors(data)) == []
    data["constant-0"]["params"]["vlaue"] = 1
    assert list(validator.iter_errors(data)) != []


def test_the_published_schemas_are_current():
    # In a process of its own: this one also knows the toy study.
    source = (
        "from pathlib import Path; from flows.declarations.schema import schema_files\n"
        "print(*[p for p, text in schema_files().items() if not Path(p).is_file() or Path(p).read_text() != text])"
    )
    assert run_in(REPOSITORY, source).split() == [], "run: tessera sync"


def test_every_declaration_of_this_repository_satisfies_its_published_schema():
    for path in sorted((REPOSITORY / "params").glob("**/*.yaml")):
        name = {name: name for name in ("paper", "data", "bases", "catalogue", "leaderboards")}.get(path.stem)
        if name is None:
            continue
        schema = json.loads((REPOSITORY / f"params/schema/{name}.schema.json").read_text(encoding="utf-8"))
        data = read_document(REPOSITORY, path.relative_to(REPOSITORY).as_posix(), name).data
        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(data))
        assert errors == [], path


def test_the_schema_comment_leads_from_the_file_to_the_schema():
    paper = REPOSITORY / "params" / "some-paper"
    place = schema_comment("paper", 1).partition("$schema=")[2]
    assert (paper / place).resolve() == REPOSITORY / "params/schema/paper.schema.json"
