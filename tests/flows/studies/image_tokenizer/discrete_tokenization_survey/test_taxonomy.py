"""The taxonomy names what exists: modules, papers, claims."""

import importlib
from pathlib import Path

import pytest
import yaml

from flows.studies.image_tokenizer.discrete_tokenization_survey import taxonomy

ROOT = Path(__file__).parents[5]
CATALOGUE = yaml.safe_load((ROOT / "params/catalogue.yaml").read_text())
PAPER = yaml.safe_load((ROOT / "params/discrete-tokenization-survey/paper.yaml").read_text())


def test_there_are_the_eight_families_of_the_survey():
    assert [row.family for row in taxonomy.FAMILIES] == ["VQ", "RVQ", "PQ", "AQ", "FSQ", "LFQ", "BSQ", "ART"]


@pytest.mark.parametrize("row", taxonomy.FAMILIES, ids=lambda row: row.family)
def test_every_family_names_modules_that_exist_and_papers_of_the_catalogue(row):
    assert row.modules
    for module in row.modules:
        importlib.import_module(module)
    assert row.papers
    assert set(row.papers) <= set(CATALOGUE)
    assert row.modalities
    assert row.codebook in ("learned", "implicit")


def test_every_quantizer_family_can_be_built_by_name():
    for row in taxonomy.FAMILIES:
        assert hasattr(importlib.import_module(row.modules[0]), "build"), row.family


def test_challenges_name_claims_of_the_paper_and_directions_papers_of_the_catalogue():
    claims = {claim["id"] for claim in PAPER["claims"]}
    assert {claim for _, claim in taxonomy.CHALLENGES if claim} <= claims
    assert {paper for _, papers in taxonomy.DIRECTIONS for paper in papers} <= set(CATALOGUE)
    assert len(taxonomy.CHALLENGES) == 5
    assert len(taxonomy.DIRECTIONS) == 4


def test_tables_hold_every_entry_as_text():
    families = taxonomy.families()
    assert families.height == 8
    assert all(str(dtype) == "String" for dtype in families.schema.values())
    assert families.null_count().sum_horizontal().item() == 0
    assert taxonomy.tiers().height == 3
    assert taxonomy.challenges()["kind"].to_list() == ["challenge"] * 5 + ["direction"] * 4
