"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.bases import construct, save_base, specification
from components.data import multi30k, shapes
from components.data.scenes.sampling import draw
from components.data.scenes.world import World
from components.errors import TesseraError, did_you_mean
from components.language.pretrained import save_tokens
from components.metrics.tables import write_parquet
from components.tokenizers.text import bpe
from flows.studies.discrete_diffusion.models import DENOISER
from flows.studies.discrete_diffusion.sources import TOKENIZER_FILE, Translations

_WORLD = {"side": 32, "objects": [1, 3], "sizes": {"small": 3.25, "medium": 4.5, "large": 5.75}}
_SCENES = {"train": 24, "validation": 8, "test": 10}
_BASE = "mt-multi30k-absorbing"
_BASES = (_BASE, f"{_BASE}-s1", f"{_BASE}-s2")
_JUDGE = "judge-char-lm"
_SENTENCE = "the king and queen of all our fair land shall speak no more: Away! Good sir, what news from Rome?"
_GERMAN = ["ein", "mann", "hund", "läuft", "steht", "auf", "der", "straße", "vor", "dem", "haus", "."]
_ENGLISH = ["a", "man", "dog", "runs", "stands", "on", "the", "street", "before", "the", "house", "."]


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    if name not in _MAKERS:
        near = did_you_mean(name, _MAKERS)
        raise TesseraError(
            f"{name!r} is no data set of the discrete-diffusion study; expected one of {', '.join(_MAKERS)}.{near}"
        )
    file, splits = _MAKERS[name](directory)
    meta = {"name": name, "tables": {file: {"bytes": (directory / file).stat().st_size}}, "splits": splits}
    (directory / "meta.json").write_text(json.dumps(meta))


def make_base(name: str, directory: Path) -> None:
    """Write an untrained stand-in of a translation base, or of the judge of characters, into an existing directory.

    Raises:
        TesseraError: The study has no such base.
    """
    if name == _JUDGE:
        _judge(directory)
        return
    if name not in _BASES:
        known = ", ".join([*_BASES, _JUDGE])
        raise TesseraError(f"{name!r} is no base of the discrete-diffusion study; expected one of {known}.")
    data = directory / "data"
    data.mkdir()
    make("multi30k", data)
    task = Translations.learn(data, 60, 40)
    for path in data.iterdir():
        path.unlink()
    data.rmdir()
    description = specification(
        DENOISER, words=task.words, context=40, width=8, encoder_layers=1, decoder_layers=1, heads=2, feed_forward=8
    )
    torch.manual_seed(0)
    task.tokenizer.save(directory / TOKENIZER_FILE)
    save_base(directory, construct(description), description, f"# {name}\n\nAn untrained stand-in.")


def _judge(directory: Path) -> None:
    alphabet = "".join(sorted({*_SENTENCE, "\n"}))
    tokenizer = bpe.train([], len(alphabet), alphabet=alphabet)
    description = specification(
        "components.language.causal_lm",
        vocabulary_size=len(alphabet), context=64, width=8, layers=1, heads=2, tied=True, positions="rotary",
    )  # fmt: skip
    torch.manual_seed(0)
    save_tokens(directory, tokenizer, bpe.__name__, [])
    save_base(directory, construct(description), description, f"# {_JUDGE}\n\nAn untrained stand-in.")


def _by_column(names: list[str]) -> dict[str, object]:
    return {"by": "column", "column": "split", "names": names}


def _shapes(directory: Path) -> tuple[str, dict[str, object]]:
    # Not `generate`, which draws and renders whole blocks of scenes.
    world = World.of(_WORLD)
    drawn = [shapes.table(draw(world, 0, split, np.arange(count)), split) for split, count in _SCENES.items()]
    write_parquet(pl.concat(drawn), directory / "shapes.parquet")
    return "shapes.parquet", _by_column(list(_SCENES))


def _tinyshakespeare(directory: Path) -> tuple[str, dict[str, object]]:
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(_SENTENCE.split(), size=8)) for _ in range(60)]
    write_parquet(pl.DataFrame({"text": ["\n".join(lines) + "\n"]}), directory / "text.parquet")
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    return "text.parquet", {"by": "position", "column": "text", "shares": shares}


def _multi30k(directory: Path) -> tuple[str, dict[str, object]]:
    generator = np.random.default_rng(0)
    rows = []
    for split, count in (("train", 40), ("val", 8), ("test_2016_flickr", 8), ("test_2017_flickr", 8)):
        for number in range(count):
            drawn = generator.integers(len(_GERMAN), size=6)
            texts = (" ".join(words[at] for at in drawn) for words in (_ENGLISH, _GERMAN))
            rows.append((split, number, *texts, "", ""))
    schema = {"split": pl.String, "index": pl.Int32, **dict.fromkeys(multi30k.LANGUAGES, pl.String)}
    write_parquet(pl.DataFrame(rows, schema=schema, orient="row"), directory / multi30k.FILE)
    return multi30k.FILE, _by_column(list(multi30k.SPLITS))


_MAKERS = {"shapes": _shapes, "multi30k": _multi30k, "tinyshakespeare": _tinyshakespeare}
