"""Tokens of units by the unigram language model: the alternative to merges, behind the same verbs.

Units become private characters as in `components.tokenizers.audio.unit_bpe`; an utterance's tokens are its most
probable segmentation, tokens independent.

Letters: `U` base units, `V` tokens.

Source: Kudo 2018, "Subword Regularization", section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from components.tokenizers.audio.unit_bpe import UnitBPE, characters
from components.tokenizers.text import unigram


def train(utterances: Iterable[Sequence[int]], vocabulary_size: int, *, base_size: int) -> UnitBPE:
    """Learn V tokens by expectation-maximisation and pruning; fewer where the utterances repeat too little.

    Args:
        utterances: Units of each utterance; no token crosses from one into another.
        vocabulary_size: V, base units included.
        base_size: U; units that the utterances lack are tokens, too.
    """
    texts = [characters(units) for units in utterances]
    return UnitBPE(unigram.train(texts, vocabulary_size, alphabet=characters(range(base_size))))


def load(path: Path) -> UnitBPE:
    """Read a tokenizer that `save` wrote."""
    return UnitBPE(unigram.load(path))
