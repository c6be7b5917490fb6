"""JSON Schemas of everything declared in YAML, so that editors complete and check it while it is written.

A paper's schema knows every study: below `study: image-tokenizer`, an arm completes the parameters of that study.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from flows.declarations.bases import Base
from flows.declarations.catalogue import CatalogueEntry
from flows.declarations.leaderboards import Leaderboard
from flows.declarations.paper import Arm, Paper, Profile, Variant
from flows.declarations.parameters import StudyParams
from flows.declarations.study import load_recipe, load_study, own_params, recipe_names, study_names

FOLDER = "params/schema"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
# Keys of a test of which exactly one is given; the models check it in their validators, which a schema does not show.
_BARS = ("above", "below")
_EXACTLY_ONE = {
    "Threshold": [_BARS],
    "Difference": [_BARS],
    "Ratio": [_BARS, ("over", "times")],
    "Equality": [("equals", "equals_arm")],
    "Correlation": [_BARS, ("along", "with")],
}
_WITH_PARAMETERS = (Arm, Variant, Profile)


def schema_files() -> dict[str, str]:
    """Return the text of every published schema by path."""
    from components.data.declaration import DataSet

    schemas = {
        "paper": paper_schema(),
        "bases": bases_schema(),
        "data": _by_name(DataSet, "Data sets by name"),
        "catalogue": _by_name(CatalogueEntry, "Papers by slug"),
        "leaderboards": _by_name(Leaderboard, "Leaderboards by name"),
    }
    return {f"{FOLDER}/{name}.schema.json": json.dumps(schema, indent=1) + "\n" for name, schema in schemas.items()}


def schema_comment(name: str, depth: int) -> str:
    """Return the first line of a YAML file that tells editors its schema.

    Args:
        name: "paper", "bases", "data", "catalogue" or "leaderboards".
        depth: Folders between params/ and the file: 1 for a paper, 0 for the others.
    """
    return f"# yaml-language-server: $schema={'../' * depth}schema/{name}.schema.json"


def paper_schema() -> dict[str, Any]:
    """Return the schema of a paper.yaml."""
    schema = _any_of(Paper.model_json_schema(by_alias=True))
    definitions = schema["$defs"]
    for model in _WITH_PARAMETERS:
        del definitions[model.__name__]["properties"]["parameters"]
        # The conditions below name the parameters of each study; an unknown study allows any.
        definitions[model.__name__]["additionalProperties"] = True
    _accept_times(definitions["Ratio"])
    for name, groups in _EXACTLY_ONE.items():
        one_of = [{"oneOf": [{"required": [key]} for key in keys]} for keys in groups]
        definitions[name]["allOf"] = definitions[name].get("allOf", []) + one_of
    schema["properties"]["study"]["enum"] = study_names()
    schema["allOf"] = []
    for name in study_names():
        own = own_params(name)
        shared: dict[str, Any] = {"properties": {"study": {"const": name}}, "required": ["study"]}
        if own:
            shared["not"] = {"properties": {"slug": {"enum": own}}, "required": ["slug"]}
        schema["allOf"].append({"if": shared, "then": {"properties": _sections(name, "", definitions)}})
        for slug in own:
            condition = {
                "properties": {"study": {"const": name}, "slug": {"const": slug}},
                "required": ["study", "slug"],
            }
            schema["allOf"].append({"if": condition, "then": {"properties": _sections(name, slug, definitions)}})
    return _published(schema, "One paper of Tessera")


def _sections(study: str, slug: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a paper that name parameters of its study, or its own; their models go to `definitions`."""
    parameters = _parameters(load_study(study, slug).evaluate_params, definitions)
    sections = {}
    for section, model in (("arms", Arm), ("variants", Variant), ("profiles", Profile)):
        reserved = definitions[model.__name__]["properties"]
        title = f"{model.__name__}-{slug or study}"
        definitions[title] = {
            "type": "object",
            "properties": reserved | parameters,
            "additionalProperties": False,
            "description": definitions[model.__name__]["description"],
        }
        sections[section] = {"additionalProperties": {"$ref": f"#/$defs/{title}"}}
    return sections


def bases_schema() -> dict[str, Any]:
    """Return the schema of bases.yaml."""
    schema = _by_name(Base, "Bases by name")
    base = schema["$defs"]["Base"]
    base["properties"]["recipe"]["enum"] = recipe_names()
    base["allOf"] = []
    for name in recipe_names():
        parameters = _parameters(load_recipe(name).params, schema["$defs"])
        condition = {"properties": {"recipe": {"const": name}}, "required": ["recipe"]}
        params = {"type": "object", "properties": parameters, "additionalProperties": False}
        base["allOf"].append({"if": condition, "then": {"properties": {"params": params}}})
    return schema


def _by_name(model: type[BaseModel], title: str) -> dict[str, Any]:
    schema = _any_of(model.model_json_schema(by_alias=True))
    definitions = schema.pop("$defs", {}) | {model.__name__: schema}
    mapping = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{model.__name__}"}, "$defs": definitions}
    return _published(mapping, title)


def _parameters(model: type[StudyParams], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _any_of(model.model_json_schema(by_alias=True))
    definitions |= schema.get("$defs", {})
    return schema["properties"]


def _accept_times(ratio: dict[str, Any]) -> None:
    ratio["properties"]["times"] = ratio["properties"]["over"] | {"title": "Times"}
    ratio["required"].remove("over")


def _published(schema: dict[str, Any], title: str) -> dict[str, Any]:
    return {"$schema": _DRAFT, "title": title, **{key: value for key, value in schema.items() if key != "title"}}


def _any_of(value: Any) -> Any:
    """Spell pydantic's unions as `anyOf`: their members are told apart by code, not by exclusion."""
    if isinstance(value, dict):
        return {("anyOf" if key == "oneOf" else key): _any_of(item) for key, item in value.items()}
    return [_any_of(item) for item in value] if isinstance(value, list) else value
