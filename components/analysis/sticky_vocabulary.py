"""Which entries of a word-piece vocabulary can be inserted as text, and come back as themselves.

Source: Chen et al. 2025, "Sticking to the Mean: Detecting Sticky Tokens in Text Embedding Models", stage 2;
kinds of unreachable tokens: Land and Bartolo 2024, "Fishing for Magikarp".
"""

from __future__ import annotations

import re

import numpy as np

from components.encoders.sentence import SentenceEncoder

_FRAME = "the"
_UNUSED = re.compile(r"\[unused\d+\]")


def vocabulary(encoder: SentenceEncoder) -> list[str]:
    """Return the text of every token by id."""
    tokens = encoder.tokenizer.get_vocab()
    return sorted(tokens, key=tokens.__getitem__)


def usable_tokens(encoder: SentenceEncoder) -> np.ndarray:
    """Return the ids of tokens whose text is read as that one token between two words, increasing.

    Left out are pieces that go on within a word ("##ing"), placeholders, texts with a replacement character, and tokens
    that the tokenizer never makes of their own text. Special tokens stay: their names are read as tokens.
    """
    names = vocabulary(encoder)
    read = encoder.token_ids([f"{_FRAME} {name} {_FRAME}" for name in names])
    frame = encoder.token_ids([_FRAME])[0]
    before, after = frame[:-1], frame[1:]
    return np.asarray(
        [
            place
            for place, (name, row) in enumerate(zip(names, read, strict=True))
            if row == [*before, place, *after]
            and not name.startswith("##")
            and not _UNUSED.fullmatch(name)
            and "\ufffd" not in name
        ],
        dtype=np.int64,
    )


def special_tokens(encoder: SentenceEncoder) -> np.ndarray:
    """Return the ids of the special tokens, increasing."""
    added = encoder.tokenizer.get_added_tokens_decoder()
    return np.asarray(sorted(place for place, token in added.items() if token.special), dtype=np.int64)
