"""Tiny stand-ins with the schemas of the study's data sets and bases, for the smoke profile."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.bases import construct, save_base, specification
from components.data import fsdd
from components.data.images import encode_png
from components.errors import TesseraError
from components.metrics.tables import write_parquet

_CLASSES = 4
_SIZES = {"train.parquet": 24, "test.parquet": 24}
# By the hash split below, "market" and "orchard" are held out where photographs are learned from.
_GROUPS = ("meadow", "market", "orchard")
_BASES = {
    "cifar-clf-a": ("components.nn.image_classifiers", {"design": "residual", "channels": [4, 6], "classes": _CLASSES}),
    "cifar-clf-b": (
        "components.nn.image_classifiers",
        {"design": "plain", "channels": [[4], [8]], "classes": _CLASSES},
    ),
    "cifar-vq-f4": (
        "components.tokenizers.image.maskgit_vqgan",
        {"image_side": 32, "channels": 4, "multipliers": [1, 1, 1], "blocks": 1, "codebook_size": 16, "code_dim": 4},
    ),
}


def make(name: str, directory: Path) -> None:
    """Write a stand-in of the data set `name` into an existing directory.

    Raises:
        TesseraError: The study has no such data set.
    """
    generator = torch.Generator().manual_seed(0)
    if name == "cifar10":
        for file, rows in _SIZES.items():
            labels = np.arange(rows, dtype=np.int8) % _CLASSES
            images = [encode_png(_picture(32, 32, generator)) for _ in range(rows)]
            columns = {"image": images, "label": labels, "class": [f"class {label}" for label in labels]}
            write_parquet(pl.DataFrame({**columns, "file": [f"{row}.png" for row in range(rows)]}), directory / file)
        rule = {"by": "file", "files": {"train": "train.parquet", "test": "test.parquet"}}
    elif name == "photos":
        images = [encode_png(_picture(192, 192 + 32 * row, generator)) for row in range(len(_GROUPS))]
        frame = pl.DataFrame(
            {
                "name": [f"{group}-{row}" for row, group in enumerate(_GROUPS)],
                "source": ["generated"] * len(_GROUPS),
                "group": list(_GROUPS),
                "image": images,
                "height": pl.Series([192] * len(_GROUPS), dtype=pl.Int32),
                "width": pl.Series([192 + 32 * row for row in range(len(_GROUPS))], dtype=pl.Int32),
                "credit": ["generated"] * len(_GROUPS),
            }
        )
        write_parquet(frame, directory / "photos.parquet")
        rule = {"by": "hash", "column": "group", "until": None, "shares": {"train": 0.5, "test": 0.5}}
    elif name == "fsdd":
        write_parquet(_recordings(generator), directory / fsdd.FILE)
        rule = {"by": "column", "column": "split", "names": ["train", "test"]}
    elif name == "python-source":
        write_parquet(_sources(), directory / "sources.parquet")
        rule = {
            "by": "hash",
            "column": "module",
            "until": None,
            "shares": {"train": 0.6, "validation": 0.2, "test": 0.2},
        }
    else:
        raise TesseraError(
            f"{name!r} is no data set of the image tokenizer study; expected cifar10, photos, fsdd or python-source."
        )
    tables = {path.name: {"bytes": path.stat().st_size} for path in directory.glob("*.parquet")}
    (directory / "meta.json").write_text(json.dumps({"name": name, "tables": tables, "splits": rule}))


def make_base(name: str, directory: Path) -> None:
    """Write an untrained, tiny base of the right kind into an existing directory.

    Raises:
        TesseraError: The study uses no such base.
    """
    if name not in _BASES:
        raise TesseraError(f"{name!r} is no base of the image tokenizer study; expected one of {', '.join(_BASES)}.")
    module, arguments = _BASES[name]
    description = specification(module, **arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_base(directory, construct(description), description, f"# {name}\n\nAn untrained stand-in.")


def _recordings(generator: torch.Generator) -> pl.DataFrame:
    """Return recordings of a fifth of a second: noise under a tone that is the digit's."""
    rows = []
    for take in range(12):
        time = torch.arange(fsdd.SAMPLE_RATE // 5) / fsdd.SAMPLE_RATE
        tone = torch.sin(2 * torch.pi * 200 * (1 + take % 3) * time) + 0.1 * torch.randn(
            time.shape, generator=generator
        )
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as recording:
            recording.setparams((1, 2, fsdd.SAMPLE_RATE, len(tone), "NONE", ""))
            recording.writeframes(tone.mul(8_000).short().numpy().tobytes())
        rows.append((buffer.getvalue(), take % 3, "speaker", take, "test" if take < 4 else "train"))
    schema = {"audio": pl.Binary, "digit": pl.Int8, "speaker": pl.String, "index": pl.Int16, "split": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _sources() -> pl.DataFrame:
    """Return modules that import one another."""
    texts = [f"import made.part_{(row * 5 + 1) % 16}\nfrom made import part_{(row * 3 + 2) % 16}" for row in range(16)]
    rows = [("made", f"made.part_{row}", text) for row, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=["package", "module", "text"], orient="row")


def _picture(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Return a random picture, uint8 (3, height, width)."""
    coarse = torch.rand(1, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    # Noise makes codecs reach their budgets at low qualities, as they do on photographs.
    noisy = smooth[0] + torch.randn(3, height, width, generator=generator)
    return noisy.clamp(0, 1).mul(255).round().to(torch.uint8)
