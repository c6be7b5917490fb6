"""Pairs of words of a sample, labelled with tags or relations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from components.analysis.attribution_groups import LabelledPair, labelled_pair
from flows.studies.analysis.siamese_attribution.explanations import Explanation
from flows.studies.analysis.siamese_attribution.pairs import SentencePair


def labelled(
    sampled: Sequence[SentencePair],
    explained: Mapping[str, Explanation],
    labels: Literal["tags", "relations"] = "tags",
) -> list[LabelledPair]:
    """Return the attributions of pairs of words with the words' labels."""
    return [
        labelled_pair(
            explained[pair.name].matrix,
            pair.first.word,
            pair.second.word,
            getattr(pair.first, labels),
            getattr(pair.second, labels),
        )
        for pair in sampled
    ]


def holding(found: Sequence[LabelledPair], group: Collection[str]) -> int:
    """Return how many pairs of sentences have a word of a group on both sides."""
    group = set(group)
    return sum(bool(group & set(pair.labels_a)) and bool(group & set(pair.labels_b)) for pair in found)
