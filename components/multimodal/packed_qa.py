"""Several texts about one scene in one sequence, so that all of them share the scene's visual tokens.

    start | visual tokens | <question> q1 ?  | <question> q2 ? | ... | <caption> c <end>
      0      1 .. s          s+1, s+2, ...      s+1, s+2, ...          s+1, s+2, ...        positions

A segment (one question, or one caption) sees the start token, the visual tokens and its own tokens before it; it does
not see the other segments, and its positions go on from the visual tokens as if it stood there alone. Logits are
therefore those of separate sequences, for a share of their cost. The answer is one word, predicted at the question's
last token; a caption is predicted word by word.

Letters: `N` scenes, `B` scenes of a batch, `T` text tokens of a packed scene (at most), `M` predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from components.errors import TesseraError
from components.multimodal.words import WordVocabulary


class PackingError(TesseraError):
    """Texts cannot be packed as asked."""


class PackedBatch(NamedTuple):
    """Texts of some scenes, packed.

    Attributes:
        tokens: Word ids, int64 (B, T).
        segments: Number of each token's segment from 1, int64 (B, T); 0 for padding, which nothing else sees.
        places: Position of each token in its segment from 0, int64 (B, T).
        at: Where a token is predicted, as an index into (B T), int64 (M,), ascending.
        targets: The predicted tokens, int64 (M,).
        kinds: What is predicted at each place: the index of the question's type, or -1 in captions and question
            texts, int64 (M,).
    """

    tokens: Tensor
    segments: Tensor
    places: Tensor
    at: Tensor
    targets: Tensor
    kinds: Tensor


@dataclass(frozen=True)
class PackedTexts:
    """Texts of N scenes, each packed into one row, padded to the longest.

    Attributes:
        tokens: int16 (N, T).
        segments: uint8 (N, T), 0 for padding.
        places: uint8 (N, T).
        targets: Token to be predicted at each place, int16 (N, T); -1 for none.
        kinds: int8 (N, T).
        lengths: Tokens of each row, int64 (N,).
        types: Types of questions by their index.
    """

    tokens: Tensor
    segments: Tensor
    places: Tensor
    targets: Tensor
    kinds: Tensor
    lengths: Tensor
    types: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, rows: Tensor) -> PackedBatch:
        """Return the texts of some scenes (B,), as short as the longest of them allows."""
        longest = int(self.lengths[rows].max())
        targets = self.targets[rows, :longest].reshape(-1)
        at = (targets >= 0).nonzero().squeeze(1)
        return PackedBatch(
            self.tokens[rows, :longest].long(),
            self.segments[rows, :longest].long(),
            self.places[rows, :longest].long(),
            at,
            targets[at].long(),
            self.kinds[rows, :longest].reshape(-1)[at].long(),
        )


def pack_questions(
    questions: pl.DataFrame, scenes: int, words: WordVocabulary, types: Sequence[str], *, texts: bool = False
) -> PackedTexts:
    """Pack the questions of scenes; what is predicted is each question's answer.

    Args:
        questions: `row` of the scene (0 to `scenes` - 1, sorted), `type`, `question`, `answer`.
        scenes: N.
        words: Vocabulary.
        types: Types of questions in the order of their index.
        texts: Predict every word of the questions, too (for a language model without pictures).

    Raises:
        PackingError: An answer is not one word, a type is unknown, or a scene has no question.
        UnknownWord: A word is not in the vocabulary.
    """
    asked, lengths = words.table(questions["question"].to_list())
    answers, answer_lengths = words.table(questions["answer"].to_list())
    if (answer_lengths != 1).any():
        worst = questions["answer"][int((answer_lengths != 1).argmax())]
        raise PackingError(f"the answer {worst!r} is not one word; questions are packed with one-word answers only.")
    unknown = sorted(set(questions["type"].unique()) - set(types))
    if unknown:
        raise PackingError(f"questions of type {unknown[0]!r} are not among {list(types)}; name every type.")
    kinds = questions["type"].replace_strict({name: index for index, name in enumerate(types)}).to_numpy()
    tokens = np.concatenate([np.full((len(asked), 1), words.question, np.int16), asked], 1)
    return _packed(questions["row"].to_numpy(), scenes, tokens, lengths + 1, answers[:, 0], kinds, tuple(types), texts)


def pack_captions(captions: Sequence[str], words: WordVocabulary) -> PackedTexts:
    """Pack one caption per scene; every word of it is predicted, and then the end.

    Raises:
        UnknownWord: A word is not in the vocabulary.
    """
    table, lengths = words.table(captions)
    tokens = np.concatenate([np.full((len(table), 1), words.caption, np.int16), table], 1)
    kinds = np.full(len(table), -1, np.int64)
    ends = np.full(len(table), words.end, np.int16)
    return _packed(np.arange(len(table)), len(table), tokens, lengths + 1, ends, kinds, (), True)


def joined(first: PackedTexts, second: PackedTexts) -> PackedTexts:
    """Put the texts of `second` behind those of `first`, scene by scene.

    Raises:
        PackingError: They are not about equally many scenes.
    """
    if len(first) != len(second):
        raise PackingError(f"{len(first)} and {len(second)} scenes cannot be joined; pack the same scenes twice.")
    lengths = first.lengths + second.lengths
    longest = int(lengths.max())
    columns = {}
    after = first.segments.amax(1, keepdim=True)
    for name, empty in (("tokens", 0), ("segments", 0), ("places", 0), ("targets", -1), ("kinds", -1)):
        one, two = getattr(first, name), getattr(second, name)
        if name == "segments":
            two = torch.where(two > 0, two + after, two)
        row = one.new_full((len(first), longest), empty)
        row[:, : one.shape[1]] = one[:, :longest]
        inside = torch.arange(two.shape[1]) < second.lengths[:, None]
        to = (first.lengths[:, None] + torch.arange(two.shape[1]))[inside]
        row[torch.arange(len(first)).repeat_interleave(second.lengths), to] = two[inside]
        columns[name] = row
    return PackedTexts(**columns, lengths=lengths, types=first.types or second.types)


def _packed(
    rows: np.ndarray,
    scenes: int,
    tokens: np.ndarray,
    lengths: np.ndarray,
    last: np.ndarray,
    kinds: np.ndarray,
    types: tuple[str, ...],
    every: bool,
) -> PackedTexts:
    """Pack segments, one row of `tokens` each; `last` is what is predicted at the last token of a segment."""
    number = np.bincount(rows, minlength=scenes)
    if not number.all():
        raise PackingError(f"scene {int((number == 0).argmax())} has no text; leave it out or ask something about it.")
    inside = np.arange(tokens.shape[1]) < lengths[:, None]
    # A token's place in its scene's row: tokens of all segments in order, less those of the scenes before.
    total = np.bincount(rows, weights=lengths, minlength=scenes).astype(np.int64)
    scene = np.repeat(rows, lengths)
    column = np.arange(len(scene)) - (np.cumsum(total) - total)[scene]
    own = np.arange(len(rows)) - (np.cumsum(number) - number)[rows]
    following = np.full(tokens.shape, -1, np.int16)
    if every:
        following[:, :-1] = tokens[:, 1:]
    following[np.arange(len(tokens)), lengths - 1] = last
    kind = np.full(tokens.shape, -1, np.int8)
    kind[np.arange(len(tokens)), lengths - 1] = kinds
    shape = (scenes, int(total.max()))

    def laid(values: np.ndarray, empty: int, dtype) -> Tensor:
        table = np.full(shape, empty, dtype)
        table[scene, column] = values
        return torch.from_numpy(table)

    return PackedTexts(
        laid(tokens[inside], 0, np.int16),
        laid(np.repeat(own + 1, lengths), 0, np.uint8),
        laid(np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)[inside], 0, np.uint8),
        laid(following[inside], -1, np.int16),
        laid(kind[inside], -1, np.int8),
        torch.from_numpy(total),
        types,
    )
