"""The catalogue of papers, and the papers that are built."""

from __future__ import annotations

from collections import Counter

from workspace import REPOSITORY

from flows.declarations.workspace import Workspace


def test_the_catalogue_holds_the_119_papers_of_seven_families():
    families = Counter(entry.family for entry in Workspace.load(REPOSITORY).catalogue.values())
    assert families == {
        "text": 19, "language": 13, "representations": 20, "diffusion": 13, "image": 19, "audio": 19, "multimodal": 16,
    }  # fmt: skip


def test_no_two_papers_share_a_title():
    titles = [entry.title for entry in Workspace.load(REPOSITORY).catalogue.values()]
    assert len(set(titles)) == len(titles)


def test_every_built_paper_stands_in_the_catalogue_and_agrees_with_it():
    workspace = Workspace.load(REPOSITORY)
    for slug, paper in workspace.papers.items():
        entry = workspace.catalogue[slug]
        assert (paper.title, paper.family, paper.study) == (entry.title, entry.family, entry.study)
