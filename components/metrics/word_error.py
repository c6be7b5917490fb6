"""Word and character error rates of transcripts.

    rate = (substitutions + deletions + insertions) / words of the references

A rate over utterances is the ratio of sums, never a mean of ratios: short utterances do not count more.

Source: the package jiwer (Levenshtein alignment of words).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from components.errors import TesseraError


class WordErrorError(TesseraError):
    """Transcripts cannot be compared."""


class Errors(NamedTuple):
    """Edits and words of one utterance; characters where characters were counted."""

    edits: int
    words: int


def word_errors(transcripts: Sequence[str], references: Sequence[str]) -> list[Errors]:
    """Count the edits that turn each reference into its transcript, in words.

    Args:
        transcripts: What was recognised; may be empty.
        references: What was said, at least a word each.

    Raises:
        WordErrorError: They differ in number, or a reference is empty.
    """
    _check(transcripts, references)
    from jiwer import process_words

    return [_counted(process_words(said, heard)) for heard, said in zip(transcripts, references, strict=True)]


def character_errors(transcripts: Sequence[str], references: Sequence[str]) -> list[Errors]:
    """Count the edits that turn each reference into its transcript, in characters, blanks included.

    Raises:
        WordErrorError: They differ in number, or a reference is empty.
    """
    _check(transcripts, references)
    from jiwer import process_characters

    return [_counted(process_characters(said, heard)) for heard, said in zip(transcripts, references, strict=True)]


def error_rate(errors: Sequence[Errors]) -> float:
    """Return edits over words of all utterances together, as a share (1 is 100%); it can exceed 1.

    Raises:
        WordErrorError: There is no utterance.
    """
    if not errors:
        raise WordErrorError("no utterance was counted; expected at least one.")
    return sum(each.edits for each in errors) / sum(each.words for each in errors)


def _check(transcripts: Sequence[str], references: Sequence[str]) -> None:
    if len(transcripts) != len(references):
        raise WordErrorError(f"{len(transcripts)} transcripts of {len(references)} references; give one each.")
    empty = [place for place, text in enumerate(references) if not text.strip()]
    if empty:
        raise WordErrorError(f"reference {empty[0]} is empty; expected at least one word. Leave it out.")


def _counted(found) -> Errors:
    edits = found.substitutions + found.deletions + found.insertions
    return Errors(edits, found.hits + found.substitutions + found.deletions)
