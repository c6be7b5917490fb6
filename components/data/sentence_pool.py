"""Short English sentences of several corpora, cut into samples that share no sentence; and passages with queries.

Letters: S sentences of a sample.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.data import multi30k, tables, ud
from components.data.errors import DataError

CORPORA = ("multi30k", "ud", "wikitext2")
_UNKNOWN = "<unk>"
_SENTENCE_END = re.compile(r"(?<=[.!?]) ")
_HEADING = re.compile(r" ?= ([^=].*[^=]) = ?")


def sentences_of(corpus: str, directory: Path) -> list[str]:
    """Return the sentences of one of CORPORA, each once, in the order of the corpus.

    Raises:
        DataError: Another corpus.
    """
    if corpus == "multi30k":
        found = [
            text for split in tables.split_names(directory) for text in multi30k.descriptions(directory, split, "en")
        ]
    elif corpus == "ud":
        found = ud.sentences(directory)["text"].to_list()
    elif corpus == "wikitext2":
        paragraphs = (text for article in articles(directory).values() for text in article)
        found = [part for text in paragraphs for part in _SENTENCE_END.split(text) if _UNKNOWN not in part]
    else:
        raise DataError(f"{corpus!r} is none of {', '.join(CORPORA)}.")
    return list(dict.fromkeys(found))


def articles(directory: Path) -> dict[str, list[str]]:
    """Return the paragraphs of each article of WikiText-2 by its title, "@-@" and the like undone."""
    found: dict[str, list[str]] = {}
    title = ""
    for text in tables.read(directory, "text.parquet")["text"]:
        for line in text.split("\n"):
            if heading := _HEADING.fullmatch(line):
                title = heading[1]
            elif (paragraph := line.strip()) and not paragraph.startswith("="):
                found.setdefault(title, []).append(re.sub(r" @(.)@ ", r"\1", paragraph))
    return found


def pool(directories: Mapping[str, Path], words: tuple[int, int], seed: int = 0) -> dict[str, list[str]]:
    """Return the sentences of some length of each corpus, in an order drawn once.

    Args:
        directories: Directory of the data set by corpus.
        words: Fewest and most words of a sentence.
        seed: Of the order.
    """
    generator = np.random.default_rng(seed)
    kept = {}
    for corpus, directory in sorted(directories.items()):
        fitting = [text for text in sentences_of(corpus, directory) if words[0] <= len(text.split()) <= words[1]]
        kept[corpus] = [fitting[place] for place in generator.permutation(len(fitting))]
    return kept


def sample(pooled: Mapping[str, Sequence[str]], number: int, count: int, samples: int) -> list[str]:
    """Return one of several samples that share no sentence.

    Every corpus gives as many sentences as the others, or what it has where that is less.

    Args:
        pooled: From `pool`.
        number: Which sample, 0 to `samples` - 1.
        count: S.
        samples: How many samples there are room for.

    Raises:
        DataError: The corpora have too few sentences, or there is no such sample.
    """
    if not 0 <= number < samples:
        raise DataError(f"sample {number} of {samples}; expected 0 to {samples - 1}.")
    left, shares = count, {}
    by_size = sorted(pooled, key=lambda corpus: (len(pooled[corpus]), corpus))
    for place, corpus in enumerate(by_size):
        shares[corpus] = min(left // (len(by_size) - place), len(pooled[corpus]) // samples)
        left -= shares[corpus]
    if left:
        held = {corpus: len(texts) for corpus, texts in pooled.items()}
        raise DataError(f"{samples} samples of {count} sentences are wanted, the corpora have {held}.")
    return [
        text
        for corpus, share in sorted(shares.items())
        for text in pooled[corpus][number * share : (number + 1) * share]
    ]


def frequent_words(pooled: Mapping[str, Sequence[str]], count: int, known: set[str]) -> list[str]:
    """Return the commonest words of the pooled sentences, in lower case, that are in a vocabulary."""
    counts = Counter(word for texts in pooled.values() for text in texts for word in text.lower().split())
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return [word for word in ordered if word.isalpha() and word in known][:count]


@dataclass(frozen=True)
class PassageSet:
    """Passages to be found.

    Attributes:
        documents: Texts of the passages.
        groups: Number of the article of each.
        queries: First sentences, taken out of their passages.
        relevant: Number of the passage that each query was taken from.
    """

    documents: list[str]
    groups: np.ndarray
    queries: list[str]
    relevant: np.ndarray


def passages(
    directory: Path, *, groups: int, each: int, queries: int, words: int, generator: np.random.Generator
) -> PassageSet:
    """Draw passages of WikiText-2: several paragraphs of each of several articles, without their first sentences.

    Args:
        directory: Directory of the data set.
        groups: Articles.
        each: Passages of an article.
        queries: Passages whose first sentence is a query.
        words: Most words of a passage.
        generator: Draws articles, paragraphs and queries.

    Raises:
        DataError: Too few articles have enough paragraphs of two sentences.
    """
    usable = {}
    for title, paragraphs in articles(directory).items():
        cut = [_SENTENCE_END.split(text.replace(_UNKNOWN + " ", ""), maxsplit=1) for text in paragraphs]
        fitting = [parts for parts in cut if len(parts) == 2 and min(len(part.split()) for part in parts) >= 5]
        if len(fitting) >= each:
            usable[title] = fitting
    if len(usable) < groups or queries > groups * each:
        raise DataError(
            f"{groups} articles with {each} passages and {queries} queries are wanted; {len(usable)} articles "
            "have as many."
        )
    titles = sorted(usable)
    firsts, documents, numbers = [], [], []
    for number, place in enumerate(generator.permutation(len(titles))[:groups]):
        paragraphs = usable[titles[place]]
        for row in generator.permutation(len(paragraphs))[:each]:
            first, rest = paragraphs[row]
            firsts.append(first)
            documents.append(" ".join(rest.split()[:words]))
            numbers.append(number)
    relevant = np.sort(generator.permutation(len(documents))[:queries])
    return PassageSet(documents, np.asarray(numbers), [firsts[place] for place in relevant], relevant)
