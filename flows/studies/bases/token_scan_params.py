"""Parameters of the recipe `token_scan`: how sticky every token of a sentence encoder's vocabulary is."""

from __future__ import annotations

from pydantic import Field

from flows.declarations.parameters import StudyParams


class Params(StudyParams):
    """One scan of a vocabulary on the first of several samples of sentences that share none."""

    encoder: str = "all-minilm-l6-v2"
    """Data set of the encoder's files."""
    sentences: int = Field(1_000, ge=3)
    """Sentences of a sample."""
    samples: int = Field(4, ge=1)
    """Samples that the sentences are cut into; the scan takes the first, the papers that use it the others."""
    shortest: int = Field(6, ge=1)
    """Fewest words of a sentence."""
    longest: int = Field(12, ge=1)
    """Most words of a sentence."""
    pairs: int = Field(2, ge=1)
    """Pairs of sentences that every token is scored on."""
    copies: tuple[int, ...] = (1, 4, 8)
    """Numbers of copies inserted."""


def components(params: Params, kind: str) -> tuple[str, ...]:
    """Return no modules: what the recipe uses it imports."""
    return ()
