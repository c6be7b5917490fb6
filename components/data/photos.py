"""Colour photographs that lie in the wheels of installed packages; nothing is downloaded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

import polars as pl
from PIL import Image

from components.data import parquet

_SCHEMA = {
    "name": pl.String,
    "source": pl.String,
    "group": pl.String,
    "image": pl.Binary,
    "height": pl.Int32,
    "width": pl.Int32,
    "credit": pl.String,
}


class Photograph(TypedDict):
    """One photograph: its name, the scene it shows, the module and file that hold it, and whom to credit."""

    name: str
    group: str
    module: str
    file: str
    credit: str


def collect(directory: Path, *, photographs: Sequence[Photograph]) -> None:
    """Write `photos.parquet`: the photographs' files as they are shipped (PNG or JPEG), with their size in pixels.

    The bytes are not encoded again, so that they do not depend on the release of an image library.

    Args:
        directory: Where to write.
        photographs: What to collect, in this order.
    """
    rows = []
    for photograph in photographs:
        # Found without importing the module: scikit-learn alone takes a second.
        (folder,) = find_spec(photograph["module"]).submodule_search_locations
        image = Path(folder, photograph["file"]).read_bytes()
        width, height = Image.open(io.BytesIO(image)).size
        rows.append(
            (
                photograph["name"],
                photograph["module"],
                photograph["group"],
                image,
                height,
                width,
                photograph["credit"],
            )
        )
    parquet.write(pl.DataFrame(rows, schema=_SCHEMA, orient="row"), directory / "photos.parquet")
