"""Fill-in-the-middle documents: a span of a text moved to the end, so that a causal model learns to fill it.

    plain   prefix middle suffix <eos>
    PSM     <pre> prefix <suf> suffix <mid> middle <eos>
    SPM     <pre> <suf> suffix <mid> prefix middle <eos>

Spans are drawn over symbols, so they cut words and tokens. In SPM prefix and middle are one contiguous text and are
encoded jointly; in PSM each part is encoded on its own, because a special token stands between them.

Source: Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle", sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

PREFIX, SUFFIX, MIDDLE, END = "<pre>", "<suf>", "<mid>", "<eos>"

Order = Literal["plain", "psm", "spm"]
Encode = Callable[[str], list[int]]


def draw_order(psm: float, spm: float, generator: np.random.Generator) -> Order:
    """Draw the form of one document: PSM and SPM with their shares, else plain."""
    place = generator.random()
    return "psm" if place < psm else "spm" if place < psm + spm else "plain"


def draw_span(length: int, generator: np.random.Generator) -> tuple[int, int]:
    """Draw the middle of a text of some length, [start, end): two cuts uniformly among the length + 1 places."""
    start, end = sorted(generator.integers(length + 1, size=2).tolist())
    return start, end


def arrange(
    text: str,
    span: tuple[int, int],
    order: Order,
    encode: Encode,
    specials: Mapping[str, int],
    *,
    joint: bool = True,
) -> list[int]:
    """Encode a text in one of the three forms, without <eos>.

    Args:
        text: Symbols.
        span: Middle of the text, [start, end); unused where the order is plain.
        order: Form of the document.
        encode: Encodes symbols to ids.
        specials: Ids of the special tokens.
        joint: Prefix and middle of SPM are encoded as the one text they are, so that a cut inside a token never shows
            in training; otherwise each on its own.
    """
    if order == "plain":
        return encode(text)
    prefix, middle, suffix = text[: span[0]], text[span[0] : span[1]], text[span[1] :]
    if order == "psm":
        return [*prefix_suffix(prefix, suffix, encode, specials), *encode(middle)]
    rest = encode(prefix + middle) if joint else [*encode(prefix), *encode(middle)]
    return [*suffix_prefix(suffix, encode, specials), *rest]


def prefix_suffix(prefix: str, suffix: str, encode: Encode, specials: Mapping[str, int]) -> list[int]:
    """Return what stands before the middle in PSM: <pre> prefix <suf> suffix <mid>."""
    return [specials[PREFIX], *encode(prefix), specials[SUFFIX], *encode(suffix), specials[MIDDLE]]


def suffix_prefix(suffix: str, encode: Encode, specials: Mapping[str, int]) -> list[int]:
    """Return what stands before prefix and middle in SPM: <pre> <suf> suffix <mid>."""
    return [specials[PREFIX], specials[SUFFIX], *encode(suffix), specials[MIDDLE]]
