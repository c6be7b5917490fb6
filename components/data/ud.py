"""Universal Dependencies: development and test sentences of 16 languages with gold words, tags and trees.

One table a language, one row a sentence; `form`, `lemma`, `upos`, `feats`, `head` (1-based, 0 at the root) and `deprel`
are lists over syntactic words in order. Lines of multiword tokens ("3-4") and empty nodes ("5.1") are left out, so that
joining `form` does not always give `text`.

Source: Nivre et al. 2020, "Universal Dependencies v2: An Evergrowing Multilingual Treebank Collection", and the
authors of each treebank.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from components.data import parquet, tables

_LISTS = {"form": 1, "lemma": 2, "upos": 3, "feats": 5, "head": 6, "deprel": 7}  # fields of CoNLL-U
_SCHEMA = {"sent_id": pl.String, "split": pl.String, "text": pl.String} | {
    name: pl.List(pl.Int16 if name == "head" else pl.String) for name in _LISTS
}


def from_conllu(paths: Mapping[str, Path], directory: Path) -> None:
    """Write `<language>.parquet` from files `<language>_<treebank>-ud-<split>.conllu`, development before test.

    Norwegian Bokmaal, whose files begin with "no", becomes `nb.parquet`.

    Raises:
        ValueError: A file has another name, or a sentence lacks its id or text.
    """
    rows: dict[str, list[tuple]] = {}
    for name in sorted(paths):
        found = re.fullmatch(r"([a-z]{2})_[a-z]+-ud-(dev|test)\.conllu", Path(name).name)
        if not found:
            raise ValueError(f"{name} is not <language>_<treebank>-ud-<dev or test>.conllu")
        language = "nb" if found[1] == "no" else found[1]
        text = paths[name].read_bytes().decode("utf-8")
        rows.setdefault(language, []).extend(_sentences(text, found[2], name))
    for language, sentences in rows.items():
        parquet.write(pl.DataFrame(sentences, schema=_SCHEMA, orient="row"), directory / f"{language}.parquet")


def _sentences(text: str, split: str, name: str) -> Iterator[tuple]:
    for block in text.strip("\n").split("\n\n"):
        facts: dict[str, str] = {}
        words = []
        for line in block.split("\n"):
            if line.startswith("#"):
                key, separator, value = line[1:].partition(" = ")
                if separator:
                    facts.setdefault(key.strip(), value.strip())
                continue
            fields = line.split("\t")
            if fields[0].isdigit():
                words.append(fields)
        if not {"sent_id", "text"} <= set(facts) or not words:
            raise ValueError(f"{name}: a sentence without sent_id, text or words: {block[:80]!r}")
        lists = [[word[field] for word in words] for field in _LISTS.values()]
        lists[list(_LISTS).index("head")] = [int(word[_LISTS["head"]]) for word in words]
        yield facts["sent_id"], split, facts["text"], *lists


def sentences(directory: Path, language: str = "en") -> pl.DataFrame:
    """Return the sentences of a language, with all columns.

    Raises:
        MissingTable: There is no such language.
    """
    return tables.read(directory, f"{language}.parquet")
