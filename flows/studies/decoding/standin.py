"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.bases import construct, save_base, specification
from components.data import gsm8k, markov
from components.errors import TesseraError
from components.language.fill_in_middle import END, MIDDLE, PREFIX, SUFFIX
from components.language.pretrained import save_tokens
from components.metrics.tables import write_parquet
from components.tokenizers.text import bpe, unigram
from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES
from flows.studies.decoding.sources import TEXT_FILE

_LANGUAGE_MODELS = {"lm-code-2m": "python-source", "lm-math-2m": "gsm8k"} | {
    name: "python-source"
    for name in (
        "lm-python-bpe-apart",
        *(f"lm-python-{tokens}-s{seed}" for tokens in ("bpe", "unigram") for seed in range(3)),
    )
}
_CONTEXT = 48
_SENTENCE = "the king and queen of all our fair land shall speak no more: Away! Good sir, what news from Rome?"


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name == "markov":
        markov.generate(directory)
    elif name == "tinyshakespeare":
        generator = np.random.default_rng(0)
        lines = [" ".join(generator.choice(_SENTENCE.split(), size=8)) for _ in range(150)]
        write_parquet(pl.DataFrame({"text": ["\n".join(lines) + "\n"]}), directory / TEXT_FILE)
        meta = {
            "name": name,
            "tables": {TEXT_FILE: {"bytes": (directory / TEXT_FILE).stat().st_size}},
            "splits": {"by": "position", "column": "text", "shares": {"train": 0.8, "validation": 0.1, "test": 0.1}},
        }
        (directory / "meta.json").write_text(json.dumps(meta))
    elif name == "python-source":
        _write(name, directory, {"sources.parquet": _sources()}, _by_module())
    elif name == "gsm8k":
        parts = {f"{split}.parquet": _problems(count) for split, count in (("train", 30), ("test", 40))}
        _write(name, directory, parts, {"by": "file", "files": {"train": "train.parquet", "test": "test.parquet"}})
    else:
        raise TesseraError(
            f"{name!r} is no data set of the decoding study; expected markov, tinyshakespeare, python-source or gsm8k."
        )


def make_base(name: str, directory: Path) -> None:
    """Write an untrained stand-in of the language model `name` into an existing directory.

    Raises:
        TesseraError: The study has no such base.
    """
    if name == "judge-char-lm":
        _make_judge(name, directory)
        return
    if name not in _LANGUAGE_MODELS:
        known = ", ".join([*_LANGUAGE_MODELS, "judge-char-lm"])
        raise TesseraError(f"{name!r} is no base of the decoding study; expected one of {known}.")
    code = _LANGUAGE_MODELS[name] == "python-source"
    texts = _sources()["text"].to_list() if code else gsm8k.documents(_problems(30))
    module = unigram if "unigram" in name else bpe
    # The pair of Python models reads documents to fill in the middle, too.
    names = [END, PREFIX, SUFFIX, MIDDLE] if name.startswith("lm-python-") else [END]
    tokenizer = module.train(texts, 300, alphabet=BYTES, pieces=SPACED_PIECES if code else bpe.WORD_PIECES)
    description = specification(
        "components.language.causal_lm",
        vocabulary_size=len(tokenizer.vocabulary) + len(names),
        context=_CONTEXT,
        width=16,
        layers=1,
        heads=2,
        tied=True,
        positions="rotary",
    )
    torch.manual_seed(0)
    model = construct(description)
    save_tokens(directory, tokenizer, module.__name__, names)
    save_base(directory, model, description, f"# {name}\n\nAn untrained stand-in.")


def _make_judge(name: str, directory: Path) -> None:
    """Write an untrained judge of the characters of the made-up text."""
    alphabet = "".join(sorted({*_SENTENCE, "\n"}))
    tokenizer = bpe.train([], len(alphabet), alphabet=alphabet)
    description = specification(
        "components.language.causal_lm",
        vocabulary_size=len(alphabet),
        context=64,
        width=16,
        layers=1,
        heads=2,
        tied=True,
        positions="rotary",
    )
    torch.manual_seed(0)
    save_tokens(directory, tokenizer, bpe.__name__, [])
    save_base(directory, construct(description), description, f"# {name}\n\nAn untrained stand-in.")


def _write(name: str, directory: Path, frames: dict[str, pl.DataFrame], splits: dict) -> None:
    for file, frame in frames.items():
        write_parquet(frame, directory / file)
    sizes = {file: {"bytes": (directory / file).stat().st_size} for file in frames}
    (directory / "meta.json").write_text(json.dumps({"name": name, "tables": sizes, "splits": splits}))


def _by_module() -> dict:
    shares = {"train": 0.5, "validation": 0.1, "test": 0.4}
    return {"by": "hash", "column": "module", "until": None, "shares": shares}


def _sources() -> pl.DataFrame:
    generator = np.random.default_rng(0)
    words = ["value", "index", "name", "item", "self", "result", "key", "count"]
    rows = []
    for module in range(24):
        lines = ["import json", ""]
        for _ in range(8):
            first, second, third = generator.choice(words, 3, replace=False)
            lines += [
                f"def {first}({second}, {third}):",
                f"    {first} = {second} + {third}",
                f"    return {first}",
                "",
            ]
        rows.append(("made", f"made.module_{module}", "\n".join(lines)))
    return pl.DataFrame(rows, schema={"package": pl.String, "module": pl.String, "text": pl.String}, orient="row")


def _problems(count: int) -> pl.DataFrame:
    generator = np.random.default_rng(count)
    rows = []
    for _ in range(count):
        first, second = generator.integers(2, 50, 2).tolist()
        question = f"Ann has {first} pens. She buys {second}. How many?"
        total = first + second
        answer = f"She has {first} + {second} = <<{first}+{second}={total}>>{total}.\n#### {total}"
        rows.append((question, answer, str(total)))
    return pl.DataFrame(rows, schema={"question": pl.String, "answer": pl.String, "final": pl.String}, orient="row")
