"""Paraphrase pairs of scenes of shapes: one caption as the source, another caption of the same scene as the target.

Of every scene with two or more objects the first two are said, and how they stand to one another. A caption has many
paraphrases (synonyms of every content word, either object first, active and passive, "left of" or "to the left of"), so
that the target is not determined by the source; whether an output is right is decided exactly by the parser of the
caption grammar.

Source of the task: the specification of this project; of the exact metric: `components.data.scenes.captions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.data import tables
from components.data.scenes.captions import caption, paraphrases, parse, vocabulary, words
from components.data.scenes.descriptions import Description, same
from components.data.scenes.world import World
from components.data.shapes import world_of
from components.errors import TesseraError

LONGEST = 13
"""Most words of a caption of two objects."""


class ParaphraseError(TesseraError):
    """A data set of scenes that gives no paraphrase pairs."""


@dataclass(frozen=True)
class Pair:
    """One paraphrase pair.

    Attributes:
        scene: Number of the scene within its split.
        source: Words of the source caption.
        target: Words of the target caption, of the same scene and never equal to the source.
        meaning: What both say.
    """

    scene: int
    source: tuple[str, ...]
    target: tuple[str, ...]
    meaning: Description


@dataclass(frozen=True)
class ParaphraseTask:
    """Paraphrase pairs of a world, and the exact judgement of outputs.

    Attributes:
        world: What the scenes are made of.
    """

    world: World

    @classmethod
    def of(cls, directory: Path) -> ParaphraseTask:
        """Return the task of a data set in the form of `components.data.shapes`."""
        return cls(world_of(tables.read_split(directory, tables.split_names(directory)[0], ["world"])))

    @property
    def words(self) -> list[str]:
        """Every word that a caption can hold, sorted: the vocabulary."""
        spoken = dataclasses.replace(self.world, objects=(2, 2), grounds=self.world.grounds[:1], sign=None)
        return vocabulary(spoken, paraphrased=True)

    def pairs(self, directory: Path, split: str, count: int, seed: int) -> list[Pair]:
        """Return pairs of a split, in the order of its scenes; every scene is used before one is used again.

        Args:
            directory: Data set of scenes.
            split: Name of its split.
            count: Number of pairs.
            seed: Decides the captions, not the scenes.

        Raises:
            ParaphraseError: No scene of the split has two objects.
        """
        # The caption of the whole scene, in its plain form, holds all that the objects' columns say.
        rows = tables.read_split(directory, split, ["scene", "caption"])
        scenes, said = [], []
        for scene, text in rows.iter_rows():
            whole = parse(text, self.world)
            if whole is not None and len(whole.things) >= 2:
                scenes.append(scene)
                said.append(Description(whole.things[:2], whole.relation))
                if len(said) == count:
                    break
        if not said:
            raise ParaphraseError(f"{directory} has no scene of two objects in the split {split!r}; expected some.")
        rounds = -(-count // len(said))
        found = paraphrases(said, 2 * rounds, seed)
        return [
            Pair(scenes[at], tuple(words(found[at][2 * turn])), tuple(words(found[at][2 * turn + 1])), said[at])
            for turn in range(rounds)
            for at in range(len(said))
        ][:count]

    def parses(self, output: Sequence[str]) -> bool:
        """Tell whether an output is a caption of the grammar."""
        return parse(" ".join(output), self.world) is not None

    def valid(self, output: Sequence[str], meaning: Description) -> bool:
        """Tell whether an output is a caption that says exactly what the source says."""
        parsed = parse(" ".join(output), self.world)
        return parsed is not None and same(parsed, meaning)

    def plain(self, meaning: Description) -> tuple[str, ...]:
        """Return the caption without synonyms."""
        return tuple(words(caption(meaning)))


def mismatched(pairs: Sequence[Pair]) -> np.ndarray:
    """Return for each pair the number of the next one that means something else: its source is a wrong source, (B,).

    Raises:
        ParaphraseError: All pairs mean the same.
    """
    found = np.zeros(len(pairs), np.int64)
    for at, pair in enumerate(pairs):
        for step in range(1, len(pairs)):
            other = (at + step) % len(pairs)
            if not same(pairs[other].meaning, pair.meaning):
                found[at] = other
                break
        else:
            raise ParaphraseError("every pair means the same; a wrong source needs pairs of other scenes.")
    return found
